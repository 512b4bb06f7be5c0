//! How a task of attention holds what it multiplies: f32, bf16 widened to f32, or pairs of bf16.
//!
//! Invariants: the first number of a pair is multiplied first, so that pairs and widened numbers give the
//! same sums; what has no second number is paired with zero. The sum of the weights is that of the
//! rounded ones, which are what the values are multiplied by.

use super::AttentionProducts;
use super::buffers::{PAIRED_STRIDE, STRIDE};
use crate::cpu::bf16;
use crate::cpu::gemm::{LANES, Micro, Terms, Tile};
use crate::cpu::simd::{EXP2, EXP2_BF16, Simd, exp2_nonpositive};
use std::f32::consts::LOG2_E;

/// A form of factors.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// f32.
    Whole,
    /// The nearest bf16, as f32.
    Rounded,
    /// Pairs of the nearest bf16.
    Paired,
}

impl Form {
    /// The form that an instruction set multiplies.
    #[inline(always)]
    pub(super) fn of<S: Simd>(products: AttentionProducts) -> Self {
        match products {
            AttentionProducts::F32 => Self::Whole,
            AttentionProducts::Bf16 if S::DOT => Self::Paired,
            AttentionProducts::Bf16 => Self::Rounded,
        }
    }

    /// Numbers of an element.
    #[inline(always)]
    pub(super) fn numbers(self) -> usize {
        match self {
            Self::Whole | Self::Rounded => 1,
            Self::Paired => 2,
        }
    }

    /// Elements that so many numbers take.
    #[inline(always)]
    pub(super) fn terms(self, numbers: usize) -> usize {
        numbers.div_ceil(self.numbers())
    }

    /// Elements between the rows of a part of keys.
    #[inline(always)]
    pub(super) fn key_stride(self) -> usize {
        match self {
            Self::Whole | Self::Rounded => STRIDE,
            Self::Paired => PAIRED_STRIDE,
        }
    }

    /// Computes a tile of scores, whose left operand is a part of keys.
    ///
    /// # Safety
    /// As for [`Micro::narrow_tile`].
    #[inline(always)]
    pub(super) unsafe fn score_tile<S: Micro>(self, simd: S, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { self.tile::<S, STRIDE, PAIRED_STRIDE>(simd, tile) };
    }

    /// Computes a tile of weighted values.
    ///
    /// # Safety
    /// As for [`Micro::narrow_tile`].
    #[inline(always)]
    pub(super) unsafe fn value_tile<S: Micro>(self, simd: S, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { self.tile::<S, 1, 1>(simd, tile) };
    }

    #[inline(always)]
    unsafe fn tile<S: Micro, const ROW: usize, const PAIRED_ROW: usize>(
        self,
        simd: S,
        tile: &Tile,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            // What is multiplied must be known where the loop is compiled.
            match self {
                Self::Whole | Self::Rounded => simd.narrow_tile::<ROW>(tile, Terms::Whole),
                Self::Paired => simd.narrow_tile::<PAIRED_ROW>(tile, Terms::Pairs),
            }
        }
    }

    /// The channels of a query, scaled.
    #[inline(always)]
    pub(super) fn scaled(self, query: &[f32], scale: f32, out: &mut [f32]) {
        match self {
            Self::Whole => out
                .iter_mut()
                .zip(query)
                .for_each(|(out, v)| *out = v * scale),
            Self::Rounded => {
                for (out, v) in out.iter_mut().zip(query) {
                    *out = bf16::nearest(v * scale);
                }
            }
            Self::Paired => {
                for (out, both) in out.iter_mut().zip(query.chunks(2)) {
                    let second = both.get(1).map_or(0.0, |v| v * scale);
                    *out = bf16::pair(second, both[0] * scale);
                }
            }
        }
    }

    /// The channels of a key as a row, which has room for whole lines.
    #[inline(always)]
    pub(super) fn key<S: Simd>(self, simd: S, channels: &[f32], row: &mut [f32]) {
        match self {
            Self::Whole => row[..channels.len()].copy_from_slice(channels),
            Self::Rounded => round(channels, row),
            Self::Paired => {
                for (both, out) in channels.chunks(2 * LANES).zip(row.chunks_exact_mut(LANES)) {
                    let both: [f32; 2 * LANES] = padded(both);
                    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
                    for (i, pair) in both.as_chunks::<2>().0.iter().enumerate() {
                        (first[i], second[i]) = (pair[0], pair[1]);
                    }
                    pair_line(simd, &first, &second, out);
                }
            }
        }
    }

    /// One value, or two of which the second may be missing, as a row, zeros behind it. The row is whole
    /// lines.
    #[inline(always)]
    pub(super) fn values<S: Simd>(
        self,
        simd: S,
        first: &[f32],
        second: Option<&[f32]>,
        row: &mut [f32],
    ) {
        match self {
            Self::Whole => row[..first.len()].copy_from_slice(first),
            Self::Rounded => round(first, row),
            Self::Paired => {
                let second = second.unwrap_or(&[]);
                for (index, out) in row.chunks_exact_mut(LANES).enumerate() {
                    let line = |value: &[f32]| padded(value.get(index * LANES..).unwrap_or(&[]));
                    pair_line(simd, &line(first), &line(second), out);
                }
                return;
            }
        }
        row[first.len()..].fill(0.0);
    }

    /// What is kept of a weight in a form of one number.
    #[inline(always)]
    fn kept<S: Simd>(self, simd: S, weight: S::V) -> S::V {
        match self {
            Self::Rounded => simd.round(weight),
            Self::Whole | Self::Paired => weight,
        }
    }

    /// Turns the scores of a vector of queries into weights, `2^(log2(e) score - base)`, and returns their
    /// sum.
    ///
    /// # Safety
    /// `scores` is valid for reads and writes of a vector at each of `count` rows, `width` apart.
    #[inline(always)]
    pub(super) unsafe fn weights<S: Simd>(
        self,
        simd: S,
        scores: *mut f32,
        [width, count]: [usize; 2],
        base: S::V,
    ) -> S::V {
        let row = |row: usize| scores.wrapping_add(row * width);
        let minus_base = simd.sub(simd.splat(0.0), base);
        let mut sum = simd.splat(0.0);
        // SAFETY: rows, by the caller's promise.
        unsafe {
            match self {
                Self::Whole => {
                    sum = single_weights(simd, self, scores, [width, count], minus_base, EXP2);
                }
                Self::Rounded => {
                    let rows = [width, count];
                    sum = single_weights(simd, self, scores, rows, minus_base, EXP2_BF16);
                }
                Self::Paired => {
                    let ones = simd.pair(simd.splat(1.0), simd.splat(1.0));
                    for index in 0..count / 2 {
                        let first = weight(simd, row(2 * index), minus_base, EXP2_BF16);
                        let second = weight(simd, row(2 * index + 1), minus_base, EXP2_BF16);
                        let both = simd.pair(first, second);
                        simd.store(both, row(index));
                        sum = simd.dot(both, ones, sum);
                    }
                    if count % 2 == 1 {
                        let last = weight(simd, row(count - 1), minus_base, EXP2_BF16);
                        let both = simd.pair(last, simd.splat(0.0));
                        simd.store(both, row(count / 2));
                        sum = simd.dot(both, ones, sum);
                    }
                }
            }
        }
        sum
    }
}

/// As [`Form::weights`] for forms of one number, two rows at a time, which share the constants.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn single_weights<S: Simd, const TERMS: usize>(
    simd: S,
    form: Form,
    scores: *mut f32,
    [width, count]: [usize; 2],
    minus_base: S::V,
    coefficients: [f32; TERMS],
) -> S::V {
    let row = |row: usize| scores.wrapping_add(row * width);
    let (mut sum, even) = (simd.splat(0.0), count - count % 2);
    // SAFETY: rows, by the caller's promise.
    unsafe {
        for key in (0..even).step_by(2) {
            let first = weight(simd, row(key), minus_base, coefficients);
            let second = weight(simd, row(key + 1), minus_base, coefficients);
            let (first, second) = (form.kept(simd, first), form.kept(simd, second));
            simd.store(first, row(key));
            simd.store(second, row(key + 1));
            sum = simd.add(simd.add(sum, first), second);
        }
        if even < count {
            let last = form.kept(simd, weight(simd, row(even), minus_base, coefficients));
            simd.store(last, row(even));
            sum = simd.add(sum, last);
        }
    }
    sum
}

/// `2^(log2(e) score + minus_base)` of a vector of scores.
///
/// # Safety
/// `score` is valid for a read of a vector.
#[inline(always)]
unsafe fn weight<S: Simd, const TERMS: usize>(
    simd: S,
    score: *const f32,
    minus_base: S::V,
    coefficients: [f32; TERMS],
) -> S::V {
    // SAFETY: the caller's promise.
    let score = unsafe { simd.load(score) };
    let x = simd.mul_add(score, simd.splat(LOG2_E), minus_base);
    exp2_nonpositive(simd, x, coefficients)
}

#[inline(always)]
fn round(from: &[f32], to: &mut [f32]) {
    for (to, &v) in to.iter_mut().zip(from) {
        *to = bf16::nearest(v);
    }
}

/// The first numbers, zeros in the place of those that are missing.
#[inline(always)]
fn padded<const COUNT: usize>(numbers: &[f32]) -> [f32; COUNT] {
    if let Some(whole) = numbers.first_chunk() {
        return *whole;
    }
    let mut all = [0.0; COUNT];
    all[..numbers.len()].copy_from_slice(numbers);
    all
}

/// A line of pairs.
#[inline(always)]
fn pair_line<S: Simd>(simd: S, first: &[f32; LANES], second: &[f32; LANES], out: &mut [f32]) {
    let out = &mut out[..LANES];
    for lane in (0..LANES).step_by(S::LANES) {
        // SAFETY: lines hold a whole number of vectors.
        unsafe {
            let first = simd.load(first.as_ptr().add(lane));
            let second = simd.load(second.as_ptr().add(lane));
            simd.store(simd.pair(first, second), out.as_mut_ptr().add(lane));
        }
    }
}
