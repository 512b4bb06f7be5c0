//! Rounding to bf16, the upper half of an f32.
//!
//! Invariants: to nearest, ties to even; NaN stays NaN. Numbers below the smallest normal become zero
//! with their sign, as the processor's bf16 products read them, so that every instruction set gives
//! the same product.

use super::gemm::LANES;
use super::simd::Simd;
use super::split::multiversion;

/// The bits of `x` as bf16.
#[inline(always)]
pub(super) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        bits >> 16 | 0x40
    } else if magnitude < 0x0080_0000 {
        bits >> 16 & 0x8000
    } else {
        rounded
    }
}

/// `x` as bf16, widened again.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    f32::from_bits(round(x) << 16)
}

/// Two numbers as a pair of bf16, the first in the lower half. The pair travels as an f32, which no
/// arithmetic touches.
#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(round(first) | round(second) << 16)
}

multiversion! {
    /// Rounds every element of `row`, of even length, to the nearest bf16 and swaps those of each pair:
    /// the second is added first, as the processor's bf16 products do.
    pub(super) fn round_pairs(row: &mut [f32]) {
        for [first, second] in row.as_chunks_mut::<2>().0 {
            (*first, *second) = (nearest(*second), nearest(*first));
        }
    }
}

/// Widens lines of pairs to a line of their second numbers and one of their first.
#[inline(always)]
pub(super) fn widen<S: Simd>(simd: S, pairs: &[f32], out: &mut [f32]) {
    let out = out.as_chunks_mut::<{ 2 * LANES }>().0;
    for (line, out) in pairs.as_chunks::<LANES>().0.iter().zip(out) {
        for lane in (0..LANES).step_by(S::LANES) {
            // SAFETY: lines hold a whole number of vectors.
            unsafe {
                let pairs = simd.load(line.as_ptr().add(lane));
                simd.store(simd.odd(pairs), out.as_mut_ptr().add(lane));
                simd.store(simd.even(pairs), out.as_mut_ptr().add(LANES + lane));
            }
        }
    }
}

/// Replaces the first half of `row`, of even length, by the pairs of its elements; fast only where
/// [`Simd::DOT`].
#[inline(always)]
pub(super) fn pair_up<S: Simd>(simd: S, row: &mut [f32]) {
    let chunk = 2 * S::LANES;
    let whole = row.len() / chunk * chunk;
    for first in (0..whole).step_by(chunk) {
        let from = row[first..first + chunk].as_ptr();
        // SAFETY: a chunk is two vectors; where one goes has been read, it or one before.
        unsafe {
            let pairs = simd.consecutive(simd.load(from), simd.load(from.add(S::LANES)));
            simd.store(pairs, row[first / 2..][..S::LANES].as_mut_ptr());
        }
    }
    for first in (whole..row.len()).step_by(2) {
        row[first / 2] = pair(row[first], row[first + 1]);
    }
}
