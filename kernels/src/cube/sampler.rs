//! The scheduler's update of the latents: guidance, the estimate of the clean latents, the next ones.
//!
//! Invariants: elementwise, in f32, in the order of operations written below; coefficients are read
//! when the kernel runs. Refused: operands whose lengths disagree or that are not f32.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::operand::{Element, Operand, width};
use crate::KernelError;

/// Units of a cube.
const UNITS: usize = 256;

/// Coefficients of a step: the guidance scale, then c0 to c5.
const COEFFICIENTS: usize = 7;

/// y = c0 * latents + c1 * v, where v is the prediction, or with guidance
/// v = uncond + guidance * (pred - uncond).
///
/// Source: `CogVideoXPipeline`, and the schedulers `CogVideoXDDIMScheduler` and
/// `CogVideoXDPMScheduler`, of diffusers 0.42.
#[derive(Debug, Clone)]
pub struct Denoise<B> {
    /// The prediction of the unconditional branch; absent: no guidance.
    pub uncond: Option<Operand<B>>,
    /// The prediction, of the conditional branch if there are two.
    pub pred: Operand<B>,
    /// The noisy latents.
    pub latents: Operand<B>,
    /// `[7]`: guidance scale, c0 to c5.
    pub coefficients: Operand<B>,
    /// Output: the estimate of the clean latents.
    pub y: Operand<B>,
}

impl<B: Clone> Denoise<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "denoise";
        let Self {
            uncond,
            pred,
            latents,
            coefficients,
            y,
        } = self;
        let mut all = vec![("pred", pred), ("latents", latents), ("y", y)];
        all.extend(uncond.as_ref().map(|uncond| ("uncond", uncond)));
        let (count, n) = elements(KERNEL, coefficients, &all)?;
        let kernel = estimate::Estimate::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(5),
            (),
            n,
            uncond.is_some(),
        );
        Builder::new(KERNEL, device)
            .maybe(uncond.as_ref(), pred, n)
            .array(pred, n)
            .array(latents, n)
            .array(coefficients, 1)
            .array(y, n)
            .u32(count)
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// y = c2 * latents + c3 * x0 + c4 * previous + c5 * noise, added from left to right; absent terms are
/// left out.
#[derive(Debug, Clone)]
pub struct Advance<B> {
    /// The noisy latents.
    pub latents: Operand<B>,
    /// The estimate of the clean latents.
    pub x0: Operand<B>,
    /// The estimate of the step before.
    pub previous: Option<Operand<B>>,
    /// Fresh noise.
    pub noise: Option<Operand<B>>,
    /// `[7]`: guidance scale, c0 to c5.
    pub coefficients: Operand<B>,
    /// Output: the next latents.
    pub y: Operand<B>,
}

impl<B: Clone> Advance<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "advance";
        let Self {
            latents,
            x0,
            previous,
            noise,
            coefficients,
            y,
        } = self;
        let mut all = vec![("latents", latents), ("x0", x0), ("y", y)];
        all.extend(previous.as_ref().map(|previous| ("previous", previous)));
        all.extend(noise.as_ref().map(|noise| ("noise", noise)));
        let (count, n) = elements(KERNEL, coefficients, &all)?;
        let kernel = next::Next::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(6),
            (),
            n,
            [previous.is_some(), noise.is_some()],
        );
        Builder::new(KERNEL, device)
            .array(latents, n)
            .array(x0, n)
            .maybe(previous.as_ref(), latents, n)
            .maybe(noise.as_ref(), latents, n)
            .array(coefficients, 1)
            .array(y, n)
            .u32(count)
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// The number of vectors and the elements of a vector, if all operands fit.
fn elements<B>(
    kernel: &'static str,
    coefficients: &Operand<B>,
    all: &[(&'static str, &Operand<B>)],
) -> Result<(usize, usize), KernelError> {
    coefficients.is(kernel, "coefficients", Element::F32)?;
    coefficients.length(kernel, "coefficients", COEFFICIENTS)?;
    let len = all.first().map_or(0, |(_, operand)| operand.len);
    for (name, operand) in all {
        operand.is(kernel, name, Element::F32)?;
        operand.length(kernel, name, len)?;
    }
    let n = width(all.iter().map(|(_, operand)| operand.offset).chain([len]));
    Ok((len / n, n))
}

#[cube(launch_unchecked)]
fn estimate<N: Size>(
    uncond: &Array<Vector<f32, N>>,
    pred: &Array<Vector<f32, N>>,
    latents: &Array<Vector<f32, N>>,
    coefficients: &Array<f32>,
    y: &mut Array<Vector<f32, N>>,
    lead: &Sequence<u32>,
    count: u32,
    #[comptime] guided: bool,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let c = lead[3] as usize;
        let mut v = pred[lead[1] as usize + i];
        if comptime!(guided) {
            let u = uncond[lead[0] as usize + i];
            v = u + Vector::new(coefficients[c]) * (v - u);
        }
        let kept = Vector::new(coefficients[c + 1]) * latents[lead[2] as usize + i];
        let to = lead[4] as usize + i;
        y[to] = kept + Vector::new(coefficients[c + 2]) * v;
    }
}

/// `terms`: whether there is an old estimate, and noise.
#[cube(launch_unchecked)]
fn next<N: Size>(
    latents: &Array<Vector<f32, N>>,
    x0: &Array<Vector<f32, N>>,
    previous: &Array<Vector<f32, N>>,
    noise: &Array<Vector<f32, N>>,
    coefficients: &Array<f32>,
    y: &mut Array<Vector<f32, N>>,
    lead: &Sequence<u32>,
    count: u32,
    #[comptime] terms: [bool; 2],
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let c = lead[4] as usize;
        let mut sum = Vector::new(coefficients[c + 3]) * latents[lead[0] as usize + i];
        sum += Vector::new(coefficients[c + 4]) * x0[lead[1] as usize + i];
        if comptime!(terms[0]) {
            sum += Vector::new(coefficients[c + 5]) * previous[lead[2] as usize + i];
        }
        if comptime!(terms[1]) {
            sum += Vector::new(coefficients[c + 6]) * noise[lead[3] as usize + i];
        }
        let to = lead[5] as usize + i;
        y[to] = sum;
    }
}
