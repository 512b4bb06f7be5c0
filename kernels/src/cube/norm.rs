//! Layer norm and root-mean-square norm of rows, followed by an adaptive scale and shift.
//!
//! Invariants: a cube computes one row, in an order that depends on the width alone. Refused: operands
//! whose lengths or element types disagree, and modulation offsets outside their data.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::fours::{Four, load, store, total};
use super::math::cube_sum;
use super::operand::{Element, Operand, width};
use super::segments::{Mods, mod_vectors};
use crate::{KernelError, ModSegment, check};

const KERNEL: &str = "norm_modulate";

/// y = norm(x) * (1 + scale) + shift over rows, `x` and `y` of shape
/// `[batch, sum of the segments' rows, width]`; `y` may be `x` itself. See
/// [`cpu::NormModulate`](crate::cpu::NormModulate).
#[derive(Debug, Clone)]
pub struct NormModulate<'a, B> {
    /// Batch items.
    pub batch: usize,
    /// Elements of a row.
    pub width: usize,
    /// Consecutive ranges of rows and where their scale and shift lie.
    pub segments: &'a [ModSegment],
    /// The norm.
    pub norm: Norm<B>,
    /// Scale and shift vectors; `None` leaves the norm's result as it is.
    pub mods: Option<Mods<B>>,
    /// Input.
    pub x: Operand<B>,
    /// Output, as large as the input.
    pub y: Operand<B>,
}

/// How a row is normalised. Weights and biases are f32.
#[derive(Debug, Clone)]
pub enum Norm<B> {
    /// Not at all.
    None,
    /// (x - mean) / sqrt(variance + eps) * weight + bias.
    Layer {
        /// Added to the variance.
        eps: f32,
        /// `[width]`, 1 when absent.
        weight: Option<Operand<B>>,
        /// `[width]`, 0 when absent.
        bias: Option<Operand<B>>,
    },
    /// x / sqrt(mean of squares + eps) * weight, as `T5LayerNorm` of transformers.
    Rms {
        /// Added to the mean of squares.
        eps: f32,
        /// `[width]`, 1 when absent.
        weight: Option<Operand<B>>,
    },
}

/// What a row goes through, chosen when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Steps {
    statistics: Statistics,
    weight: bool,
    bias: bool,
    segments: usize,
    units: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Statistics {
    None,
    Layer,
    Rms,
}

impl<B: Clone> NormModulate<'_, B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an offset or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self { x, y, mods, .. } = self;
        let (rows, element) = self.check()?;
        let (statistics, eps, weight, bias) = self.norm.parts();
        let offsets = self.segments.iter().flat_map(|s| [s.shift, s.scale]);
        let (data, stride) = mods.as_ref().map_or((x, 0), |m| (&m.data, m.stride));
        let operands = [weight.unwrap_or(y), bias.unwrap_or(y), data, x, y];
        let begins = operands.map(|operand| operand.offset);
        let n = width(
            begins
                .into_iter()
                .chain([self.width, stride])
                .chain(offsets),
        );
        let segments = mods.as_ref().map_or(&[][..], |_| self.segments);
        let steps = Steps {
            statistics,
            weight: weight.is_some(),
            bias: bias.is_some(),
            segments: segments.len(),
            units: self.width.div_ceil(4).next_power_of_two().clamp(32, 256),
        };
        let kernel = norm_rows::NormRows::<R>::new(
            units([steps.units as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(5),
            (),
            (),
            (),
            (),
            (),
            list(3 * segments.len()),
            n,
            steps,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .maybe(weight, x, n)
            .maybe(bias, x, n)
            .array(data, n)
            .array(y, n)
            .u32s([self.batch * rows, rows, self.width, stride])
            .f32(eps)
            .u32s(segments.iter().flat_map(|s| [s.rows, s.shift, s.scale]))
            .over(line(self.batch * rows), kernel)
    }
}

impl<B> NormModulate<'_, B> {
    /// Rows of a batch item and the type of the activations.
    fn check(&self) -> Result<(usize, Element), KernelError> {
        let Self { x, y, width, .. } = self;
        let rows = check::sum(KERNEL, "segments", self.segments.iter().map(|s| s.rows))?;
        let shape = [self.batch, rows, *width];
        let all = check::product(KERNEL, "batch, rows, width", &shape)?;
        x.length(KERNEL, "x", all)?;
        y.length(KERNEL, "y", all)?;
        let element = same_element(KERNEL, ("x", x), &[("y", y)])?;
        let (_, _, weight, bias) = self.norm.parts();
        for (name, operand) in [("norm.weight", weight), ("norm.bias", bias)] {
            if let Some(operand) = operand {
                operand.is(KERNEL, name, Element::F32)?;
                operand.length(KERNEL, name, *width)?;
            }
        }
        if let Some(mods) = &self.mods {
            mods.data.is(KERNEL, "mods.data", element)?;
            let offsets = self.segments.iter().flat_map(|s| [s.shift, s.scale]);
            mods.check(KERNEL, self.batch, *width, offsets)?;
        }
        Ok((rows, element))
    }
}

impl<B> Norm<B> {
    fn parts(&self) -> (Statistics, f32, Option<&Operand<B>>, Option<&Operand<B>>) {
        match self {
            Self::None => (Statistics::None, 0.0, None, None),
            Self::Layer { eps, weight, bias } => {
                (Statistics::Layer, *eps, weight.as_ref(), bias.as_ref())
            }
            Self::Rms { eps, weight } => (Statistics::Rms, *eps, weight.as_ref(), None),
        }
    }
}

#[cube(launch_unchecked)]
fn norm_rows<E: Float, N: Size>(
    x: &mut Array<Vector<E, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<Vector<f32, N>>,
    mods: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    rows: u32,
    item_rows: u32,
    width: u32,
    stride: u32,
    eps: f32,
    segments: &Sequence<u32>,
    #[comptime] steps: Steps,
    #[define(E)] _element: StorageType,
) {
    let row = CUBE_POS;
    if row < rows as usize {
        let (width, item) = (width as usize, item_rows as usize);
        let first = row * width / N::value();
        let from = lead[0] as usize + first;
        let to = lead[4] as usize + first;
        let (mean, factor) = statistics::<E, N>(x, from, width, eps, steps);
        let (shift, scale) = mod_vectors(segments, steps.segments, (row % item) as u32);
        let vectors = lead[3] as usize + row / item * stride as usize / N::value();
        let mut i = UNIT_POS as usize * 4;
        while i < width {
            let mut v = load::<E, N>(x, from, i, width, 0.0f32);
            v = (v - Four::new(mean)) * Four::new(factor);
            if comptime!(steps.weight) {
                v *= load::<f32, N>(weight, lead[1] as usize, i, width, 0.0f32);
            }
            if comptime!(steps.bias) {
                v += load::<f32, N>(bias, lead[2] as usize, i, width, 0.0f32);
            }
            if comptime!(steps.segments > 0) {
                let one = Four::new(1.0f32);
                let scale = vectors + scale as usize / N::value();
                let shift = vectors + shift as usize / N::value();
                v *= one + load::<E, N>(mods, scale, i, width, 0.0f32);
                v += load::<E, N>(mods, shift, i, width, 0.0f32);
            }
            store::<E, N>(y, to, i, width, v);
            i += comptime!(4 * steps.units);
        }
    }
}

/// What is subtracted from the elements of a row, and what the difference is multiplied by.
#[cube]
fn statistics<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    from: usize,
    width: usize,
    eps: f32,
    #[comptime] steps: Steps,
) -> (f32, f32) {
    let count = width as f32;
    let mut mean = 0.0f32;
    let mut factor = 1.0f32;
    if comptime!(steps.statistics == Statistics::Layer) {
        mean = row_sum::<E, N>(x, from, width, 0.0f32, false, steps.units) / count;
    }
    if comptime!(steps.statistics != Statistics::None) {
        let squares = row_sum::<E, N>(x, from, width, mean, true, steps.units);
        factor = 1.0f32 / f32::sqrt(squares / count + eps);
    }
    (mean, factor)
}

/// The sum over a row of `x - base`, or of its square.
#[cube]
fn row_sum<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    from: usize,
    width: usize,
    base: f32,
    #[comptime] square: bool,
    #[comptime] units: usize,
) -> f32 {
    let mut sum = Four::new(0.0f32);
    let mut i = UNIT_POS as usize * 4;
    while i < width {
        let v = load::<E, N>(x, from, i, width, base) - Four::new(base);
        if comptime!(square) {
            sum += v * v;
        } else {
            sum += v;
        }
        i += comptime!(4 * units);
    }
    cube_sum(total(sum), units)
}
