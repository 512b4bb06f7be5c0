//! What a convolution reads and adds: a video with the frames before it, a bias and a residual.
//!
//! Invariant: lengths were checked before a value is made.

use crate::cpu::split::multiversion;

/// A video `[batch, frames, height, width, channels]`.
#[derive(Clone, Copy)]
pub(super) struct Video<'a> {
    pub batch: usize,
    pub frames: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Frames before the first that are looked at.
    pub before: usize,
    pub x: &'a [f32],
    /// Those frames; absent: the first frame repeated.
    pub cache: Option<&'a [f32]>,
}

/// What is added to the sums.
pub(super) struct Added<'a> {
    /// Channels of the result.
    pub channels: usize,
    pub bias: Option<&'a [f32]>,
    /// Shaped as the result.
    pub residual: Option<&'a [f32]>,
}

impl<'a> Video<'a> {
    /// The channels at a time, counted from the first frame before the video, and a place, `None` outside
    /// the frame.
    #[inline(always)]
    pub(super) fn at(
        &self,
        b: usize,
        time: usize,
        y: Option<usize>,
        x: Option<usize>,
    ) -> Option<&'a [f32]> {
        let y = y.filter(|&y| y < self.height)?;
        let x = x.filter(|&x| x < self.width)?;
        let (frame, data) = match (time.checked_sub(self.before), self.cache) {
            (Some(own), _) => (b * self.frames + own, self.x),
            (None, Some(cache)) => (b * self.before + time, cache),
            (None, None) => (b * self.frames, self.x),
        };
        let pixel = (frame * self.height + y) * self.width + x;
        Some(&data[pixel * self.channels..][..self.channels])
    }
}

impl Added<'_> {
    /// Writes the channels of a pixel from `first` on, given their sums, which it may overwrite.
    #[inline(always)]
    pub(super) fn finish(&self, pixel: usize, first: usize, sums: &mut [f32], y: &mut [f32]) {
        if let Some(bias) = self.bias {
            add(sums, &bias[first..][..y.len()]);
        }
        if let Some(residual) = self.residual {
            add(sums, &residual[pixel * self.channels + first..][..y.len()]);
        }
        y.copy_from_slice(sums);
    }
}

multiversion! {
    fn add(sums: &mut [f32], terms: &[f32]) {
        for (sum, &term) in sums.iter_mut().zip(terms) {
            *sum += term;
        }
    }
}
