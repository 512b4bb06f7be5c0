//! The frames that a causal convolution hands to the next chunk of a video.
//!
//! Invariants: pure copies. Refused: a first chunk without frames, operands whose lengths disagree.

use super::check;
use super::split::for_rows;
use crate::KernelError;

const KERNEL: &str = "conv_cache";

/// `y` `[batch, keep, frame]` = the last `keep` frames of the cache followed by `x`; without a cache,
/// of `keep` copies of the first frame followed by `x`.
///
/// Source: `CogVideoXCausalConv3d` of diffusers 0.42, where `keep` is the kernel's length in time
/// minus 1.
#[derive(Debug)]
pub struct ConvCache<'a> {
    /// Batch items.
    pub batch: usize,
    /// Frames of `x`.
    pub frames: usize,
    /// Elements of a frame: height x width x channels.
    pub frame: usize,
    /// Frames that are kept.
    pub keep: usize,
    /// `[batch, keep, frame]` of the chunk before.
    pub cache: Option<&'a [f32]>,
    /// `[batch, frames, frame]`.
    pub x: &'a [f32],
    /// `[batch, keep, frame]`.
    pub y: &'a mut [f32],
}

impl ConvCache<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let Self {
            batch,
            frames,
            frame,
            keep,
            cache,
            x,
            y,
        } = self;
        let input = check::product(KERNEL, "batch, frames, frame", &[batch, frames, frame])?;
        check::length(KERNEL, "x", input, x.len())?;
        let kept = check::product(KERNEL, "batch, keep, frame", &[batch, keep, frame])?;
        check::optional_length(KERNEL, "cache", kept, cache)?;
        check::length(KERNEL, "y", kept, y.len())?;
        if cache.is_none() && frames == 0 && kept > 0 {
            return Err(check::argument(
                KERNEL,
                "frames",
                "at least 1 without a cache",
                "0",
            ));
        }
        for_rows(y, frame, |row, out| {
            let (b, index) = (row / keep, row % keep);
            // Frame `index` of the result is frame `index + frames` of the extended input, whose
            // first `keep` frames come from the cache.
            let source = match (cache, (index + frames).checked_sub(keep)) {
                (_, Some(own)) => &x[(b * frames + own) * frame..],
                (Some(cache), None) => &cache[(b * keep + index + frames) * frame..],
                (None, None) => &x[b * frames * frame..],
            };
            out.copy_from_slice(&source[..frame]);
        });
        Ok(())
    }
}
