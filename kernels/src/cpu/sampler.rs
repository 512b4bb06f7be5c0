//! The scheduler's update of the latents: guidance, the estimate of the clean latents, the next ones.
//!
//! Invariants: elementwise, in the order of operations written below. Refused: operands whose lengths
//! disagree.

use super::check;
use super::split::{for_blocks, multiversion};
use crate::KernelError;

/// x0 = c0 * latents + c1 * v, where v is the prediction, or with guidance
/// v = uncond + guidance * (text - uncond).
///
/// Source: `CogVideoXPipeline`, and the schedulers `CogVideoXDDIMScheduler` and
/// `CogVideoXDPMScheduler`, of diffusers 0.42.
#[derive(Debug)]
pub struct Denoise<'a> {
    /// The prediction, of the unconditional branch if `pred_text` is given.
    pub pred_uncond: &'a [f32],
    /// The prediction of the conditional branch.
    pub pred_text: Option<&'a [f32]>,
    /// Guidance scale; without `pred_text` it is not used.
    pub guidance: f32,
    /// The noisy latents.
    pub latents: &'a [f32],
    /// Factor of the latents.
    pub c0: f32,
    /// Factor of the prediction.
    pub c1: f32,
    /// Output: the estimate of the clean latents.
    pub x0: &'a mut [f32],
}

impl Denoise<'_> {
    /// Computes `x0`.
    ///
    /// # Errors
    /// [`KernelError::Length`] when the operands differ in length; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "denoise";
        let Self {
            pred_uncond,
            pred_text,
            guidance,
            latents,
            c0,
            c1,
            x0,
        } = self;
        let n = latents.len();
        check::length(KERNEL, "pred_uncond", n, pred_uncond.len())?;
        check::optional_length(KERNEL, "pred_text", n, pred_text)?;
        check::length(KERNEL, "x0", n, x0.len())?;
        for_blocks(x0, |first, out| {
            let range = first..first + out.len();
            let (x, u) = (&latents[range.clone()], &pred_uncond[range.clone()]);
            match pred_text {
                Some(text) => guided_block(x, u, &text[range], guidance, [c0, c1], out),
                None => plain_block(x, u, [c0, c1], out),
            }
        });
        Ok(())
    }
}

/// y = c2 * latents + c3 * x0 + c4 * x0_old + c5 * noise, added from left to right; absent terms are
/// left out.
#[derive(Debug)]
pub struct Advance<'a> {
    /// The noisy latents.
    pub latents: &'a [f32],
    /// The estimate of the clean latents.
    pub x0: &'a [f32],
    /// The estimate of the step before.
    pub x0_old: Option<&'a [f32]>,
    /// Fresh noise.
    pub noise: Option<&'a [f32]>,
    /// Factor of the latents.
    pub c2: f32,
    /// Factor of the estimate.
    pub c3: f32,
    /// Factor of the old estimate.
    pub c4: f32,
    /// Factor of the noise.
    pub c5: f32,
    /// Output: the next latents.
    pub y: &'a mut [f32],
}

impl Advance<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError::Length`] when the operands differ in length; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "advance";
        let Self {
            latents,
            x0,
            x0_old,
            noise,
            c2,
            c3,
            c4,
            c5,
            y,
        } = self;
        let n = latents.len();
        check::length(KERNEL, "x0", n, x0.len())?;
        check::optional_length(KERNEL, "x0_old", n, x0_old)?;
        check::optional_length(KERNEL, "noise", n, noise)?;
        check::length(KERNEL, "y", n, y.len())?;
        for_blocks(y, |first, out| {
            let range = first..first + out.len();
            plain_block(&latents[range.clone()], &x0[range.clone()], [c2, c3], out);
            if let Some(old) = x0_old {
                add_scaled(out, c4, &old[range.clone()]);
            }
            if let Some(noise) = noise {
                add_scaled(out, c5, &noise[range]);
            }
        });
        Ok(())
    }
}

multiversion! {
    fn guided_block(
        x: &[f32],
        uncond: &[f32],
        text: &[f32],
        guidance: f32,
        c: [f32; 2],
        y: &mut [f32],
    ) {
        for (((out, &x), &u), &t) in y.iter_mut().zip(x).zip(uncond).zip(text) {
            let v = u + guidance * (t - u);
            *out = c[0] * x + c[1] * v;
        }
    }
}

multiversion! {
    fn plain_block(x: &[f32], v: &[f32], c: [f32; 2], y: &mut [f32]) {
        for ((out, &x), &v) in y.iter_mut().zip(x).zip(v) {
            *out = c[0] * x + c[1] * v;
        }
    }
}

multiversion! {
    fn add_scaled(y: &mut [f32], c: f32, x: &[f32]) {
        for (out, &v) in y.iter_mut().zip(x) {
            *out += c * v;
        }
    }
}
