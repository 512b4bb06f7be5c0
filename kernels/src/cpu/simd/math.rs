//! The exponential of softmax, in vectors.
//!
//! Invariant: the same sequence of operations in every lane of every instruction set.

use super::Simd;

/// e^x for x <= 0, to about 2 units in the last place; below -87 it stays at e^-87, which is nothing
/// beside the largest term of a softmax, e^0. NaN stays NaN. Cody and Waite's reduction and the
/// minimax polynomial of Cephes' `expf`.
#[inline(always)]
pub(in crate::cpu) fn exp_nonpositive<S: Simd>(s: S, x: S::V) -> S::V {
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = s.max(s.splat(-87.0), x);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    let shifted = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let k = s.sub(shifted, s.splat(ROUND));
    let r = s.mul_add(k, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(k, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
        1.0,
        1.0,
    ] {
        p = s.mul_add(p, r, s.splat(c));
    }
    s.add_exponent(p, shifted)
}
