//! The matrix product against f64 arithmetic written here, on every instruction set, in pools of 1, 2
//! and 3 threads, and cut into pieces.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, same_in_all_pools, values};
use terrace_kernels::cpu::*;

fn naive(rows: usize, n: usize, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let k = weight.len().checked_div(n).unwrap_or(0);
    let mut y = Vec::with_capacity(rows * n);
    for row in 0..rows {
        for column in 0..n {
            let terms = std::iter::zip(&x[row * k..][..k], &weight[column * k..][..k]);
            let sum: f64 = terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            y.push(sum + bias.map_or(0.0, |b| f64::from(b[column])));
        }
    }
    y
}

/// Runs on every instruction set, in pools of several sizes; the fused ones must agree to the bit.
fn everywhere(run: impl Fn(InstructionSet) -> Vec<f32> + Sync, expected: &[f64], tolerance: f64) {
    let mut fused: Option<Vec<u32>> = None;
    for set in InstructionSet::available() {
        let y = same_in_all_pools(|| bits(&run(set)));
        let values: Vec<f32> = y.iter().map(|&v| f32::from_bits(v)).collect();
        close(&values, expected, tolerance);
        if set.name() != "portable" {
            assert_eq!(fused.get_or_insert_with(|| y.clone()), &y, "{set}");
        }
    }
}

#[test]
fn products_of_many_shapes_match_f64() {
    let shapes = [
        (1, 1, 1),
        (1, 16, 16),
        (5, 17, 3),
        (6, 32, 256),
        (7, 33, 257),
        (14, 48, 300),
        (15, 1, 513),
        (169, 40, 64),
        (337, 1100, 70),
        (2, 1100, 70),
        (3, 2100, 33),
        (2, 5, 0),
    ];
    for (rows, n, k) in shapes {
        let (x, weight, bias) = (values(rows * k, 1), values(n * k, 2), values(n, 3));
        let packed = PackedLinear::pack(n, k, &weight).unwrap();
        assert_eq!((packed.n(), packed.k()), (n, k));
        for bias in [None, Some(&bias[..])] {
            let run = |set| {
                let mut y = vec![f32::NAN; rows * n];
                Linear {
                    rows,
                    x: &x,
                    weight: &packed,
                    bias,
                    epilogue: LinearEpilogue::None,
                    y: &mut y,
                }
                .run_with(set)
                .unwrap();
                y
            };
            everywhere(run, &naive(rows, n, &x, &weight, bias), 2e-5);
        }
    }
}

fn run_once(x: &[f32], weight: &PackedLinear, epilogue: LinearEpilogue<'_>, y: &mut [f32]) {
    Linear {
        rows: y.len() / weight.n(),
        x,
        weight,
        bias: None,
        epilogue,
        y,
    }
    .run()
    .unwrap();
}

#[test]
fn epilogues_match_f64() {
    let (rows, n, k) = (21, 50, 40);
    let (x, weight) = (values(rows * k, 1), values(n * k, 2));
    let packed = PackedLinear::pack(n, k, &weight).unwrap();
    let plain = naive(rows, n, &x, &weight, None);
    let with = |epilogue, start: &[f32]| {
        let mut y = start.to_vec();
        run_once(&x, &packed, epilogue, &mut y);
        y
    };
    let nan = vec![f32::NAN; rows * n];
    let tanh_form = |v: f64| {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        0.5 * v * (1.0 + (root * (v + 0.044715 * v.powi(3))).tanh())
    };
    let expected: Vec<f64> = plain.iter().map(|&v| tanh_form(v)).collect();
    close(&with(LinearEpilogue::GeluTanh, &nan), &expected, 1e-5);
    let mut separate = vec![f32::NAN; rows * n];
    gelu(
        Input::Apart(&with(LinearEpilogue::None, &nan)),
        &mut separate,
    )
    .unwrap();
    assert_eq!(bits(&with(LinearEpilogue::Gelu, &nan)), bits(&separate));
    let expected: Vec<f64> = plain.iter().map(|&v| v / (1.0 + (-v).exp())).collect();
    close(&with(LinearEpilogue::Silu, &nan), &expected, 1e-5);

    let residual = values(rows * n, 4);
    let apart = LinearEpilogue::Residual {
        residual: Input::Apart(&residual),
        gate: None,
    };
    let sum = with(apart, &nan);
    let expected: Vec<f64> = std::iter::zip(&plain, &residual)
        .map(|(v, &r)| v + f64::from(r))
        .collect();
    close(&sum, &expected, 1e-5);
    let in_place = LinearEpilogue::Residual {
        residual: Input::InPlace,
        gate: None,
    };
    assert_eq!(bits(&with(in_place, &residual)), bits(&sum));
}

/// The fused gate has the bits of a product followed by the gate kernel.
#[test]
fn a_fused_gate_equals_a_gate_behind() {
    let (batch, n, k) = (3, 37, 300);
    let segments = [(2, 40), (0, 0), (5, 3)].map(|(rows, gate)| GateSegment { rows, gate });
    let rows = batch * 7;
    let data = values(300, 5);
    let mods = Mods {
        data: &data,
        stride: 100,
    };
    let (x, weight, residual) = (values(rows * k, 1), values(n * k, 2), values(rows * n, 3));
    let packed = PackedLinear::pack(n, k, &weight).unwrap();
    let mut plain = vec![f32::NAN; rows * n];
    run_once(&x, &packed, LinearEpilogue::None, &mut plain);
    let mut expected = vec![f32::NAN; rows * n];
    GateAdd {
        batch,
        width: n,
        segments: &segments,
        mods,
        residual: Input::Apart(&residual),
        x: Input::Apart(&plain),
        y: &mut expected,
    }
    .run()
    .unwrap();
    let gate = Some(LinearGate {
        mods,
        batch,
        segments: &segments,
    });
    let mut y = residual.clone();
    let residual = Input::InPlace;
    run_once(
        &x,
        &packed,
        LinearEpilogue::Residual { residual, gate },
        &mut y,
    );
    assert_eq!(bits(&y), bits(&expected));
}

/// Every cut of the rows, and every subset of the columns, has the bits of the whole.
#[test]
fn rows_and_columns_do_not_depend_on_the_others() {
    let (rows, n, k) = (345, 1100, 600);
    let (x, weight) = (values(rows * k, 1), values(n * k, 2));
    let packed = PackedLinear::pack(n, k, &weight).unwrap();
    let mut whole = vec![f32::NAN; rows * n];
    run_once(&x, &packed, LinearEpilogue::None, &mut whole);
    for (first, count) in [(0, 1), (344, 1), (3, 2), (100, 13), (7, 168), (0, 344)] {
        let mut part = vec![f32::NAN; count * n];
        let x = &x[first * k..][..count * k];
        run_once(x, &packed, LinearEpilogue::None, &mut part);
        assert_eq!(bits(&part), bits(&whole[first * n..][..count * n]));
    }
    let (first, count) = (5, 20);
    let some = PackedLinear::pack(count, k, &weight[first * k..][..count * k]).unwrap();
    let mut part = vec![f32::NAN; rows * count];
    run_once(&x, &some, LinearEpilogue::None, &mut part);
    for (part, whole) in part.chunks_exact(count).zip(whole.chunks_exact(n)) {
        assert_eq!(bits(part), bits(&whole[first..][..count]));
    }
}
