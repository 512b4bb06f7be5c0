//! Rows rounded to FP8 E4M3, each with a scale of its own.
//!
//! Invariants: a cube rounds one row, by the arithmetic of [`crate::f8e4m3`] and [`crate::Scale`], so the
//! result differs from theirs by what a device makes of a division at most. Refused: rows whose width is no
//! multiple of four, because four codes share a word.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::fours::load;
use super::math::cube_max;
use super::operand::{Element, Operand, width};
use crate::{KernelError, check};

const KERNEL: &str = "quantize_rows";

/// `x[row]` = `codes[row] * scales[row]`, with codes as near as FP8 E4M3 has them.
#[derive(Debug, Clone)]
pub struct QuantizeRows<B> {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// `[rows, width]`.
    pub x: Operand<B>,
    /// `[rows, width / 4]`, u32: four codes each, the first in the lowest byte.
    pub codes: Operand<B>,
    /// `[rows]`, f32.
    pub scales: Operand<B>,
}

impl<B: Clone> QuantizeRows<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, the width or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let element = self.check()?;
        let n = width([self.width, self.x.offset]);
        let count = self.width.div_ceil(4).next_power_of_two().clamp(32, 256);
        let kernel = quantize_rows::QuantizeRows::<R>::new(
            units([count as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            (),
            (),
            n,
            count,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(&self.x, n)
            .array(&self.codes, 1)
            .array(&self.scales, 1)
            .u32s([self.rows, self.width])
            .over(line(self.rows), kernel)
    }

    fn check(&self) -> Result<Element, KernelError> {
        let Self { rows, width, .. } = self;
        let all = check::product(KERNEL, "rows, width", &[*rows, *width])?;
        if !width.is_multiple_of(4) {
            let found = width.to_string();
            return Err(check::argument(KERNEL, "width", "a multiple of 4", found));
        }
        self.x.length(KERNEL, "x", all)?;
        self.codes.is(KERNEL, "codes", Element::U32)?;
        self.codes.length(KERNEL, "codes", all / 4)?;
        self.scales.is(KERNEL, "scales", Element::F32)?;
        self.scales.length(KERNEL, "scales", *rows)?;
        self.x.float(KERNEL, "x")
    }
}

/// Bits of the smallest magnitude that is scaled, 2^-117.
const SMALLEST: u32 = 0x0500_0000;
/// Bits of infinity.
const INFINITE: u32 = 0x7f80_0000;

#[cube(launch_unchecked)]
fn quantize_rows<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    codes: &mut Array<u32>,
    scales: &mut Array<f32>,
    lead: &Sequence<u32>,
    rows: u32,
    width: u32,
    #[comptime] units: usize,
    #[define(E)] _element: StorageType,
) {
    let row = CUBE_POS;
    if row < rows as usize {
        let width = width as usize;
        let from = lead[0] as usize + row * width / N::value();
        let largest = largest_of::<E, N>(x, from, width, units);
        let number = f32::reinterpret(largest);
        let mut inverse = 0.0f32;
        let mut factor = 0.0f32;
        if largest >= INFINITE {
            // Not a number, whatever is multiplied by it.
            factor = f32::reinterpret(largest | 0x7fc0_0000u32);
        } else if largest >= SMALLEST {
            inverse = 448.0f32 / number;
            factor = number / 448.0f32;
        }
        let to = lead[1] as usize + row * width / 4;
        let mut i = UNIT_POS as usize * 4;
        while i < width {
            let four = load::<E, N>(x, from, i, width, 0.0f32);
            let mut word = 0u32;
            #[unroll]
            for k in 0..4usize {
                word |= code(four[k] * inverse) << comptime!(8 * k as u32);
            }
            codes[to + i / 4] = word;
            i += comptime!(4 * units);
        }
        if UNIT_POS == 0 {
            let to = lead[2] as usize + row;
            scales[to] = factor;
        }
    }
}

/// The bits of the largest magnitude of a row.
#[cube]
fn largest_of<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    from: usize,
    width: usize,
    #[comptime] units: usize,
) -> u32 {
    let mut largest = 0u32;
    let mut i = UNIT_POS as usize * 4;
    while i < width {
        let four = load::<E, N>(x, from, i, width, 0.0f32);
        #[unroll]
        for k in 0..4usize {
            let magnitude = u32::reinterpret(four[k]) & 0x7fff_ffffu32;
            largest = select(magnitude > largest, magnitude, largest);
        }
        i += comptime!(4 * units);
    }
    cube_max(largest, units)
}

/// The code nearest to `x`, ties to even; see [`crate::f8e4m3::code`].
#[cube]
fn code(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let magnitude = bits & 0x7fff_ffffu32;
    // f32 from 2^14 on are multiples of the smallest code, 2^-9.
    let small = u32::reinterpret(f32::reinterpret(magnitude) + 16384.0f32) - 0x4680_0000u32;
    let even = (magnitude >> 20u32) & 1u32;
    let large = ((magnitude + 0x0007_ffffu32 + even) >> 20u32) - 0x3c0u32;
    let large = select(large > 0x7eu32, 0x7eu32, large);
    // Below 2^-6 there are fewer bits.
    let code = select(magnitude < 0x3c80_0000u32, small, large);
    code | ((bits >> 24u32) & 0x80u32)
}
