//! Shared by the kernel tests: inputs, comparison, and runs under pools of several sizes.

#![allow(dead_code, clippy::unwrap_used)]

use std::fmt::Debug;
use terrace_kernels::cpu::{InstructionSet, Linear, LinearEpilogue, PackedLinear, instruction_set};

/// Reproducible values in [-1, 1), different for each `salt`.
pub fn values(n: usize, salt: u64) -> Vec<f32> {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Asserts that every element differs by at most `tolerance * max(1, |expected|)`.
pub fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs();
        assert!(
            error <= tolerance * e.abs().max(1.0),
            "element {i}: found {f}, expected {e}"
        );
    }
}

/// Runs `f` in rayon pools of 1, 2 and 3 threads, asserts equal results and returns one.
pub fn same_in_all_pools<T: PartialEq + Debug + Send>(f: impl Fn() -> T + Sync) -> T {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(&f)
    };
    let one = run(1);
    assert!(one == run(2), "2 threads give another result than 1");
    assert!(one == run(3), "3 threads give another result than 1");
    one
}

/// The bits of every element, for comparisons that must be exact.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// A product without bias and epilogue.
pub fn linear(set: InstructionSet, rows: usize, x: &[f32], weight: &PackedLinear) -> Vec<f32> {
    fused(set, rows, x, weight, None, LinearEpilogue::None)
}

/// A product with what is fused to it.
pub fn fused(
    set: InstructionSet,
    rows: usize,
    x: &[f32],
    weight: &PackedLinear,
    bias: Option<&[f32]>,
    epilogue: LinearEpilogue<'_>,
) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * weight.n()];
    Linear {
        rows,
        x,
        weight,
        bias,
        epilogue,
        y: &mut y,
    }
    .run_with(set)
    .unwrap();
    y
}

/// Asserts that some rows of a product have the bits that they have among 200; `pack` packs the weight
/// `[n, k]`.
pub fn rows_stand_alone(pack: impl Fn(usize, usize, &[f32]) -> PackedLinear) {
    let (rows, n, k) = (200, 70, 601);
    let (x, weight) = (values(rows * k, 1), values(n * k, 2));
    let packed = pack(n, k, &weight);
    let whole = linear(instruction_set(), rows, &x, &packed);
    for (first, count) in [(0, 1), (199, 1), (3, 2), (100, 13), (7, 168)] {
        let part = &x[first * k..][..count * k];
        let part = linear(instruction_set(), count, part, &packed);
        assert_eq!(bits(&part), bits(&whole[first * n..][..count * n]));
    }
}

/// Runs on every instruction set, in pools of several sizes; all must agree to the bit.
pub fn everywhere(run: impl Fn(InstructionSet) -> Vec<f32> + Sync) -> Vec<f32> {
    let mut first: Option<Vec<u32>> = None;
    for set in InstructionSet::available() {
        let y = same_in_all_pools(|| bits(&run(set)));
        assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{set}");
    }
    first.unwrap().into_iter().map(f32::from_bits).collect()
}
