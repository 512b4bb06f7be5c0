//! Arithmetic shared by the kernels: sums over a fixed number of lanes, and an exponential that
//! vectorises.
//!
//! Invariants: only IEEE additions, multiplications and divisions in a fixed order, never fused, so
//! the results are the same bits on every instruction set.

/// Lanes of a sum: enough for two AVX-512 registers, whatever the machine has.
const LANES: usize = 32;

/// The sum of `f(x)` over a row: element `i` goes to lane `i % 32`, the lanes are added pairwise.
#[inline(always)]
pub(super) fn lane_sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f(v);
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (a, &b) in low.iter_mut().zip(high.iter()) {
            *a += b;
        }
        half /= 2;
    }
    lanes[0]
}

/// Mean and 1 / sqrt(variance + eps) of a row, in two passes; the variance is the biased one.
#[inline(always)]
pub(super) fn layer_statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = lane_sum(x, |v| v) / n;
    let variance = lane_sum(x, |v| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// e^x to about 2 units in the last place, with x clamped to [-86, 88] so that the result stays a
/// normal number. Cody and Waite's reduction and the minimax polynomial of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -86.0 { -86.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN2_HIGH - k * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let p = p * (r * r) + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// x * sigmoid(x).
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// GELU in its tanh form, 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), written as
/// x * sigmoid(2 u), which is the same function and keeps its precision for negative x.
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769;
    let u = TWICE_ROOT * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-u))
}

/// GELU by the error function, 0.5 x (1 + erf(x / sqrt(2))), written with the complement, which
/// keeps its precision for negative x.
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * libm::erfcf(-x * std::f32::consts::FRAC_1_SQRT_2)
}
