//! Layer norm and root-mean-square norm of rows, followed by an adaptive scale and shift.
//!
//! Invariants: one row is one unit of work, summed in fixed lanes, so a row's result depends on
//! nothing else. Refused: operands whose lengths disagree, and modulation offsets outside their data.

use super::check;
use super::input::Input;
use super::math::{lane_sum, layer_statistics};
use super::segments::{Mods, locate};
use super::split::{for_rows, multiversion};
use crate::{KernelError, ModSegment};

const KERNEL: &str = "norm_modulate";

/// y = norm(x) * (1 + scale) + shift over rows, `x` and `y` of shape
/// `[batch, sum of the segments' rows, width]`.
///
/// This is the adaptive layer norm of diffusers 0.42 (`CogVideoXLayerNormZero`, `AdaLayerNorm`);
/// without `mods` it is the norm alone.
#[derive(Debug)]
pub struct NormModulate<'a> {
    /// Batch items.
    pub batch: usize,
    /// Elements of a row.
    pub width: usize,
    /// Consecutive ranges of rows and where their scale and shift lie.
    pub segments: &'a [ModSegment],
    /// The norm.
    pub norm: Norm<'a>,
    /// Scale and shift vectors; `None` leaves the norm's result as it is.
    pub mods: Option<Mods<'a>>,
    /// Input.
    pub x: Input<'a>,
    /// Output, as large as the input.
    pub y: &'a mut [f32],
}

/// How a row is normalised.
#[derive(Debug, Clone, Copy)]
pub enum Norm<'a> {
    /// Not at all.
    None,
    /// (x - mean) / sqrt(variance + eps) * weight + bias.
    Layer {
        /// Added to the variance.
        eps: f32,
        /// `[width]`, 1 when absent.
        weight: Option<&'a [f32]>,
        /// `[width]`, 0 when absent.
        bias: Option<&'a [f32]>,
    },
    /// x / sqrt(mean of squares + eps) * weight, as `T5LayerNorm` of transformers.
    Rms {
        /// Added to the mean of squares.
        eps: f32,
        /// `[width]`, 1 when absent.
        weight: Option<&'a [f32]>,
    },
}

impl NormModulate<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an offset does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let rows = check::sum(KERNEL, "segments", self.segments.iter().map(|s| s.rows))?;
        let total = check::product(
            KERNEL,
            "batch, rows, width",
            &[self.batch, rows, self.width],
        )?;
        self.x.check(KERNEL, "x", total)?;
        check::length(KERNEL, "y", total, self.y.len())?;
        self.norm.check(self.width)?;
        if let Some(mods) = &self.mods {
            let offsets = self.segments.iter().flat_map(|s| [s.shift, s.scale]);
            mods.check(KERNEL, self.batch, self.width, offsets)?;
        }
        let Self {
            width,
            segments,
            norm,
            mods,
            x,
            y,
            ..
        } = self;
        for_rows(y, width, |row, out| {
            x.with(row * width, out, |x, out| normalise(x, out, norm));
            let segment = locate(segments.iter().map(|s| s.rows), row % rows);
            if let (Some(mods), Some(index)) = (&mods, segment) {
                let (b, segment) = (row / rows, segments[index]);
                let scale = mods.get(b, segment.scale, width);
                modulate(out, scale, mods.get(b, segment.shift, width));
            }
        });
        Ok(())
    }
}

impl Norm<'_> {
    fn check(&self, width: usize) -> Result<(), KernelError> {
        match *self {
            Norm::None => Ok(()),
            Norm::Layer { weight, bias, .. } => {
                check::optional_length(KERNEL, "norm.weight", width, weight)?;
                check::optional_length(KERNEL, "norm.bias", width, bias)
            }
            Norm::Rms { weight, .. } => {
                check::optional_length(KERNEL, "norm.weight", width, weight)
            }
        }
    }
}

multiversion! {
    fn normalise(x: &[f32], y: &mut [f32], norm: Norm<'_>) {
        match norm {
            Norm::None => y.copy_from_slice(x),
            Norm::Layer { eps, weight, bias } => {
                let (mean, factor) = layer_statistics(x, eps);
                for (out, &v) in y.iter_mut().zip(x) {
                    *out = (v - mean) * factor;
                }
                affine(y, weight, bias);
            }
            Norm::Rms { eps, weight } => {
                let mean = lane_sum(x, |v| v * v) / x.len() as f32;
                let factor = 1.0 / (mean + eps).sqrt();
                for (out, &v) in y.iter_mut().zip(x) {
                    *out = v * factor;
                }
                affine(y, weight, None);
            }
        }
    }
}

multiversion! {
    fn modulate(y: &mut [f32], scale: &[f32], shift: &[f32]) {
        for ((out, &scale), &shift) in y.iter_mut().zip(scale).zip(shift) {
            *out = *out * (1.0 + scale) + shift;
        }
    }
}

/// y * weight + bias, each where present.
#[inline(always)]
pub(super) fn affine(y: &mut [f32], weight: Option<&[f32]>, bias: Option<&[f32]>) {
    if let Some(weight) = weight {
        for (out, &w) in y.iter_mut().zip(weight) {
            *out *= w;
        }
    }
    if let Some(bias) = bias {
        for (out, &b) in y.iter_mut().zip(bias) {
            *out += b;
        }
    }
}
