//! Guidance, the scheduler update and noise: the end of a denoising step.
//!
//! `x0 = c0 * latents + c1 * v` and `next = c2 * latents + c3 * x0 + c4 * previous + c5 * noise`
//! cover every scheduler of CogVideoX; the coefficients of a step are an input `[7]`, the guidance
//! scale first.

use super::{OpError, Presence, Rule, arity, same_size};
use crate::ir::{Dim, Slices, Type};

/// Whether predictions are guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guidance {
    /// One prediction per video.
    None,
    /// Two: unconditional, then conditional.
    ClassifierFree,
}

/// Predicted clean latents; operands `pred[b, ..], latents[b', ..], coefficients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denoise {
    /// With classifier-free guidance the batch of `pred` is twice that of the latents.
    pub guidance: Guidance,
}

/// Optional operands of the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Clean latents of the step before.
    pub previous: Presence,
    /// Noise.
    pub noise: Presence,
}

/// Standard normal numbers by position in the host tensor; operand `key[4] u32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// Type of the node.
    pub ty: Type,
    /// Layout whose row-major index counts the numbers, as for inputs.
    pub host: Vec<Dim>,
}

impl Denoise {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 3)?;
        let times = match self.guidance {
            Guidance::None => 1,
            Guidance::ClassifierFree => 2,
        };
        let (pred, latents) = (operands[0], operands[1]);
        same_size(
            "predicted elements",
            times * latents.elements(),
            pred.elements(),
        )?;
        same_size("coefficients", 7, operands[2].elements())?;
        Ok(latents.clone())
    }
}

impl Noise {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        same_size("words of the key", 4, operands[0].elements())?;
        Ok(self.ty.clone())
    }
}

/// Operands `latents, x0, coefficients, previous?, noise?`.
pub(super) fn infer_advance(sources: Sources, operands: &[&Type]) -> Result<Type, OpError> {
    arity(
        operands,
        3 + sources.previous.count() + sources.noise.count(),
    )?;
    same_size("coefficients", 7, operands[2].elements())?;
    for (port, other) in operands.iter().enumerate() {
        if port != 2 {
            same_size("elements", operands[0].elements(), other.elements())?;
        }
    }
    Ok(operands[0].clone())
}

/// Guidance needs both predictions at hand, so the batch of `pred` is whole.
pub(super) fn rule_denoise(
    denoise: &Denoise,
    operands: &[&Type],
    result: &Type,
    slices: &Slices,
) -> Rule {
    let mut rule = super::by_name(operands, result, slices);
    if denoise.guidance == Guidance::ClassifierFree
        && let Some(pred) = rule.operands.first_mut()
    {
        pred.0
            .retain(|group, _| !group.0.iter().any(|n| &**n == "b"));
    }
    rule
}
