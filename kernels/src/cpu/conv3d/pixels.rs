//! The pixels of a convolution as rows of a matrix product.

use super::video::{Added, Video};
use crate::cpu::gemm::Product;
use std::ops::Range;

pub(super) struct Pixels<'a> {
    pub video: Video<'a>,
    /// `[kt, kh, kw]`.
    pub kernel: [usize; 3],
    pub added: Added<'a>,
}

impl Pixels<'_> {
    /// The input channels under one tap of the kernel at a pixel, `None` outside the frame.
    #[inline(always)]
    fn under(&self, [b, frame, y, x]: [usize; 4], tap: usize) -> Option<&[f32]> {
        let [_, kh, kw] = self.kernel;
        let (dt, dy, dx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
        let (y, x) = ((y + dy).checked_sub(kh / 2), (x + dx).checked_sub(kw / 2));
        self.video.at(b, frame + dt, y, x)
    }
}

impl Product for Pixels<'_> {
    fn pack(&self, row: usize, k: Range<usize>, out: &mut [f32]) {
        let video = &self.video;
        let (line, x) = (row / video.width, row % video.width);
        let (image, y) = (line / video.height, line % video.height);
        let pixel = [image / video.frames, image % video.frames, y, x];
        let cin = video.channels;
        let (mut tap, mut channel) = (k.start / cin.max(1), k.start % cin.max(1));
        let mut rest = out;
        while !rest.is_empty() {
            let count = rest.len().min(cin - channel);
            let (out, behind) = rest.split_at_mut(count);
            match self.under(pixel, tap) {
                Some(channels) => out.copy_from_slice(&channels[channel..][..count]),
                None => out.fill(0.0),
            }
            (rest, tap, channel) = (behind, tap + 1, 0);
        }
    }

    fn finish(&self, row: usize, first: usize, sums: &mut [f32], y: &mut [f32]) {
        self.added.finish(row, first, sums, y);
    }
}
