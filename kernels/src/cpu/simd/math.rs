//! The exponential of softmax, in vectors.
//!
//! Invariant: the same sequence of operations in every lane of every instruction set.

use super::Simd;

/// Coefficients of r^n ... r^1 in 2^r - 1 for |r| <= 1/2: the minimax polynomial of the relative error,
/// 2.0e-9, found by Lawson's iteration.
pub(in crate::cpu) const EXP2: [f32; 6] = [
    1.535_336_2e-4,
    1.339_887_4e-3,
    9.618_437e-3,
    5.550_332_4e-2,
    2.402_264_8e-1,
    6.931_472e-1,
];

/// As [`EXP2`], to 2.8e-6: enough for what is rounded to bf16 next.
pub(in crate::cpu) const EXP2_BF16: [f32; 4] =
    [9.582_853e-3, 5.590_642_6e-2, 2.402_41e-1, 6.931_240_6e-1];

/// 2^x for x that are at most some rounding above 0, by the polynomial of the given coefficients; below
/// -126 it stays at 2^-126, which is nothing beside the largest term of a softmax, 2^0. NaN stays NaN.
#[inline(always)]
pub(in crate::cpu) fn exp2_nonpositive<S: Simd, const TERMS: usize>(
    s: S,
    x: S::V,
    coefficients: [f32; TERMS],
) -> S::V {
    const ROUND: f32 = 12_582_912.0;
    let x = s.max(s.splat(-126.0), x);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    let shifted = s.add(x, s.splat(ROUND));
    let r = s.sub(x, s.sub(shifted, s.splat(ROUND)));
    let mut p = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        p = s.mul_add(p, r, s.splat(*c));
    }
    s.add_exponent(s.mul_add(p, r, s.splat(1.0)), shifted)
}
