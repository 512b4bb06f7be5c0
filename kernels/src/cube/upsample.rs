//! Nearest-neighbour doubling of channels-last video in space, and in time where asked.
//!
//! Invariants: pure copies. Refused: operands whose lengths or element types disagree.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::operand::{Operand, width};
use crate::cpu::TimeMode;
use crate::{KernelError, check};

const KERNEL: &str = "upsample";

/// Units of a cube.
const UNITS: usize = 256;

/// Doubles `x` `[batch, frames, height, width, channels]` into
/// `y` `[batch, time.frames(frames), 2 * height, 2 * width, channels]`.
///
/// Source: the interpolation of `CogVideoXUpsample3D` of diffusers 0.42.
#[derive(Debug, Clone)]
pub struct Upsample<B> {
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
    pub x: Operand<B>,
    /// Output.
    pub y: Operand<B>,
}

impl<B: Clone> Upsample<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self {
            batch,
            frames,
            height,
            width: columns,
            channels,
            time,
            x,
            y,
        } = self;
        let element = same_element(KERNEL, ("x", x), &[("y", y)])?;
        let shape = [*batch, *frames, *height, *columns, *channels];
        let input = check::product(KERNEL, "batch, frames, height, width, channels", &shape)?;
        x.length(KERNEL, "x", input)?;
        let out_frames = time.frames(*frames).ok_or_else(|| {
            let found = frames.to_string();
            check::argument(KERNEL, "frames", "a count that can be doubled", found)
        })?;
        let shape = [*batch, out_frames, *height, 2, *columns, 2, *channels];
        y.length(KERNEL, "y", check::product(KERNEL, "output shape", &shape)?)?;
        let n = width([*channels, x.offset, y.offset]);
        let count = y.len / n;
        let kernel = double::Double::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            list(6),
            n,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .array(y, n)
            .u32s([count, *frames, out_frames, *height, *columns, channels / n])
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// `sizes`: vectors of the result, frames in, frames out, height, width, vectors of a pixel.
#[cube(launch_unchecked)]
fn double<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (frames, frames_out) = (sizes[1] as usize, sizes[2] as usize);
        let (height, width, pixel) = (sizes[3] as usize, sizes[4] as usize, sizes[5] as usize);
        let (at, inner) = (i / pixel, i % pixel);
        let (line, column) = (at / (2 * width), at % (2 * width) / 2);
        let (image, row) = (line / (2 * height), line % (2 * height) / 2);
        let (item, frame) = (image / frames_out, image % frames_out);
        // The first of an odd number of frames is shown once, all others twice.
        let doubled = (frame + frames % 2) / 2;
        let source = item * frames + select(frames_out == frames, frame, doubled);
        let from = ((source * height + row) * width + column) * pixel + inner;
        let to = lead[1] as usize + i;
        y[to] = x[lead[0] as usize + from];
    }
}
