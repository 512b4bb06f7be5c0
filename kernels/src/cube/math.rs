//! Arithmetic inside kernels, all in f32: activations and sums over the units of a cube.
//!
//! Invariants: a sum over a cube adds in an order that depends on the number of units alone.

use std::f32::consts::FRAC_1_SQRT_2;

use cubecl::prelude::*;

/// An elementwise function, chosen when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// x itself.
    Identity,
    /// x * sigmoid(x).
    Silu,
    /// GELU by the error function.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
}

/// Applies `function`.
#[cube]
pub(super) fn apply(x: f32, #[comptime] function: Function) -> f32 {
    match function {
        Function::Identity => x,
        Function::Silu => x / (1.0f32 + f32::exp(-x)),
        Function::Gelu => 0.5f32 * x * erfc(-x * FRAC_1_SQRT_2),
        Function::GeluTanh => gelu_tanh(x),
    }
}

/// 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), written as x * sigmoid(2 u).
#[cube]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    let u = 1.595769f32 * (x + 0.044715f32 * x * x * x);
    x / (1.0f32 + f32::exp(-u))
}

/// The complementary error function to 1.5e-7: formula 7.1.26 of Abramowitz and Stegun, Handbook of
/// Mathematical Functions.
#[cube]
fn erfc(x: f32) -> f32 {
    let z = f32::abs(x);
    let t = 1.0f32 / (1.0f32 + 0.3275911f32 * z);
    let mut p = 1.0614054f32 * t - 1.4531521f32;
    p = p * t + 1.4214138f32;
    p = p * t - 0.28449674f32;
    p = p * t + 0.2548296f32;
    let tail = p * t * f32::exp(-z * z);
    select(x < 0.0f32, 2.0f32 - tail, tail)
}

/// The sum of `value` over the units of a cube of `units` units, a power of two, for all of them.
#[cube]
pub(super) fn cube_sum(value: f32, #[comptime] units: usize) -> f32 {
    let mut lanes = SharedMemory::<f32>::new(units);
    lanes[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(units as u32 / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            lanes[UNIT_POS as usize] += lanes[(UNIT_POS + half) as usize];
        }
        sync_cube();
        half /= 2;
    }
    let sum = lanes[0];
    // The next sum may use the same memory.
    sync_cube();
    sum
}

/// The largest `value` of the units of a cube of `units` units, a power of two, for all of them.
#[cube]
pub(super) fn cube_max(value: u32, #[comptime] units: usize) -> u32 {
    let mut lanes = SharedMemory::<u32>::new(units);
    lanes[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = comptime!(units as u32 / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            let other = lanes[(UNIT_POS + half) as usize];
            let own = lanes[UNIT_POS as usize];
            lanes[UNIT_POS as usize] = select(other > own, other, own);
        }
        sync_cube();
        half /= 2;
    }
    lanes[0]
}

/// Sine of an angle, or its cosine, to about 1e-7 for angles up to 8192: devices promise little beyond
/// a turn. Quarter turns are taken off in three parts whose multiples are exact (Cody and Waite).
#[cube]
pub(super) fn sin_or_cos(angle: f32, sine: bool) -> f32 {
    let turns = f32::round(angle * 0.636_619_75f32);
    let rest = angle - turns * 1.570_312_5f32;
    let rest = rest - turns * 4.837_513e-4f32;
    let rest = rest - turns * 7.549_79e-8f32;
    let quadrant = u32::cast_from(i32::cast_from(turns));
    quarter(rest, quadrant + select(sine, 0u32, 1u32))
}

/// Sine of `rest + quadrant * pi / 2` for a rest of at most pi / 4: the minimax polynomials of Cephes'
/// `sinf` and `cosf`.
#[cube]
#[allow(
    clippy::manual_is_multiple_of,
    reason = "there is no such method on the device"
)]
pub(super) fn quarter(rest: f32, quadrant: u32) -> f32 {
    let z = rest * rest;
    let mut p = 1.951_529_6e-4f32;
    p = 8.332_161e-3f32 - p * z;
    p = p * z - 1.666_665_5e-1f32;
    let sine = p * z * rest + rest;
    let mut p = 2.443_315_7e-5f32;
    p = p * z - 1.388_731_6e-3f32;
    p = p * z + 4.166_664_6e-2f32;
    let cosine = p * z * z - 0.5f32 * z + 1.0f32;
    let value = select(quadrant % 2 == 0, sine, cosine);
    select(quadrant / 2 % 2 == 0, value, -value)
}

/// log(1 + f) for 1 + f between sqrt(1/2) and sqrt(2): the minimax polynomial of Cephes' `logf`.
#[cube]
pub(super) fn log_near_one(f: f32) -> f32 {
    let mut p = 7.037_683_6e-2f32;
    p = p * f - 1.151_461e-1f32;
    p = p * f + 1.167_699_9e-1f32;
    p = p * f - 1.242_014_1e-1f32;
    p = p * f + 1.424_932_3e-1f32;
    p = p * f - 1.666_805_8e-1f32;
    p = p * f + 2.000_071_5e-1f32;
    p = p * f - 2.499_999_4e-1f32;
    p = p * f + 3.333_333e-1f32;
    p * f * f * f - 0.5f32 * f * f + f
}
