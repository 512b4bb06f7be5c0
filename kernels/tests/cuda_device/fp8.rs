//! Products in FP8 by cublasLt: codes and scales on both sides, and rows that do not depend on how many there
//! are.

use crate::common::values;
use crate::gpu::{close, get, gpu, multiply, poison, put, rounded};
use terrace_kernels::cuda::{
    DeviceMemory, Factors, Float, ProductEpilogue, ProductKind, ProductOperands, Scales, WORKSPACE,
};
use terrace_kernels::f8e4m3::{code, nearest, scale};

const K: usize = 192;
const N: usize = 144;
/// Types of results.
const RESULTS: [Float; 2] = [Float::F16, Float::Bf16];

/// Rows as they are rounded, and their scales.
struct Rounded {
    numbers: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Rounded {
    fn of(data: &[f32]) -> Self {
        let (mut numbers, mut codes, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        for row in data.chunks(K) {
            let scale = scale(row);
            numbers.extend(row.iter().map(|x| nearest(x * scale.inverse)));
            codes.extend(row.iter().map(|x| code(x * scale.inverse)));
            scales.push(scale.factor);
        }
        Self {
            numbers,
            codes,
            scales,
        }
    }

    fn upload(&self) -> [DeviceMemory; 2] {
        let mut codes = gpu().allocate("a test", self.codes.len()).unwrap();
        codes.fill(&self.codes).unwrap();
        [codes, put(Float::F32, &self.scales)]
    }
}

/// Rows of different sizes, a weight, a bias.
fn operands(float: Float, rows: usize) -> [Vec<f32>; 3] {
    let mut x = values(rows * K, 1);
    for (row, x) in x.chunks_mut(K).enumerate() {
        x.iter_mut().for_each(|x| *x *= 1.0 + (row % 7) as f32);
    }
    let weight = values(N * K, 2).iter().map(|x| x * 0.1).collect();
    [x, weight, rounded(float, &values(N, 3))]
}

/// The first `rows` rows of the product with its bias.
fn product(float: Float, rows: usize, from: &[Vec<f32>; 3]) -> Vec<f32> {
    let [x, weight, bias] = from;
    let [x, x_scales] = Rounded::of(x).upload();
    let [weight, weight_scales] = Rounded::of(weight).upload();
    let (bias, y) = (put(float, bias), poison(float, rows * N));
    let workspace = gpu().allocate("scratch", WORKSPACE).unwrap();
    let kind = ProductKind {
        k: K,
        n: N,
        factors: Factors::F8E4M3,
        element: float,
        epilogue: ProductEpilogue::Bias,
    };
    let operands = ProductOperands {
        x: x.address(),
        weight: weight.address(),
        bias: bias.address(),
        y: y.address(),
        scales: Some(Scales {
            x: x_scales.address(),
            weight: weight_scales.address(),
        }),
        workspace: workspace.address(),
    };
    // SAFETY: all operands are allocated until the product is there, and nobody else knows them.
    unsafe { multiply(kind, rows, operands) };
    get(float, &y)
}

fn expected(from: &[Vec<f32>; 3]) -> Vec<f32> {
    let [x, weight, bias] = from;
    let (x, weight) = (Rounded::of(x), Rounded::of(weight));
    let mut y = Vec::new();
    for (row, of_row) in x.numbers.chunks(K).zip(&x.scales) {
        let columns = weight.numbers.chunks(K).zip(&weight.scales).zip(bias);
        y.extend(columns.map(|((column, of_column), bias)| {
            let terms = row.iter().zip(column);
            let sum: f64 = terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            (sum * f64::from(*of_row) * f64::from(*of_column) + f64::from(*bias)) as f32
        }));
    }
    y
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn scaled_products_are_those_of_the_host() {
    for float in RESULTS {
        for rows in [1, 33, 300] {
            let from = operands(float, rows);
            let found = product(float, rows, &from);
            close(float, &format!("{rows} rows"), &found, &expected(&from));
        }
    }
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn the_bits_of_a_scaled_row_do_not_depend_on_the_number_of_rows() {
    for float in RESULTS {
        let from = operands(float, 3000);
        let all = product(float, 3000, &from);
        for rows in [1, 2, 67, 1500] {
            let first = [
                from[0][..rows * K].to_vec(),
                from[1].clone(),
                from[2].clone(),
            ];
            let part = product(float, rows, &first);
            let mut pairs = part.iter().zip(&all);
            let same = pairs.all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{rows} of 3000 rows in {float}");
        }
    }
}
