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
