//! Products by cublasLt: epilogues, and rows that do not depend on how many there are.

use crate::common::values;
use crate::gpu::{FLOATS, close, get, gpu, multiply, poison, put, rounded};
use terrace_kernels::cuda::{
    DeviceAddress, Factors, Float, ProductEpilogue, ProductKind, ProductOperands, WORKSPACE,
};

const K: usize = 192;
const N: usize = 136;

const EPILOGUES: [ProductEpilogue; 4] = [
    ProductEpilogue::None,
    ProductEpilogue::Bias,
    ProductEpilogue::GeluTanh,
    ProductEpilogue::BiasGeluTanh,
];

/// Numbers that give products near 1.
fn operands(float: Float, rows: usize) -> [Vec<f32>; 3] {
    let scaled = |len, seed, by: f32| {
        let values: Vec<f32> = values(len, seed).iter().map(|x| x * by).collect();
        rounded(float, &values)
    };
    [
        scaled(rows * K, 1, 1.0),
        scaled(N * K, 2, 0.1),
        scaled(N, 3, 1.0),
    ]
}

fn expected(epilogue: ProductEpilogue, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let row = |x: &[f32]| -> Vec<f32> {
        let each = weight.chunks(K).zip(bias);
        each.map(|(w, &bias)| {
            let sum: f64 = x
                .iter()
                .zip(w)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            let biased = sum + f64::from(bias);
            let value = match epilogue {
                ProductEpilogue::None => sum,
                ProductEpilogue::Bias => biased,
                ProductEpilogue::GeluTanh => gelu_tanh(sum),
                ProductEpilogue::BiasGeluTanh => gelu_tanh(biased),
            };
            value as f32
        })
        .collect()
    };
    x.chunks(K).flat_map(row).collect()
}

/// The tanh form; the other one differs by up to 5e-4, which f32 shows.
fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

/// The first `rows` rows of the product.
fn product(float: Float, epilogue: ProductEpilogue, rows: usize, from: &[Vec<f32>; 3]) -> Vec<f32> {
    let [x, weight, bias] = from.each_ref().map(|values| put(float, values));
    let y = poison(float, rows * N);
    let workspace = gpu().allocate("scratch", WORKSPACE).unwrap();
    let kind = ProductKind {
        k: K,
        n: N,
        factors: Factors::OfResult,
        element: float,
        epilogue,
    };
    let with_bias = match epilogue {
        ProductEpilogue::None | ProductEpilogue::GeluTanh => DeviceAddress(0),
        ProductEpilogue::Bias | ProductEpilogue::BiasGeluTanh => bias.address(),
    };
    let operands = ProductOperands {
        x: x.address(),
        weight: weight.address(),
        bias: with_bias,
        y: y.address(),
        scales: None,
        workspace: workspace.address(),
    };
    // SAFETY: all operands are allocated until the product is there, and nobody else knows them.
    unsafe { multiply(kind, rows, operands) };
    get(float, &y)
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn products_and_epilogues_are_those_of_the_host() {
    for float in FLOATS {
        for epilogue in EPILOGUES {
            for rows in [1, 33, 300] {
                let from = operands(float, rows);
                let [x, weight, bias] = &from;
                let what = format!("{epilogue:?} of {rows} rows");
                let found = product(float, epilogue, rows, &from);
                close(float, &what, &found, &expected(epilogue, x, weight, bias));
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn the_bits_of_a_row_do_not_depend_on_the_number_of_rows() {
    for float in FLOATS {
        let from = operands(float, 3000);
        let all = product(float, ProductEpilogue::Bias, 3000, &from);
        for rows in [1, 2, 67, 1500] {
            let part = product(float, ProductEpilogue::Bias, rows, &from);
            let same = part
                .iter()
                .zip(&all)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{rows} of 3000 rows in {float}");
        }
    }
}
