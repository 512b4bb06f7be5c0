//! Loading: stored tensors become the f32 elements, or the packed panels, that kernels read.
//!
//! Invariants: what is loaded has the shape and layout that the plan says; the sources of a weight are
//! joined along dimension 0 in their order. Refused: tensors that are missing under all their names,
//! have another shape than the plan expects, or a type that is not a floating type of 16, 32 or 64 bits.

use super::{Checkpoint, StoredDType, StoredTensor};
use crate::backend::resolved::Layout;
use crate::boxes::Boxes;
use crate::tensor::zeroed;
use crate::{FileFault, ResolveFault, RuntimeError};
use half::{bf16, f16};
use std::sync::Arc;
use terrace_kernels::cpu::{PackedConv3d, PackedLinear};
use terrace_plan::{DType, Weight, WeightLayout, WeightSource};

/// A weight as the CPU kernels read it.
#[derive(Clone, Debug)]
pub enum LoadedWeight {
    /// Row-major.
    Plain(Vec<f32>),
    /// `[n, k]` in the panels of the linear kernel.
    Linear(Arc<PackedLinear>),
    /// `[cout, cin, kt, kh, kw]` in the panels of the convolution kernel.
    Conv3d(Arc<PackedConv3d>),
}

impl LoadedWeight {
    /// Reads `weight` from `checkpoint`, cuts and packs it.
    ///
    /// # Errors
    /// Names the tensor and its file, with the shape or type that was expected and found.
    pub fn load(checkpoint: &Checkpoint, weight: &Weight) -> Result<Self, RuntimeError> {
        let data = elements(checkpoint, weight)?;
        let misfit = || ResolveFault::WeightShape {
            layout: weight.layout,
            shape: weight.shape.clone(),
        };
        match weight.layout {
            WeightLayout::Plain => Ok(Self::Plain(data)),
            WeightLayout::Linear => {
                let [n, k] = weight.shape[..] else {
                    return Err(misfit().into());
                };
                let packed = match weight.dtype {
                    DType::F32 => PackedLinear::pack(n, k, &data),
                    DType::Bf16 => PackedLinear::pack_bf16(n, k, &data),
                    DType::I8 => PackedLinear::pack_i8(n, k, &data),
                    found @ (DType::F16 | DType::U32) => return Err(unpacked(found)),
                };
                Ok(Self::Linear(Arc::new(packed?)))
            }
            WeightLayout::Conv3d => {
                let [cout, cin, kt, kh, kw] = weight.shape[..] else {
                    return Err(misfit().into());
                };
                let kernel = [kt, kh, kw];
                let packed = match weight.dtype {
                    DType::F32 => PackedConv3d::pack(cout, cin, kernel, &data),
                    DType::Bf16 => PackedConv3d::pack_bf16(cout, cin, kernel, &data),
                    found @ (DType::F16 | DType::U32 | DType::I8) => {
                        return Err(unpacked(found));
                    }
                };
                Ok(Self::Conv3d(Arc::new(packed?)))
            }
        }
    }
}

impl Layout for LoadedWeight {
    fn layout(&self) -> WeightLayout {
        match self {
            Self::Plain(_) => WeightLayout::Plain,
            Self::Linear(_) => WeightLayout::Linear,
            Self::Conv3d(_) => WeightLayout::Conv3d,
        }
    }
}

/// The elements of a weight that the rank holds, in their plain order.
pub(crate) fn elements(checkpoint: &Checkpoint, weight: &Weight) -> Result<Vec<f32>, RuntimeError> {
    cut(weight, join(checkpoint, weight)?)
}

/// The error for a type that the CPU's products do not take.
fn unpacked(found: DType) -> RuntimeError {
    ResolveFault::WeightType { found }.into()
}

/// The elements of a stored tensor in single precision, or `None` for a type that is not a floating
/// type of 16, 32 or 64 bits.
pub(crate) fn to_f32(dtype: StoredDType, bytes: &[u8]) -> Option<Vec<f32>> {
    let mut data = Vec::new();
    append(dtype, bytes, &mut data).then_some(data)
}

/// Appends the elements to `data`; false, and nothing appended, for other types.
fn append(dtype: StoredDType, bytes: &[u8], data: &mut Vec<f32>) -> bool {
    let (words, halves) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<2>().0);
    match dtype {
        // Positions are computed and stored in double precision.
        StoredDType::F64 => {
            let longs = bytes.as_chunks::<8>().0;
            data.extend(longs.iter().map(|&b| f64::from_le_bytes(b) as f32));
        }
        StoredDType::F32 => data.extend(words.iter().map(|&b| f32::from_le_bytes(b))),
        StoredDType::F16 => data.extend(halves.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
        StoredDType::BF16 => data.extend(halves.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
        _ => return false,
    }
    true
}

/// The sources joined along dimension 0.
fn join(checkpoint: &Checkpoint, weight: &Weight) -> Result<Vec<f32>, RuntimeError> {
    let mut data = Vec::new();
    for source in &weight.sources {
        let (name, stored) = find(checkpoint, source)?;
        if stored.shape != source.shape {
            return Err(FileFault::StoredShape {
                file: stored.file.to_owned(),
                tensor: name.to_owned(),
                expected: source.shape.clone(),
                found: stored.shape.to_vec(),
            }
            .into());
        }
        data.reserve_exact(stored.shape.iter().product());
        if !append(stored.dtype, stored.bytes, &mut data) {
            return Err(FileFault::StoredDType {
                file: stored.file.to_owned(),
                tensor: name.to_owned(),
                expected: "f32, f64, f16 or bf16",
                found: format!("{:?}", stored.dtype).to_lowercase(),
            }
            .into());
        }
        checkpoint.release(name);
    }
    Ok(data)
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

/// The part that the rank holds.
fn cut(weight: &Weight, joined: Vec<f32>) -> Result<Vec<f32>, RuntimeError> {
    if weight.boxes.is_empty() {
        return Ok(joined);
    }
    let mut part = zeroed(weight.len).ok_or_else(|| RuntimeError::TensorMemory {
        shape: weight.shape.clone(),
    })?;
    Boxes::new(&weight.boxes)?.apply(&joined, &mut part)?;
    Ok(part)
}
