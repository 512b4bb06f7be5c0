//! Nearest-neighbour doubling of channels-last video in space, and in time where asked.
//!
//! Invariants: pure copies. Refused: operands whose lengths disagree.

use super::check;
use super::split::for_rows;
use crate::KernelError;

const KERNEL: &str = "upsample";

/// Doubles `x` `[batch, frames, height, width, channels]` into
/// `y` `[batch, time.frames(frames), 2 * height, 2 * width, channels]`.
///
/// Source: the interpolation of `CogVideoXUpsample3D` of diffusers 0.42.
#[derive(Debug)]
pub struct Upsample<'a> {
    /// Batch items.
    pub batch: usize,
    /// Frames of the input.
    pub frames: usize,
    /// Pixel rows of the input.
    pub height: usize,
    /// Pixels of an input row.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// What happens to time.
    pub time: TimeMode,
    /// Input.
    pub x: &'a [f32],
    /// Output.
    pub y: &'a mut [f32],
}

/// What upsampling does to the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeMode {
    /// Keeps them.
    Keep,
    /// Doubles them, except a single frame and the first frame of an odd number.
    Double,
}

impl TimeMode {
    /// Frames of the output for `frames` of the input, or `None` when the count overflows.
    #[must_use]
    pub fn frames(self, frames: usize) -> Option<usize> {
        match self {
            TimeMode::Double if frames > 1 => frames.checked_mul(2).map(|n| n - frames % 2),
            TimeMode::Keep | TimeMode::Double => Some(frames),
        }
    }

    /// The input frame that output frame `frame` shows.
    fn source(self, frame: usize, frames: usize) -> usize {
        match self {
            TimeMode::Double if frames > 1 => (frame + frames % 2) / 2,
            TimeMode::Keep | TimeMode::Double => frame,
        }
    }
}

impl Upsample<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let Self {
            batch,
            frames,
            height,
            width,
            channels,
            time,
            x,
            y,
        } = self;
        let shape = [batch, frames, height, width, channels];
        let input = check::product(KERNEL, "batch, frames, height, width, channels", &shape)?;
        check::length(KERNEL, "x", input, x.len())?;
        let out_frames = time.frames(frames).ok_or_else(|| {
            check::argument(
                KERNEL,
                "frames",
                "a count that can be doubled",
                frames.to_string(),
            )
        })?;
        let shape = [batch, out_frames, height, 2, width, 2, channels];
        let output = check::product(KERNEL, "output shape", &shape)?;
        check::length(KERNEL, "y", output, y.len())?;
        // An input row gives two equal output rows, which lie side by side.
        for_rows(y, 4 * width * channels, |row, out| {
            let (image, line) = (row / height, row % height);
            let (b, frame) = (image / out_frames, image % out_frames);
            let from = (b * frames + time.source(frame, frames)) * height + line;
            let input = &x[from * width * channels..][..width * channels];
            let (upper, lower) = out.split_at_mut(2 * width * channels);
            for (pair, pixel) in upper
                .chunks_exact_mut(2 * channels)
                .zip(input.chunks_exact(channels))
            {
                let (left, right) = pair.split_at_mut(channels);
                left.copy_from_slice(pixel);
                right.copy_from_slice(pixel);
            }
            lower.copy_from_slice(upper);
        });
        Ok(())
    }
}
