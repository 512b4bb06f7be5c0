//! The frames that a causal convolution hands to the next chunk of a video.
//!
//! Invariants: pure copies. Refused: a first chunk without frames, operands whose lengths or element
//! types disagree.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::operand::{Operand, width};
use crate::{KernelError, check};

const KERNEL: &str = "conv_cache";

/// Units of a cube.
const UNITS: usize = 256;

/// `y` `[batch, keep, frame]` = the last `keep` frames of the cache followed by `x`; without a cache,
/// of `keep` copies of the first frame followed by `x`.
///
/// Source: `CogVideoXCausalConv3d` of diffusers 0.42, where `keep` is the kernel's length in time
/// minus 1.
#[derive(Debug, Clone)]
pub struct ConvCache<B> {
    /// Batch items.
    pub batch: usize,
    /// Frames of `x`.
    pub frames: usize,
    /// Elements of a frame: height x width x channels.
    pub frame: usize,
    /// Frames that are kept.
    pub keep: usize,
    /// `[batch, keep, frame]` of the chunk before.
    pub cache: Option<Operand<B>>,
    /// `[batch, frames, frame]`.
    pub x: Operand<B>,
    /// `[batch, keep, frame]`.
    pub y: Operand<B>,
}

impl<B: Clone> ConvCache<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self {
            batch,
            frames,
            frame,
            keep,
            cache,
            x,
            y,
        } = self;
        let mut others = vec![("y", y)];
        others.extend(cache.as_ref().map(|cache| ("cache", cache)));
        let element = same_element(KERNEL, ("x", x), &others)?;
        let input = check::product(KERNEL, "batch, frames, frame", &[*batch, *frames, *frame])?;
        x.length(KERNEL, "x", input)?;
        let kept = check::product(KERNEL, "batch, keep, frame", &[*batch, *keep, *frame])?;
        if let Some(cache) = cache {
            cache.length(KERNEL, "cache", kept)?;
        }
        y.length(KERNEL, "y", kept)?;
        if cache.is_none() && *frames == 0 && kept > 0 {
            let expected = "at least 1 without a cache";
            return Err(check::argument(KERNEL, "frames", expected, "0"));
        }
        let from = cache.as_ref().map_or(0, |cache| cache.offset);
        let n = width([*frame, x.offset, from, y.offset]);
        let kernel = keep_last::KeepLast::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            list(4),
            n,
            cache.is_some(),
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .maybe((x.len > 0).then_some(x), y, n)
            .maybe(cache.as_ref(), y, n)
            .array(y, n)
            .u32s([kept / n, *frames, frame / n, *keep])
            .over(line((kept / n).div_ceil(UNITS)), kernel)
    }
}

/// `sizes`: vectors of the result, frames, vectors of a frame, frames kept.
#[cube(launch_unchecked)]
fn keep_last<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    cache: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] cached: bool,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (frames, frame, keep) = (sizes[1] as usize, sizes[2] as usize, sizes[3] as usize);
        let (row, inner) = (i / frame, i % frame);
        let item = row / keep;
        // The frame's place in the cache followed by `x`.
        let place = row % keep + frames;
        let own = max(place, keep) - keep;
        let from = lead[0] as usize + (item * frames + own) * frame + inner;
        let to = lead[2] as usize + i;
        if comptime!(cached) {
            if place < keep {
                y[to] = cache[lead[1] as usize + (item * keep + place) * frame + inner];
            } else {
                y[to] = x[from];
            }
        } else {
            y[to] = x[from];
        }
    }
}
