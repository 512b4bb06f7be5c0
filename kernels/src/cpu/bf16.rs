//! Rounding to bf16, the upper half of an f32.
//!
//! Invariants: to nearest, ties to even; NaN stays NaN. Numbers below the smallest normal become zero
//! with their sign, as the processor's bf16 products read them, so that every instruction set gives
//! the same product.

use super::gemm::LANES;
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
pub(super) fn widen(pairs: &[f32], out: &mut [f32]) {
    let out = out.as_chunks_mut::<{ 2 * LANES }>().0;
    for (line, out) in pairs.as_chunks::<LANES>().0.iter().zip(out) {
        let (second, first) = out.split_at_mut(LANES);
        for ((pair, second), first) in line.iter().zip(second).zip(first) {
            *second = f32::from_bits(pair.to_bits() & 0xffff_0000);
            *first = f32::from_bits(pair.to_bits() << 16);
        }
    }
}

multiversion! {
    /// Replaces the first half of `row`, of even length, by the pairs of its elements.
    pub(super) fn pair_up(row: &mut [f32]) {
        const CHUNK: usize = 32;
        let mut first = 0;
        while first < row.len() {
            let count = CHUNK.min(row.len() - first);
            let mut chunk = [0f32; CHUNK];
            chunk[..count].copy_from_slice(&row[first..first + count]);
            let mut pairs = [0f32; CHUNK / 2];
            for (out, both) in pairs.iter_mut().zip(chunk.as_chunks::<2>().0) {
                *out = pair(both[0], both[1]);
            }
            row[first / 2..][..count / 2].copy_from_slice(&pairs[..count / 2]);
            first += count;
        }
    }
}
