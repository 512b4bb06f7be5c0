//! Products of weights in bf16 against f64 arithmetic over rounded operands, on every instruction set,
//! in pools of 1, 2 and 3 threads.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, everywhere, linear, rows_stand_alone, values};
use terrace_kernels::cpu::*;

/// The nearest bf16, ties to even, by comparing both neighbours.
fn nearest(x: f32) -> f32 {
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let above = f32::from_bits((x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
    let (down, up) = ((x - below).abs(), (above - x).abs());
    let even = below.to_bits() & 0x1_0000 == 0;
    if down < up || (down == up && even) {
        below
    } else {
        above
    }
}

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&v| nearest(v)).collect()
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
        let packed = PackedLinear::pack_bf16(n, k, &weight).unwrap();
        let y = everywhere(|set| linear(set, rows, &x, &packed));
        let (x, weight) = (rounded(&x), rounded(&weight));
        let mut expected = Vec::new();
        for (row, column) in (0..rows).flat_map(|r| (0..n).map(move |c| (r, c))) {
            let terms = std::iter::zip(&x[row * k..][..k], &weight[column * k..][..k]);
            expected.push(terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
        }
        close(&y, &expected, 2e-5);
    }
}

#[test]
fn rows_do_not_depend_on_the_others() {
    rows_stand_alone(|n, k, weight| PackedLinear::pack_bf16(n, k, weight).unwrap());
}

#[test]
fn a_packed_weight_takes_half_the_memory() {
    let weight = values(64 * 512, 1);
    let whole = PackedLinear::pack(64, 512, &weight).unwrap().bytes();
    let half = PackedLinear::pack_bf16(64, 512, &weight).unwrap().bytes();
    assert_eq!(whole, 2 * half);
    // In f32 a kernel of 3 x 3 pixels is packed as 4 x 4 of their combinations.
    let kernel = [3, 1, 5];
    let weight = values(16 * 32 * 15, 1);
    let whole = PackedConv3d::pack(16, 32, kernel, &weight).unwrap().bytes();
    let half = PackedConv3d::pack_bf16(16, 32, kernel, &weight)
        .unwrap()
        .bytes();
    assert_eq!(whole, 2 * half);
}

/// A product with 1 shows what an operand was rounded to.
#[test]
fn operands_are_rounded_to_the_nearest() {
    let half = 2f32.powi(-8);
    let ties = [1.0 + half, 1.0 + 3.0 * half, -1.0 - half, -1.0 - 3.0 * half];
    let ordinary = values(100, 1);
    let x: Vec<f32> = ties.iter().chain(&ordinary).copied().collect();
    let n = x.len();
    let one = PackedLinear::pack_bf16(1, 1, &[1.0]).unwrap();
    let weight = PackedLinear::pack_bf16(n, 1, &x).unwrap();
    assert_eq!(everywhere(|set| linear(set, n, &x, &one)), rounded(&x));
    assert_eq!(
        everywhere(|set| linear(set, 1, &[1.0], &weight)),
        rounded(&x)
    );

    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
    let infinite = f32::INFINITY;
    for set in InstructionSet::available() {
        let y = linear(set, 4, &special, &one);
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [infinite, -infinite, infinite]);
        let tiny = [1e-39, -1e-39, f32::MIN_POSITIVE, -f32::MIN_POSITIVE];
        let y = linear(set, 4, &tiny, &one);
        assert_eq!(y, [0.0, 0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE]);
    }
}

/// A 1 x 1 x 1 convolution is the product of its pixels, and a larger one the sum over its taps.
#[test]
fn convolutions_round_as_products_do() {
    let (pixels, cin, cout) = (15, 37, 20);
    let (x, weight) = (values(pixels * cin, 1), values(cout * cin, 2));
    let conv = |x: &[f32], weight: &PackedConv3d, set| {
        let mut y = vec![f32::NAN; pixels * cout];
        Conv3d {
            batch: 1,
            frames: 1,
            height: 3,
            width: 5,
            x,
            cache: None,
            weight,
            bias: None,
            residual: None,
            y: &mut y,
        }
        .run_with(set)
        .unwrap();
        y
    };
    let packed = PackedConv3d::pack_bf16(cout, cin, [1, 1, 1], &weight).unwrap();
    let y = everywhere(|set| conv(&x, &packed, set));
    let product = PackedLinear::pack_bf16(cout, cin, &weight).unwrap();
    let expected = linear(instruction_set(), pixels, &x, &product);
    assert_eq!(bits(&y), bits(&expected));

    let weight = values(cout * cin * 27, 3);
    let packed = PackedConv3d::pack_bf16(cout, cin, [3, 3, 3], &weight).unwrap();
    let y = everywhere(|set| conv(&x, &packed, set));
    let whole = PackedConv3d::pack(cout, cin, [3, 3, 3], &rounded(&weight)).unwrap();
    let expected = conv(&rounded(&x), &whole, instruction_set());
    let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
    close(&y, &expected, 2e-5);
}
