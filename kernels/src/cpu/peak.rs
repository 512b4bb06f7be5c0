//! The rate at which the processor multiplies and adds when nothing but the multipliers is in the way:
//! what other kernels' rates are shares of.
//!
//! Invariants: operands never leave the registers; enough sums run at a time to hide the latency of one.
//! The rate is that of the instructions that the matrix product uses, on all threads of the caller's pool
//! at once. Where there is no instruction for products of bf16, they are products of f32, and so is their
//! peak.

use std::array;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::gemm::{Micro, Operands};
use super::simd::{InstructionSet, Kernel, Simd};

/// Rounds between two looks at the clock: about 20 microseconds of work.
const ROUNDS: usize = 4096;

/// Windows that are measured; the best of them counts, since anything else on the machine only slows one.
const WINDOWS: u32 = 8;

/// Floating point operations per second of all threads of the caller's pool together, a multiply-add
/// counting as two. Takes `time`, and is an upper bound for that time on this machine only: clocks change.
#[must_use]
pub fn peak_flops(set: InstructionSet, operands: Operands, time: Duration) -> f64 {
    let window = time / WINDOWS;
    (0..WINDOWS)
        .map(|_| {
            let begun = Instant::now();
            let done = rayon::broadcast(|_| busy(set, operands, begun + window));
            done.into_iter().sum::<f64>() / begun.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// Multiplies until `end` and counts the operations.
fn busy(set: InstructionSet, operands: Operands, end: Instant) -> f64 {
    let mut done = 0.0;
    while Instant::now() < end {
        set.run(Chains {
            operands,
            done: &mut done,
        });
    }
    done
}

/// Independent sums of products, round after round.
struct Chains<'a> {
    operands: Operands,
    done: &'a mut f64,
}

impl Kernel for Chains<'_> {
    #[inline(always)]
    fn run<S: Micro>(self, simd: S) {
        // As many as fit the registers of the narrowest sets: portable vectors fill several.
        *self.done += if S::ROWS > 2 {
            chains::<S, 12>(simd, self.operands)
        } else {
            chains::<S, 2>(simd, self.operands)
        };
    }
}

/// Runs `COUNT` sums and returns the operations.
#[inline(always)]
fn chains<S: Simd, const COUNT: usize>(s: S, operands: Operands) -> f64 {
    // What the compiler does not know it cannot fold.
    let mut sums: [S::V; COUNT] = array::from_fn(|i| s.splat(black_box(i as f32)));
    let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = match operands {
                Operands::Bf16 | Operands::F8E4M3 if S::DOT => s.dot(a, b, *sum),
                Operands::F32 | Operands::Bf16 | Operands::F8E4M3 => s.mul_add(a, b, *sum),
                // The product must depend on the sum, or it would be computed once.
                Operands::I8 => s.dot_integers(a, *sum, *sum),
            };
        }
    }
    black_box(sums);
    let per_lane = match operands {
        Operands::Bf16 | Operands::F8E4M3 if S::DOT => 4,
        Operands::F32 | Operands::Bf16 | Operands::F8E4M3 => 2,
        Operands::I8 if S::QUADS => 8,
        Operands::I8 => 4,
    };
    (ROUNDS * COUNT * S::LANES * per_lane) as f64
}
