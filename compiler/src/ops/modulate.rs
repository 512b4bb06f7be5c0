//! Normalisation, adaptive modulation and gated residuals: what surrounds attention and MLP.
//!
//! Rows may be a sum of segments, text then video; each segment has its own chunks of the
//! modulation vector, whose last dimension is `m=(k c)`: `k` chunks of the row's width.

use super::{OpError, Presence, arity, last, same_size};
use crate::ir::Type;

/// Which affine parameters a normalisation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Affine {
    /// None.
    None,
    /// A multiplier.
    Weight,
    /// A multiplier and an offset.
    WeightBias,
}

impl Affine {
    /// Number of operands.
    pub const fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Weight => 1,
            Self::WeightBias => 2,
        }
    }
}

/// Kind of a normalisation over the last dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// LayerNorm.
    Layer {
        /// Added to the variance.
        eps: f64,
        /// Parameters.
        affine: Affine,
    },
    /// RMSNorm with a multiplier.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
}

/// Chunks of the modulation vector that one segment uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModChunks {
    /// Index of the shift chunk.
    pub shift: usize,
    /// Index of the scale chunk.
    pub scale: usize,
}

/// Normalisation of rows, and the modulation fused behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Kind.
    pub kind: NormKind,
    /// One entry per segment of the rows; the modulation is the last operand.
    pub modulate: Option<Vec<ModChunks>>,
}

impl NormKind {
    /// Number of weight operands.
    pub const fn weights(self) -> usize {
        match self {
            Self::Layer { affine, .. } => affine.count(),
            Self::Rms { .. } => 1,
        }
    }
}

impl Norm {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        let mods = usize::from(self.modulate.is_some());
        arity(operands, 1 + self.kind.weights() + mods)?;
        let x = operands[0];
        check_vectors(x, &operands[1..1 + self.kind.weights()])?;
        if let Some(chunks) = &self.modulate {
            return infer_modulate(chunks, &[x, operands[operands.len() - 1]]);
        }
        Ok(x.clone())
    }
}

/// `x * (1 + scale) + shift`; operands `x, mods`.
pub(super) fn infer_modulate(chunks: &[ModChunks], operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 2)?;
    let highest: Vec<usize> = chunks.iter().map(|c| c.shift.max(c.scale)).collect();
    check_chunks(operands[0], operands[1], &highest)?;
    Ok(operands[0].clone())
}

/// `residual + gate * x`; operands `residual, x, mods?`.
pub(super) fn infer_residual(gates: Option<&[usize]>, operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 2 + usize::from(gates.is_some()))?;
    if operands[0].shape() != operands[1].shape() {
        return Err(OpError::new(
            format!("a summand like {}", operands[0]),
            operands[1].to_string(),
        ));
    }
    if let Some(gates) = gates {
        check_chunks(operands[0], operands[2], gates)?;
    }
    Ok(operands[0].clone())
}

/// Checks that weights of a norm are vectors of the row's width.
fn check_vectors(x: &Type, vectors: &[&Type]) -> Result<(), OpError> {
    let width = last(x)?.size();
    for vector in vectors {
        same_size("channels", width, vector.elements())?;
    }
    Ok(())
}

/// Checks that `mods` holds the chunks that the segments of `x` use.
pub(super) fn check_chunks(x: &Type, mods: &Type, chunks: &[usize]) -> Result<(), OpError> {
    let [batch, rows, channels] = x.dims.as_slice() else {
        return Err(OpError::new("rows [b, seq, c]", x.to_string()));
    };
    same_size("segments", rows.segments.len(), chunks.len())?;
    let [mod_batch, m] = mods.dims.as_slice() else {
        return Err(OpError::new("modulation [b, m=(k c)]", mods.to_string()));
    };
    same_size("batch", batch.size(), mod_batch.size())?;
    let width = channels.size();
    let needed = chunks.iter().max().map_or(0, |&c| c + 1);
    if width == 0 || m.size() % width != 0 || m.size() / width < needed {
        return Err(OpError::new(
            format!("modulation of at least {needed} chunks of {width}"),
            mods.to_string(),
        ));
    }
    Ok(())
}

/// Number of ports that optional parts take.
pub(super) fn ports(parts: &[Presence]) -> usize {
    parts.iter().map(|p| p.count()).sum()
}
