//! The sources of a weight, joined along their first dimension, as they are stored.
//!
//! Invariants: every source has the shape that the plan says and a floating type of 16, 32 or 64 bits; all
//! have rows of one length. Nothing is converted before it is asked for, so that a weight is packed from
//! the file without a copy of it in between.

use super::{Checkpoint, StoredDType, StoredTensor};
use crate::{FileFault, RuntimeError};
use half::{bf16, f16};
use terrace_plan::{Weight, WeightSource};

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

    /// Element `index` of `bytes`.
    fn at(self, bytes: &[u8], index: usize) -> f32 {
        match self {
            Self::F64 => f64::from_le_bytes(bytes.as_chunks::<8>().0[index]) as f32,
            Self::F32 => f32::from_le_bytes(bytes.as_chunks::<4>().0[index]),
            Self::F16 => f16::from_le_bytes(bytes.as_chunks::<2>().0[index]).to_f32(),
            Self::Bf16 => bf16::from_le_bytes(bytes.as_chunks::<2>().0[index]).to_f32(),
        }
    }

    /// Appends all elements of `bytes`.
    fn append(self, bytes: &[u8], data: &mut Vec<f32>) {
        let (words, halves) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<2>().0);
        match self {
            Self::F64 => {
                let longs = bytes.as_chunks::<8>().0;
                data.extend(longs.iter().map(|&b| f64::from_le_bytes(b) as f32));
            }
            Self::F32 => data.extend(words.iter().map(|&b| f32::from_le_bytes(b))),
            Self::F16 => data.extend(halves.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => data.extend(halves.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
        }
    }
}

/// The elements of a stored tensor in single precision, or `None` for a type that is not a floating
/// type of 16, 32 or 64 bits.
pub(crate) fn to_f32(dtype: StoredDType, bytes: &[u8]) -> Option<Vec<f32>> {
    let mut data = Vec::new();
    Element::of(dtype)?.append(bytes, &mut data);
    Some(data)
}

/// The sources of a weight.
pub(crate) struct Joined<'a> {
    checkpoint: &'a Checkpoint,
    pub(super) sources: Vec<Source<'a>>,
}

pub(super) struct Source<'a> {
    name: &'a str,
    pub(super) element: Element,
    pub(super) bytes: &'a [u8],
}

impl Source<'_> {
    /// Number of elements.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() / self.element.bytes()
    }
}

/// The rows of a weight, wherever they are stored.
pub(super) struct Rows<'a>(Vec<(Element, &'a [u8])>);

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

    /// Rows of `len` elements. The plan's check has proved that the sources are made of such.
    pub(super) fn rows(&self, len: usize) -> Rows<'a> {
        let rows = self.sources.iter().flat_map(|source| {
            let bytes = len.saturating_mul(source.element.bytes()).max(1);
            let rows = source.bytes.chunks_exact(bytes);
            rows.map(|row| (source.element, row))
        });
        Rows(rows.collect())
    }

    /// All elements.
    pub(super) fn to_vec(&self) -> Vec<f32> {
        let mut data = Vec::new();
        for source in &self.sources {
            data.reserve_exact(source.len());
            source.element.append(source.bytes, &mut data);
        }
        data
    }
}

impl Rows<'_> {
    /// An element, row and column of which exist.
    pub(super) fn at(&self, row: usize, column: usize) -> f32 {
        let (element, bytes) = self.0[row];
        element.at(bytes, column)
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
