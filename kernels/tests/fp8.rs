//! FP8 (E4M3): all its numbers and all ties between them against a decoder in f64, and products against
//! f64 arithmetic over rounded operands, on every instruction set, in pools of 1, 2 and 3 threads.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, everywhere, fused, linear, rows_stand_alone, values};
use terrace_kernels::cpu::*;
use terrace_kernels::f8e4m3::{LARGEST, code, nearest, scale};

/// What a code without its sign means.
fn number(code: u8) -> f64 {
    let (exponent, fraction) = (i32::from(code >> 3), f64::from(code & 7) / 8.0);
    match exponent {
        0 => fraction * 2f64.powi(-6),
        _ => (1.0 + fraction) * 2f64.powi(exponent - 7),
    }
}

/// Codes of the numbers that are not negative; the last of the 7 bits is NaN.
const CODES: std::ops::Range<u8> = 0..0x7f;

/// The code nearest to a magnitude, ties to even, by comparing with all.
fn nearest_code(magnitude: f64) -> u8 {
    // Distances from far away would all be the same.
    let magnitude = magnitude.min(f64::from(LARGEST));
    let distance = |code: u8| (number(code) - magnitude).abs();
    let closer = |a: u8, b: u8| {
        let even_first = (a & 1).cmp(&(b & 1));
        distance(a).total_cmp(&distance(b)).then(even_first)
    };
    CODES.min_by(|&a, &b| closer(a, b)).unwrap()
}

/// The reference for any number.
fn rounded(x: f32) -> f32 {
    (number(nearest_code(f64::from(x).abs())) as f32).copysign(x)
}

#[test]
fn every_number_is_its_own_nearest() {
    assert_eq!(number(0x7e), f64::from(LARGEST));
    assert_eq!(number(1), 2f64.powi(-9));
    for positive in CODES {
        let x = number(positive) as f32;
        assert_eq!(f64::from(x), number(positive));
        for (x, expected) in [(x, positive), (-x, positive | 0x80)] {
            assert_eq!(nearest(x).to_bits(), x.to_bits(), "{x}");
            assert_eq!(code(x), expected, "{x}");
        }
    }
    for nan in [
        f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0x7fff_ffff),
    ] {
        assert!(nearest(nan).is_nan());
        assert_eq!(code(nan) & 0x7f, 0x7f);
        assert_eq!(code(nan.copysign(-1.0)), 0xff);
    }
}

#[test]
fn halves_go_to_the_even_neighbour() {
    for below in 0..0x7e {
        let [down, up] = [below, below + 1].map(|code| number(code) as f32);
        let half = f64::midpoint(number(below), number(below + 1)) as f32;
        let even = if below % 2 == 0 { down } else { up };
        for (x, expected) in [(half, even), (half.next_down(), down), (half.next_up(), up)] {
            assert_eq!(nearest(x), expected, "{x}");
            assert_eq!(nearest(-x), -expected, "-{x}");
        }
    }
    let tiny = number(1) as f32;
    for (x, expected) in [(0.4 * tiny, 0.0), (f32::MIN_POSITIVE, 0.0), (1e-45, 0.0)] {
        assert_eq!(nearest(x).to_bits(), f32::to_bits(expected), "{x}");
        assert_eq!(nearest(-x).to_bits(), (-0f32).to_bits(), "-{x}");
    }
    for large in [448.1, 463.9, 464.0, 480.0, 1e9, f32::MAX, f32::INFINITY] {
        assert_eq!((nearest(large), nearest(-large)), (LARGEST, -LARGEST));
        assert_eq!((code(large), code(-large)), (0x7e, 0xfe));
    }
}

/// Every number of bf16, which lies on both sides of every tie.
#[test]
fn rounding_finds_the_nearest_of_all_numbers() {
    for high in 0..=u16::MAX {
        let x = f32::from_bits(u32::from(high) << 16);
        if !x.is_nan() {
            assert_eq!(nearest(x).to_bits(), rounded(x).to_bits(), "{x:e}");
            let sign = if x.is_sign_negative() { 0x80 } else { 0 };
            assert_eq!(code(x), nearest_code(f64::from(x).abs()) | sign, "{x:e}");
        }
    }
}

/// A row of the numbers that it is rounded to and what they are multiples of.
fn quantized(row: &[f32]) -> (Vec<f64>, f64) {
    let found = scale(row);
    let largest = row.iter().fold(0f32, |a, v| a.max(v.abs()));
    if largest == 0.0 {
        return (vec![0.0; row.len()], 0.0);
    }
    assert_eq!(
        (found.inverse, found.factor),
        (448.0 / largest, largest / 448.0)
    );
    let number = |v: &f32| f64::from(rounded(v * found.inverse));
    (row.iter().map(number).collect(), f64::from(found.factor))
}

/// The product in f64 over rounded operands.
fn reference(rows: usize, [n, k]: [usize; 2], x: &[f32], weight: &[f32]) -> Vec<f64> {
    let row = |data: &[f32], row: usize| quantized(&data[row * k..][..k]);
    let x: Vec<_> = (0..rows).map(|r| row(x, r)).collect();
    let weight: Vec<_> = (0..n).map(|c| row(weight, c)).collect();
    let mut y = Vec::new();
    for (x, row) in &x {
        for (weight, column) in &weight {
            let sum: f64 = x.iter().zip(weight).map(|(a, b)| a * b).sum();
            y.push(sum * row * column);
        }
    }
    y
}

#[test]
fn products_match_f64_over_rounded_operands() {
    let shapes = [
        (1, 1, 1),
        (3, 17, 2),
        (15, 40, 255),
        (7, 33, 257),
        (170, 50, 300),
        (5, 1100, 513),
        (2, 5, 0),
    ];
    for (rows, n, k) in shapes {
        let (x, weight) = (values(rows * k, 1), values(n * k, 2));
        let packed = PackedLinear::pack_f8e4m3(n, k, &weight).unwrap();
        let y = everywhere(|set| linear(set, rows, &x, &packed));
        close(&y, &reference(rows, [n, k], &x, &weight), 2e-5);
    }
}

/// Short sums of such numbers are exact in f32, so nothing but the scales is rounded.
#[test]
fn short_products_are_exact() {
    let (rows, n, k) = (9, 20, 16);
    let (x, weight) = (values(rows * k, 1), values(n * k, 2));
    // Whole numbers, the largest of every row 448: scales are 1.
    let coarse = |data: &[f32]| -> Vec<f32> {
        let rows = data.chunks(k).map(|row| {
            let numbers = row.iter().map(|v| (v * 8.0).round());
            [448.0f32].into_iter().chain(numbers.skip(1))
        });
        rows.flatten().collect()
    };
    let (x, weight) = (coarse(&x), coarse(&weight));
    let packed = PackedLinear::pack_f8e4m3(n, k, &weight).unwrap();
    let y = everywhere(|set| linear(set, rows, &x, &packed));
    let expected = reference(rows, [n, k], &x, &weight);
    let expected: Vec<f32> = expected.into_iter().map(|y| y as f32).collect();
    assert_eq!(bits(&y), bits(&expected));
}

#[test]
fn rows_do_not_depend_on_the_others() {
    rows_stand_alone(|n, k, weight| PackedLinear::pack_f8e4m3(n, k, weight).unwrap());
}

/// The bias and what follows it see scaled sums.
#[test]
fn epilogues_follow_the_scaled_sums() {
    let (rows, n, k) = (20, 37, 130);
    let (x, weight, bias) = (values(rows * k, 1), values(n * k, 2), values(n, 3));
    let packed = PackedLinear::pack_f8e4m3(n, k, &weight).unwrap();
    let plain = linear(instruction_set(), rows, &x, &packed);
    let y = everywhere(|set| fused(set, rows, &x, &packed, Some(&bias), LinearEpilogue::Silu));
    let sums: Vec<f32> = (0..rows * n).map(|i| plain[i] + bias[i % n]).collect();
    let mut expected = vec![0.0; rows * n];
    silu(Input::Apart(&sums), &mut expected).unwrap();
    assert_eq!(bits(&y), bits(&expected));
}

#[test]
fn rows_without_a_scale() {
    let k = 70;
    let weight = values(3 * k, 2);
    let packed = PackedLinear::pack_f8e4m3(3, k, &weight).unwrap();
    let row = |special: f32| {
        let mut x = values(k, 1);
        x[41] = special;
        x
    };
    let ordinary = row(0.5);
    let expected = reference(1, [3, k], &ordinary, &weight);
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = [row(special), ordinary.clone()].concat();
        for set in InstructionSet::available() {
            let y = linear(set, 2, &x, &packed);
            assert!(y[..3].iter().all(|v| v.is_nan()));
            close(&y[3..], &expected, 2e-5);
        }
    }
    let tiny: Vec<f32> = ordinary.iter().map(|v| v * 1e-37).collect();
    for x in [vec![0.0; k], tiny] {
        assert_eq!(everywhere(|set| linear(set, 1, &x, &packed)), [0.0; 3]);
    }
    // The smallest rows that are scaled, and the largest.
    for factor in [1e-34, 1e30] {
        let x: Vec<f32> = ordinary.iter().map(|v| v * factor).collect();
        let y = everywhere(|set| linear(set, 1, &x, &packed));
        let y: Vec<f32> = y.iter().map(|v| v / factor).collect();
        close(&y, &expected, 2e-3);
    }
    let broken = [ordinary.clone(), row(f32::NAN)].concat();
    let packed = PackedLinear::pack_f8e4m3(2, k, &broken).unwrap();
    for set in InstructionSet::available() {
        let y = linear(set, 1, &ordinary, &packed);
        assert!(y[0].is_finite() && y[1].is_nan());
    }
}

#[test]
fn a_packed_weight_takes_the_memory_of_bf16() {
    let weight = values(64 * 512, 1);
    let half = PackedLinear::pack_bf16(64, 512, &weight).unwrap().bytes();
    let packed = PackedLinear::pack_f8e4m3(64, 512, &weight).unwrap();
    // A factor for each row of the weight.
    assert_eq!(packed.bytes(), half + 64 * 4);
}
