//! Loading: stored tensors become the f32 elements, or the packed panels, that kernels read.
//!
//! Invariants: what is loaded has the shape and layout that the plan says; the sources of a weight are
//! joined along dimension 0 in their order. Refused: tensors that are missing under all their names,
//! have another shape than the plan expects, or a type that is not a floating type of 16, 32 or 64 bits.

use super::Checkpoint;
use super::joined::Joined;
use crate::backend::resolved::Layout;
use crate::boxes::Boxes;
use crate::tensor::zeroed;
use crate::{ResolveFault, RuntimeError};
use std::sync::Arc;
use terrace_kernels::cpu::{Operands, PackedConv3d, PackedLinear};
use terrace_plan::{DType, Weight, WeightLayout};

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
        let misfit = || ResolveFault::WeightShape {
            layout: weight.layout,
            shape: weight.shape.clone(),
        };
        match weight.layout {
            WeightLayout::Plain => elements(checkpoint, weight).map(Self::Plain),
            WeightLayout::Linear => {
                let [n, k] = weight.shape[..] else {
                    return Err(misfit().into());
                };
                let joined = Joined::new(checkpoint, weight)?;
                let rows = joined.rows(k);
                let read = |row: usize, out: &mut [f32]| rows.read(row, out);
                let packed = PackedLinear::pack_with(operands(weight)?, n, k, read)?;
                Ok(Self::Linear(Arc::new(packed)))
            }
            WeightLayout::Conv3d => {
                let [cout, cin, kt, kh, kw] = weight.shape[..] else {
                    return Err(misfit().into());
                };
                let joined = Joined::new(checkpoint, weight)?;
                let rows = joined.rows(cin * kt * kh * kw);
                let read = |row: usize, out: &mut [f32]| rows.read(row, out);
                let (channels, kernel) = ([cout, cin], [kt, kh, kw]);
                let packed = PackedConv3d::pack_with(operands(weight)?, channels, kernel, read)?;
                Ok(Self::Conv3d(Arc::new(packed)))
            }
        }
    }
}

/// What the weight of a product is rounded to when it is packed.
fn operands(weight: &Weight) -> Result<Operands, ResolveFault> {
    match weight.dtype {
        DType::F32 => Ok(Operands::F32),
        DType::Bf16 => Ok(Operands::Bf16),
        DType::I8 => Ok(Operands::I8),
        DType::F8E4M3 => Ok(Operands::F8E4M3),
        found @ (DType::F16 | DType::U32) => Err(ResolveFault::WeightType { found }),
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
    cut(weight, Joined::new(checkpoint, weight)?.to_vec())
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
