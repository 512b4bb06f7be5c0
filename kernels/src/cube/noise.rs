//! Normal noise from a counter-based generator: a function of (seed, stream, index) alone.
//!
//! Invariants: the words are those of the CPU kernel, bit for bit; the normal numbers are computed in
//! f32 from the words as integers, so that they agree with those of the CPU kernel, which uses f64, to
//! a few units in the last place, in every cut. Refused: indices beyond 32 bits, boxes that leave the
//! output or overlap.
//!
//! Source: J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011; G. Box and
//! M. Muller, "A Note on the Generation of Random Normal Deviates", 1958.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::math::{log_near_one, quarter};
use super::operand::{Element, Operand};
use crate::KernelError;
use crate::boxes::BoxDims;

const KERNEL: &str = "noise_box";

/// Units of a cube.
const UNITS: usize = 256;

/// Indices that the kernel can count.
const INDICES: u64 = 1 << 32;

/// Fills a strided box: element `i` at `out_offset + sum(i * out_strides)` gets the number at
/// `index_offset + sum(i * index_strides)`.
#[derive(Debug, Clone)]
pub struct NoiseBox<'a, B> {
    /// `[4]` u32: seed low, seed high, stream low, stream high, read when the kernel runs.
    pub key: Operand<B>,
    /// Elements along each dimension, at most [`MAX_BOX_RANK`](crate::cpu::MAX_BOX_RANK) dimensions.
    pub extents: &'a [usize],
    /// Output, f32.
    pub out: Operand<B>,
    /// First element of the box in `out`.
    pub out_offset: usize,
    /// Step of each dimension in `out`; the steps must nest as in a (permuted) dense array.
    pub out_strides: &'a [usize],
    /// Index of the first element.
    pub index_offset: u64,
    /// Step of each dimension in the index.
    pub index_strides: &'a [u64],
}

impl<B: Clone> NoiseBox<'_, B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when the lists differ in length, the box leaves the output or would write an
    /// element twice, an index exceeds 32 bits, or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self { key, out, .. } = self;
        key.is(KERNEL, "key", Element::U32)?;
        key.length(KERNEL, "key", 4)?;
        out.is(KERNEL, "out", Element::F32)?;
        let walk = BoxDims::new(
            KERNEL,
            self.extents,
            (out.len, self.out_offset, self.out_strides),
            (INDICES, self.index_offset, self.index_strides),
        )?;
        let count = walk.elements;
        if count == 0 {
            return Ok(Vec::new());
        }
        let kernel = draw::Draw::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            list(3),
            list(3 * walk.dims.len()),
            walk.dims.len(),
        );
        let dims = walk.dims.iter();
        Builder::new(KERNEL, device)
            .array(key, 1)
            .array(out, 1)
            .u32s([count, self.out_offset, self.index_offset as usize])
            .u32s(dims.flat_map(|dim| [dim.extent, dim.to, dim.from as usize]))
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// `sizes`: elements of the box, first element, first index. `dims`: per dimension its extent, its step
/// in the output and in the index.
#[cube(launch_unchecked)]
fn draw(
    key: &Array<u32>,
    out: &mut Array<f32>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    dims: &Sequence<u32>,
    #[comptime] rank: usize,
) {
    if ABSOLUTE_POS < sizes[0] as usize {
        let mut rest = ABSOLUTE_POS as u32;
        let mut to = lead[1] + sizes[1];
        let mut index = 0u32;
        #[unroll]
        for i in 0..rank {
            let dim = comptime!(3 * (rank - 1 - i));
            let place = rest % dims[dim];
            rest /= dims[dim];
            to += place * dims[dim + 1];
            index += place * dims[dim + 2];
        }
        let key_at = lead[0] as usize;
        let seed = (key[key_at], key[key_at + 1]);
        let stream = (key[key_at + 2], key[key_at + 3]);
        out[to as usize] = normal(sizes[2] + index, seed, stream);
    }
}

/// The standard normal number at `index`.
#[cube]
fn normal(index: u32, seed: (u32, u32), stream: (u32, u32)) -> f32 {
    let (w0, w1, w2, w3) = philox4x32(index / 4, stream, seed);
    let upper = index / 2 % 2 == 1;
    box_muller(select(upper, w2, w0), select(upper, w3, w1), index % 2)
}

/// Philox4x32-10 of the counter `block`, 0, `stream`.
#[cube]
fn philox4x32(block: u32, stream: (u32, u32), seed: (u32, u32)) -> (u32, u32, u32, u32) {
    let mut c0 = block;
    let mut c1 = 0u32;
    let mut c2 = stream.0;
    let mut c3 = stream.1;
    let mut k0 = seed.0;
    let mut k1 = seed.1;
    #[unroll]
    for _ in 0..10usize {
        let (low_a, low_b) = (c0 * 0xD251_1F53u32, c2 * 0xCD9E_8D57u32);
        let high_a = u32::mul_hi(c0, 0xD251_1F53u32);
        c0 = u32::mul_hi(c2, 0xCD9E_8D57u32) ^ c1 ^ k0;
        c1 = low_b;
        c2 = high_a ^ c3 ^ k1;
        c3 = low_a;
        k0 += 0x9E37_79B9u32;
        k1 += 0xBB67_AE85u32;
    }
    (c0, c1, c2, c3)
}

/// The radius of `a` times the cosine (side 0) or the sine (side 1) of the angle `b`.
#[cube]
fn box_muller(a: u32, b: u32, side: u32) -> f32 {
    let radius = f32::sqrt(-(2.0f32 * log_of_unit(a)));
    // The nearest quarter turn is taken off in integers, so the rest keeps all digits.
    let quadrant = (b + 0x2000_0000u32) >> 30u32;
    let rest = i32::cast_from(b - (quadrant << 30u32));
    // 2 pi / 2^32.
    let angle = f32::cast_from(rest) * 1.462_918_1e-9f32;
    radius * quarter(angle, quadrant + 1 - side)
}

/// log((a + 0.5) / 2^32) to full relative precision, near 1 too.
#[cube]
fn log_of_unit(a: u32) -> f32 {
    let unit = 2.328_306_4e-10f32;
    // From sqrt(1/2) on the distance from 1 is what has the digits.
    let near = a >= 0xB504_F334u32;
    let below = select(near, !a, a);
    let value = (f32::cast_from(below) + 0.5f32) * unit;
    // The fraction of a number in [sqrt(1/2), sqrt(2)) ends where that of sqrt(1/2) begins.
    let raised = u32::reinterpret(value) + (0x3F80_0000u32 - 0x3F35_04F3u32);
    let exponent = f32::cast_from(i32::cast_from(raised >> 23u32) - 127i32);
    let mantissa = f32::reinterpret((raised & 0x007F_FFFFu32) + 0x3F35_04F3u32);
    let far = log_near_one(mantissa - 1.0f32) - exponent * 2.121_944_4e-4f32;
    select(near, log_near_one(-value), far + exponent * 0.693_359_4f32)
}
