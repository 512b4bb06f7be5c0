//! Products of weights in 8-bit integers against exact sums of integers rounded here, on every
//! instruction set, in pools of 1, 2 and 3 threads.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, everywhere, fused, linear, rows_stand_alone, values};
use terrace_kernels::KernelError;
use terrace_kernels::cpu::*;

/// The integers of a row and what they are multiples of.
fn rounded(row: &[f32]) -> (Vec<i64>, f32) {
    let largest = row.iter().fold(0f32, |a, v| a.max(v.abs()));
    if largest == 0.0 {
        return (vec![0; row.len()], 0.0);
    }
    let inverse = 127.0 / largest;
    let integer = |v: &f32| (v * inverse).round_ties_even() as i64;
    (row.iter().map(integer).collect(), largest / 127.0)
}

/// The product by exact sums, as bits.
fn exact(rows: usize, [n, k]: [usize; 2], x: &[f32], weight: &[f32]) -> Vec<u32> {
    let row = |data: &[f32], row: usize| rounded(&data[row * k..][..k]);
    let x: Vec<_> = (0..rows).map(|r| row(x, r)).collect();
    let weight: Vec<_> = (0..n).map(|c| row(weight, c)).collect();
    let mut y = Vec::new();
    for (x, row) in &x {
        for (weight, column) in &weight {
            let sum: i64 = x.iter().zip(weight).map(|(a, b)| a * b).sum();
            y.push((i32::try_from(sum).unwrap() as f32 * row * column).to_bits());
        }
    }
    y
}

#[test]
fn products_are_exact_sums_of_the_nearest_integers() {
    let shapes = [
        (1, 1, 1),
        (3, 17, 2),
        (15, 40, 511),
        (7, 33, 513),
        (170, 50, 300),
        (29, 31, 1027),
        (5, 1100, 514),
        (2, 5, 0),
    ];
    for (rows, n, k) in shapes {
        let (x, weight) = (values(rows * k, 1), values(n * k, 2));
        let packed = PackedLinear::pack_i8(n, k, &weight).unwrap();
        let y = everywhere(|set| linear(set, rows, &x, &packed));
        assert_eq!(bits(&y), exact(rows, [n, k], &x, &weight), "{rows} {n} {k}");
    }
}

/// Equal signs everywhere give the largest sums there are: nothing saturates on the way.
#[test]
fn the_largest_sums_are_exact() {
    let (rows, n, k) = (3, 20, 1200);
    let sign = |i: usize| if (i / k).is_multiple_of(2) { 1.5 } else { -1.5 };
    let x: Vec<f32> = (0..rows * k).map(sign).collect();
    let weight: Vec<f32> = (0..n * k).map(sign).collect();
    let packed = PackedLinear::pack_i8(n, k, &weight).unwrap();
    let y = everywhere(|set| linear(set, rows, &x, &packed));
    assert_eq!(bits(&y), exact(rows, [n, k], &x, &weight));
}

#[test]
fn rows_do_not_depend_on_the_others() {
    rows_stand_alone(|n, k, weight| PackedLinear::pack_i8(n, k, weight).unwrap());
}

/// Bias, activation and gated residual round as they do behind a product in f32.
#[test]
fn epilogues_follow_the_scaled_sums() {
    let (rows, n, k) = (20, 37, 130);
    let (x, weight, bias) = (values(rows * k, 1), values(n * k, 2), values(n, 3));
    let (residual, mods) = (values(rows * n, 4), values(2 * n, 5));
    let packed = PackedLinear::pack_i8(n, k, &weight).unwrap();
    let plain = linear(instruction_set(), rows, &x, &packed);
    let segments = [
        GateSegment { rows: 4, gate: n },
        GateSegment { rows: 6, gate: 0 },
    ];
    let epilogue = LinearEpilogue::Residual {
        residual: Input::Apart(&residual),
        gate: Some(LinearGate {
            mods: Mods {
                data: &mods,
                stride: 0,
            },
            batch: 2,
            segments: &segments,
        }),
    };
    let y = everywhere(|set| fused(set, rows, &x, &packed, Some(&bias), epilogue));
    for (i, y) in y.into_iter().enumerate() {
        let (row, column) = (i / n, i % n);
        let gate = mods[if row % 10 < 4 { n } else { 0 } + column];
        assert_eq!(y, residual[i] + gate * (plain[i] + bias[column]));
    }
}

#[test]
fn rows_without_a_scale() {
    let k = 70;
    let weight = values(3 * k, 2);
    let packed = PackedLinear::pack_i8(3, k, &weight).unwrap();
    let row = |special: f32| {
        let mut x = values(k, 1);
        x[41] = special;
        x
    };
    let ordinary = row(0.5);
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = [row(special), ordinary.clone()].concat();
        let y = everywhere(|set| linear(set, 2, &x, &packed));
        assert!(y[..3].iter().all(|v| v.is_nan()));
        assert_eq!(bits(&y[3..]), exact(1, [3, k], &ordinary, &weight));
    }
    let tiny: Vec<f32> = ordinary.iter().map(|v| v * 1e-38).collect();
    for x in [vec![0.0; k], tiny] {
        assert_eq!(everywhere(|set| linear(set, 1, &x, &packed)), [0.0; 3]);
    }
    let broken = [ordinary.clone(), row(f32::NAN)].concat();
    let packed = PackedLinear::pack_i8(2, k, &broken).unwrap();
    let y = everywhere(|set| linear(set, 1, &ordinary, &packed));
    assert!(y[0].is_finite() && y[1].is_nan());
}

#[test]
fn a_packed_weight_takes_a_quarter_of_the_memory() {
    let weight = values(64 * 512, 1);
    let whole = PackedLinear::pack(64, 512, &weight).unwrap().bytes();
    let quarter = PackedLinear::pack_i8(64, 512, &weight).unwrap().bytes();
    // A factor and a correction for each row of the weight.
    assert_eq!(quarter, whole / 4 + 64 * 8);
}

#[test]
fn too_many_terms_are_refused() {
    let k = 133_145;
    let found = PackedLinear::pack_i8(1, k, &vec![0.0; k])
        .map(drop)
        .unwrap_err();
    let expected = KernelError::Argument {
        kernel: "linear",
        argument: "k",
        expected: "at most 133144 in integers of 8 bits".to_owned(),
        found: k.to_string(),
    };
    assert_eq!(found, expected);
    let k = k - 1;
    let packed = PackedLinear::pack_i8(1, k, &vec![1.0; k]).unwrap();
    let y = everywhere(|set| linear(set, 1, &vec![-1.0; k], &packed));
    let largest = (127 * 127 * k) as f32;
    assert_eq!(y, [-largest * (1.0 / 127.0) * (1.0 / 127.0)]);
}
