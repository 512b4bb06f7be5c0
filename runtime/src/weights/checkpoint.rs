//! Checkpoints: the safetensors files of one model component, mapped into memory.
//!
//! A folder holds one file or shards with an index, as diffusers and transformers write them.
//! Opening reads headers only. Refused: missing folders and files, truncated or malformed files, an
//! index that names what is not there. The files must not be changed while the checkpoint is open.

use super::format::{TensorEntry, parse};
use crate::{FileFault, RuntimeError};
use memmap2::Mmap;
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// File names tried in a folder, in this order; each may be replaced by shards and an index.
const STEMS: [&str; 2] = ["diffusion_pytorch_model.safetensors", "model.safetensors"];

/// Bytes of a tensor whose memory is given back at once.
const BLOCK: usize = 4 << 20;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A tensor as it lies in the file: little endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct StoredTensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the dimensions.
    pub shape: &'a [usize],
    /// The elements; not necessarily aligned.
    pub bytes: &'a [u8],
    /// File that holds the tensor, for messages.
    pub file: &'a str,
}

/// The tensors of one model component.
#[derive(Debug)]
pub struct Checkpoint {
    id: u64,
    source: String,
    parts: Vec<Part>,
    tensors: BTreeMap<String, (usize, TensorEntry)>,
    /// Tensors in a shard that the index does not list, with the shard.
    unlisted: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Maps the weights in `folder`: `diffusion_pytorch_model.safetensors`, `model.safetensors`, or
    /// the shards named by `<either>.index.json`. A path to one safetensors file is taken as it is.
    ///
    /// # Errors
    /// Names the folder, file or tensor that is missing, truncated, malformed or unreadable.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        let folder = folder.as_ref();
        if folder.is_file() {
            return Self::from_parts(folder.display().to_string(), vec![Part::map(folder)?], None);
        }
        if !folder.is_dir() {
            return Err(FileFault::MissingFolder {
                path: folder.to_owned(),
            }
            .into());
        }
        for stem in STEMS {
            let single = folder.join(stem);
            if single.is_file() {
                let source = folder.display().to_string();
                return Self::from_parts(source, vec![Part::map(&single)?], None);
            }
            let index = folder.join(format!("{stem}.index.json"));
            if index.is_file() {
                return Self::open_sharded(folder, &index);
            }
        }
        Err(FileFault::NoWeights {
            folder: folder.to_owned(),
            expected: STEMS.join("`, `"),
            found: safetensors_in(folder),
        }
        .into())
    }

    /// A checkpoint over safetensors files that are part of the program, each with a name for
    /// messages.
    ///
    /// # Errors
    /// When a part is truncated or malformed.
    pub fn from_bytes(parts: &[(&str, &'static [u8])]) -> Result<Self, RuntimeError> {
        let parts = parts
            .iter()
            .map(|&(name, bytes)| Part {
                name: name.to_owned(),
                bytes: Bytes::Static(bytes),
            })
            .collect();
        Self::from_parts("embedded checkpoint".to_owned(), parts, None)
    }

    /// A checkpoint without tensors, for plans without weights.
    pub fn empty() -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            source: "empty checkpoint".to_owned(),
            parts: Vec::new(),
            tensors: BTreeMap::new(),
            unlisted: BTreeMap::new(),
        }
    }

    /// A checkpoint over `tensors`, whose ranges lie in `bytes`.
    pub(super) fn over(
        source: &str,
        bytes: Vec<u8>,
        tensors: BTreeMap<String, TensorEntry>,
    ) -> Self {
        let part = Part {
            name: source.to_owned(),
            bytes: Bytes::Owned(bytes),
        };
        let tensors = tensors.into_iter();
        Self {
            source: source.to_owned(),
            parts: vec![part],
            tensors: tensors.map(|(name, entry)| (name, (0, entry))).collect(),
            ..Self::empty()
        }
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let (part, entry) = self.tensors.get(name)?;
        let part = &self.parts[*part];
        Some(StoredTensor {
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: part.bytes.get().get(entry.range.clone())?,
            file: &part.name,
        })
    }

    /// Gives the memory that holds the tensor called `name` back to the system, which reads the file again
    /// when it is asked for again. Whoever has converted a tensor does not need both copies.
    pub(crate) fn release(&self, name: &str) {
        if let Some((part, entry)) = self.tensors.get(name) {
            self.parts[*part].bytes.release(&entry.range);
        }
    }

    /// Gives memory back while a tensor is read, of which the bytes `range` were the last: the blocks that they
    /// end.
    pub(crate) fn passed(&self, name: &str, range: &Range<usize>) {
        let blocks = range.start / BLOCK * BLOCK..range.end / BLOCK * BLOCK;
        if blocks.is_empty() {
            return;
        }
        if let Some((part, entry)) = self.tensors.get(name) {
            let first = entry.range.start;
            let blocks = first + blocks.start..first + blocks.end;
            self.parts[*part].bytes.release(&blocks);
        }
    }

    /// Gives all memory back, also what the system has mapped beside what was read.
    pub(crate) fn release_all(&self) {
        for part in &self.parts {
            part.bytes.release(&(0..part.bytes.get().len()));
        }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Folder or file that the checkpoint was opened from, for messages.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Distinguishes checkpoints of this process.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// The error for a tensor that is not here, with what may explain it.
    pub(crate) fn missing(&self, name: &str) -> RuntimeError {
        if let Some(&part) = self.unlisted.get(name) {
            return FileFault::IndexLacksTensor {
                checkpoint: self.source.clone(),
                tensor: name.to_owned(),
                file: self.parts[part].name.clone(),
            }
            .into();
        }
        FileFault::MissingTensor {
            checkpoint: self.source.clone(),
            tensor: name.to_owned(),
            close: self.close_name(name),
            count: self.tensors.len(),
        }
        .into()
    }

    fn open_sharded(folder: &Path, index: &Path) -> Result<Self, RuntimeError> {
        let shards = read_index(index)?;
        let files: BTreeSet<&String> = shards.values().collect();
        let mut parts = Vec::new();
        for file in &files {
            let path = folder.join(file);
            if !path.is_file() {
                return Err(FileFault::IndexNamesMissingFile {
                    index: index.to_owned(),
                    file: (*file).clone(),
                    tensors: shards.values().filter(|f| f == file).count(),
                }
                .into());
            }
            parts.push(Part::map(&path)?);
        }
        let listed = Listing {
            index,
            files: files.into_iter().cloned().collect(),
            shards: &shards,
        };
        Self::from_parts(folder.display().to_string(), parts, Some(&listed))
    }

    fn from_parts(
        source: String,
        parts: Vec<Part>,
        listing: Option<&Listing<'_>>,
    ) -> Result<Self, RuntimeError> {
        let mut tensors = BTreeMap::new();
        let mut unlisted = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            for entry in parse(&part.name, part.bytes.get())? {
                if listing.is_none_or(|listing| listing.holds(&entry.name, at)) {
                    tensors.insert(entry.name.clone(), (at, entry));
                } else {
                    unlisted.insert(entry.name, at);
                }
            }
        }
        if let Some(listing) = listing {
            listing.require(&tensors)?;
        }
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            source,
            parts,
            tensors,
            unlisted,
        })
    }

    fn close_name(&self, name: &str) -> Option<String> {
        let limit = name.len() / 3;
        self.tensors
            .keys()
            .map(|candidate| (distance(name, candidate), candidate))
            .min()
            .filter(|&(distance, _)| distance <= limit)
            .map(|(_, candidate)| candidate.clone())
    }
}

#[derive(Debug)]
struct Part {
    name: String,
    bytes: Bytes,
}

impl Part {
    fn map(path: &Path) -> Result<Self, RuntimeError> {
        let fail = |source| FileFault::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(fail)?;
        // SAFETY: the mapping is read-only and lives in `Part`; the contract of `Checkpoint` asks
        // that the file is not changed while it is open, as every reader of mapped weights does.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        Ok(Self {
            name: path.display().to_string(),
            bytes: Bytes::Mapped(map),
        })
    }
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    #[cfg(unix)]
    fn release(&self, range: &Range<usize>) {
        let Self::Mapped(map) = self else { return };
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the mapping is of a file and never written, so pages that were given back are read
        // again with the same contents.
        let given = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
        debug_assert!(given.is_ok(), "the range lies in the mapping");
    }

    #[cfg(not(unix))]
    const fn release(&self, _: &Range<usize>) {}
}

/// What an index says, together with the files in the order of the parts.
struct Listing<'a> {
    index: &'a Path,
    files: Vec<String>,
    shards: &'a BTreeMap<String, String>,
}

impl Listing<'_> {
    fn holds(&self, tensor: &str, part: usize) -> bool {
        self.shards.get(tensor) == Some(&self.files[part])
    }

    fn require(
        &self,
        tensors: &BTreeMap<String, (usize, TensorEntry)>,
    ) -> Result<(), RuntimeError> {
        match self
            .shards
            .iter()
            .find(|(name, _)| !tensors.contains_key(*name))
        {
            None => Ok(()),
            Some((name, file)) => Err(FileFault::IndexNamesMissingTensor {
                index: self.index.to_owned(),
                tensor: name.clone(),
                file: file.clone(),
            }
            .into()),
        }
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, RuntimeError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(path).map_err(|source| FileFault::Read {
        path: path.to_owned(),
        source,
    })?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|source| FileFault::MalformedIndex {
            index: path.to_owned(),
            source,
        })?;
    // A shard is a file beside the index; anything else would leave the folder.
    match index.weight_map.values().find(|file| {
        Path::new(file)
            .file_name()
            .is_none_or(|name| name != file.as_str())
    }) {
        Some(file) => Err(FileFault::IndexLeavesFolder {
            index: path.to_owned(),
            file: file.clone(),
        }
        .into()),
        None => Ok(index.weight_map),
    }
}

/// Names of the safetensors files in `folder`, sorted; they help who mistook the folder.
fn safetensors_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.ends_with(".safetensors") || name.ends_with(".bin"))
        .collect();
    names.sort();
    names
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
