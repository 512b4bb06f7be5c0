//! FP8 E4M3 as the Open Compute Project defines it (8-bit Floating Point Specification): a sign, 4 bits of
//! exponent with a bias of 7, 3 bits of fraction; no infinities, one NaN of each sign.
//!
//! Invariants: numbers are rounded to nearest, ties to even, and to the largest where they are larger; NaN
//! stays NaN. All of them are numbers of bf16 and of f16 too, so kernels without products of 8 bits
//! multiply them as such, exactly.

use crate::scale::{Scale, raised};

/// The largest number.
pub const LARGEST: f32 = 448.0;

/// The smallest number with all its bits.
const SMALLEST_NORMAL: f32 = 1.0 / 64.0;

/// f32 from here to its double are multiples of the smallest positive number, 2^-9.
const STEPS: f32 = 16384.0;

/// The number nearest to `x`.
#[must_use]
#[inline(always)]
pub fn nearest(x: f32) -> f32 {
    let bits = x.to_bits() & 0x7fff_ffff;
    let magnitude = f32::from_bits(bits);
    // The sum is rounded to a multiple of the smallest number, ties to even.
    let small = (magnitude + STEPS) - STEPS;
    let even = bits >> 20 & 1;
    let large = f32::from_bits(bits.wrapping_add(0x7_ffff + even) & 0xfff0_0000);
    let rounded = if magnitude < SMALLEST_NORMAL {
        small
    } else if magnitude < LARGEST {
        large
    } else {
        LARGEST
    };
    if x.is_nan() { x } else { rounded.copysign(x) }
}

/// The code of the number nearest to `x`.
#[must_use]
pub fn code(x: f32) -> u8 {
    let rounded = nearest(x).to_bits();
    let (sign, magnitude) = ((rounded >> 24) as u8 & 0x80, rounded & 0x7fff_ffff);
    let magnitude = if x.is_nan() {
        0x7f
    } else if magnitude < SMALLEST_NORMAL.to_bits() {
        (f32::from_bits(magnitude) * 512.0) as u8
    } else {
        // Exponents have a bias of 127 there and of 7 here.
        (magnitude >> 20).wrapping_sub((127 - 7) << 3) as u8
    };
    sign | magnitude
}

/// The scale of a row that becomes FP8.
#[must_use]
pub fn scale(row: &[f32]) -> Scale {
    Scale::of(raised(0, row), LARGEST)
}
