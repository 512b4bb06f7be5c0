//! The sources of a weight, joined along their first dimension, as they are stored.
//!
//! Invariants: every source has the shape that the plan says and a floating type of 16, 32 or 64 bits; all
//! have rows of one length. Nothing is converted before it is asked for, so that a weight is packed from
//! the file without a copy of it in between; memory that the file is mapped to is given back soon after it was read.

use super::{Checkpoint, StoredDType, StoredTensor};
use crate::{FileFault, RuntimeError};
use half::{bf16, f16};
use std::ops::Range;
use terrace_plan::{Weight, WeightSource};

/// Elements that are read of a source at once.
const PART: usize = 1 << 18;

/// How an element is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    Bf16,
}

impl Element {
    const fn of(dtype: StoredDType) -> Option<Self> {
        match dtype {
            // Positions are computed and stored in double precision.
            StoredDType::F64 => Some(Self::F64),
            StoredDType::F32 => Some(Self::F32),
            StoredDType::F16 => Some(Self::F16),
            StoredDType::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Writes `make` of every element of `bytes`.
    pub(super) fn convert<T>(self, bytes: &[u8], out: &mut [T], make: impl Fn(f32) -> T) {
        // A loop per type, so that each becomes vector code.
        match self {
            Self::F64 => each(bytes, out, |b| make(f64::from_le_bytes(b) as f32)),
            Self::F32 => each(bytes, out, |b| make(f32::from_le_bytes(b))),
            Self::F16 => each(bytes, out, |b| make(f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => each(bytes, out, |b| make(bf16::from_le_bytes(b).to_f32())),
        }
    }

    fn read(self, bytes: &[u8], out: &mut [f32]) {
        self.convert(bytes, out, |x| x);
    }
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], make: impl Fn([u8; N]) -> T) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = make(bytes);
    }
}

/// The elements of a stored tensor in single precision, or `None` for a type that is not a floating
/// type of 16, 32 or 64 bits.
pub(crate) fn to_f32(dtype: StoredDType, bytes: &[u8]) -> Option<Vec<f32>> {
    let element = Element::of(dtype)?;
    let mut data = vec![0.0; bytes.len() / element.bytes()];
    element.read(bytes, &mut data);
    Some(data)
}

/// The sources of a weight.
pub(crate) struct Joined<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) sources: Vec<Source<'a>>,
}

pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) element: Element,
    pub(super) bytes: &'a [u8],
}

impl Source<'_> {
    /// Number of elements.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() / self.element.bytes()
    }

    /// Bytes of so many elements from `first` on.
    pub(super) const fn range(&self, first: usize, count: usize) -> Range<usize> {
        let size = self.element.bytes();
        first * size..(first + count) * size
    }
}

/// The rows of a weight, wherever they are stored.
pub(super) struct Rows<'a> {
    weight: &'a Joined<'a>,
    /// Source and first element of every row.
    begins: Vec<(usize, usize)>,
}

impl<'a> Joined<'a> {
    /// Finds the sources of `weight`.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        weight: &'a Weight,
    ) -> Result<Self, RuntimeError> {
        let sources = weight.sources.iter().map(|source| {
            let (name, stored) = find(checkpoint, source)?;
            Ok(Source {
                name,
                element: check(name, &stored, source)?,
                bytes: stored.bytes,
            })
        });
        Ok(Self {
            checkpoint,
            sources: sources.collect::<Result<_, RuntimeError>>()?,
        })
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.sources.iter().map(Source::len).sum()
    }

    /// Rows of `len` elements. The plan's check has proved that the sources are made of such.
    pub(super) fn rows(&self, len: usize) -> Rows<'_> {
        let len = len.max(1);
        let begins = self.sources.iter().enumerate().flat_map(|(at, source)| {
            let rows = 0..source.len() / len;
            rows.map(move |row| (at, row * len))
        });
        Rows {
            weight: self,
            begins: begins.collect(),
        }
    }

    /// All elements.
    pub(super) fn to_vec(&self) -> Vec<f32> {
        let mut data = vec![0.0; self.len()];
        let mut rest = &mut data[..];
        for source in &self.sources {
            let (out, behind) = rest.split_at_mut(source.len());
            for (part, out) in out.chunks_mut(PART).enumerate() {
                self.read(source, part * PART, out);
            }
            rest = behind;
        }
        data
    }

    /// Writes the elements of a source from `first` on.
    fn read(&self, source: &Source<'_>, first: usize, out: &mut [f32]) {
        let range = source.range(first, out.len());
        source.element.read(&source.bytes[range.clone()], out);
        self.checkpoint.passed(source.name, &range);
    }
}

impl Rows<'_> {
    /// Writes the elements of a row that exists.
    pub(super) fn read(&self, row: usize, out: &mut [f32]) {
        let (source, first) = self.begins[row];
        self.weight.read(&self.weight.sources[source], first, out);
    }
}

impl Drop for Joined<'_> {
    /// Whoever has converted the sources does not need both copies.
    fn drop(&mut self) {
        for source in &self.sources {
            self.checkpoint.release(source.name);
        }
    }
}

/// Checks a stored tensor against its source.
fn check(
    name: &str,
    stored: &StoredTensor<'_>,
    source: &WeightSource,
) -> Result<Element, RuntimeError> {
    if stored.shape != source.shape {
        return Err(FileFault::StoredShape {
            file: stored.file.to_owned(),
            tensor: name.to_owned(),
            expected: source.shape.clone(),
            found: stored.shape.to_vec(),
        }
        .into());
    }
    Element::of(stored.dtype).ok_or_else(|| {
        FileFault::StoredDType {
            file: stored.file.to_owned(),
            tensor: name.to_owned(),
            expected: "f32, f64, f16 or bf16",
            found: format!("{:?}", stored.dtype).to_lowercase(),
        }
        .into()
    })
}

/// The stored tensor of a source under the first of its names that the checkpoint knows.
fn find<'a>(
    checkpoint: &'a Checkpoint,
    source: &'a WeightSource,
) -> Result<(&'a str, StoredTensor<'a>), RuntimeError> {
    std::iter::once(&source.name)
        .chain(&source.aliases)
        .find_map(|name| Some((name.as_str(), checkpoint.tensor(name)?)))
        .ok_or_else(|| checkpoint.missing(&source.name))
}
