//! Attention against f64 arithmetic written here, on every instruction set, in pools of 1, 2 and 3
//! threads, with strides, cut into pieces, and in steps.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, same_in_all_pools, values};
use terrace_kernels::cpu::*;

/// Sizes of a case.
#[derive(Clone, Copy)]
struct Case {
    batch: usize,
    heads: usize,
    q_rows: usize,
    kv_rows: usize,
    dim: usize,
    products: AttentionProducts,
}

/// Operands `[batch, rows, heads, dim]` and an optional bias.
struct Operands {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn operands(&self, biased: impl Fn(usize) -> Option<Vec<f32>>) -> Operands {
        let len = |rows| self.batch * rows * self.heads * self.dim;
        Operands {
            q: values(len(self.q_rows), 1)
                .iter()
                .map(|v| v * 4.0)
                .collect(),
            k: values(len(self.kv_rows), 2)
                .iter()
                .map(|v| v * 4.0)
                .collect(),
            v: values(len(self.kv_rows), 3),
            bias: biased(self.heads * self.q_rows * self.kv_rows),
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    fn dense<'a>(&self, data: &'a [f32], rows: usize) -> HeadsView<'a> {
        HeadsView {
            data,
            batch_stride: rows * self.heads * self.dim,
            row_stride: self.heads * self.dim,
            head_stride: self.dim,
        }
    }

    fn dense_mut<'a>(&self, data: &'a mut [f32]) -> HeadsViewMut<'a> {
        HeadsViewMut {
            data,
            batch_stride: self.q_rows * self.heads * self.dim,
            row_stride: self.heads * self.dim,
            head_stride: self.dim,
        }
    }

    fn naive(&self, operands: &Operands) -> Vec<f64> {
        let Case {
            heads, q_rows, dim, ..
        } = *self;
        let mut y = Vec::new();
        for b in 0..self.batch {
            for row in 0..q_rows {
                for head in 0..heads {
                    let q = &operands.q[((b * q_rows + row) * heads + head) * dim..][..dim];
                    y.extend(self.naive_row(operands, [b, row, head], q));
                }
            }
        }
        y
    }

    fn naive_row(&self, operands: &Operands, [b, row, head]: [usize; 3], q: &[f32]) -> Vec<f64> {
        let (heads, kv_rows, dim) = (self.heads, self.kv_rows, self.dim);
        let key = |key: usize| ((b * kv_rows + key) * heads + head) * dim;
        let score = |index: usize| {
            let k = &operands.k[key(index)..][..dim];
            let dot: f64 = std::iter::zip(q, k)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            let bias = operands.bias.as_ref().map_or(0.0, |bias| {
                f64::from(bias[(head * self.q_rows + row) * kv_rows + index])
            });
            dot * f64::from(self.scale()) + bias
        };
        let scores: Vec<f64> = (0..kv_rows).map(score).collect();
        let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - maximum).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut y = vec![0.0; dim];
        for (index, weight) in weights.iter().enumerate() {
            for (y, &v) in y.iter_mut().zip(&operands.v[key(index)..][..dim]) {
                *y += weight * f64::from(v) / total;
            }
        }
        y
    }

    fn run(&self, operands: &Operands, set: InstructionSet) -> Vec<f32> {
        let mut y = vec![f32::NAN; operands.q.len()];
        Attention {
            batch: self.batch,
            heads: self.heads,
            q_rows: self.q_rows,
            kv_rows: self.kv_rows,
            head_dim: self.dim,
            scale: self.scale(),
            products: self.products,
            q: self.dense(&operands.q, self.q_rows),
            k: self.dense(&operands.k, self.kv_rows),
            v: self.dense(&operands.v, self.kv_rows),
            bias: operands.bias.as_deref(),
            y: self.dense_mut(&mut y),
        }
        .run_with(set)
        .unwrap();
        y
    }
}

fn case(batch: usize, heads: usize, q_rows: usize, kv_rows: usize, dim: usize) -> Case {
    Case {
        batch,
        heads,
        q_rows,
        kv_rows,
        dim,
        products: AttentionProducts::F32,
    }
}

#[test]
fn attention_of_many_shapes_matches_f64() {
    let cases = [
        case(1, 1, 1, 1, 1),
        case(2, 3, 7, 5, 64),
        case(1, 2, 43, 64, 64),
        case(1, 2, 300, 65, 16),
        case(2, 1, 15, 200, 40),
        case(1, 1, 20, 130, 100),
        case(1, 5, 33, 127, 128),
        case(1, 1, 9, 70, 200),
        case(1, 2, 4, 0, 8),
    ];
    for case in cases {
        for biased in [false, true] {
            let bias = |n| biased.then(|| values(n, 4).iter().map(|v| v * 3.0).collect());
            let operands = case.operands(bias);
            let mut expected = case.naive(&operands);
            if case.kv_rows == 0 {
                expected.fill(0.0);
            }
            let mut fused: Option<Vec<u32>> = None;
            for set in InstructionSet::available() {
                let y = same_in_all_pools(|| bits(&case.run(&operands, set)));
                let found: Vec<f32> = y.iter().map(|&v| f32::from_bits(v)).collect();
                close(&found, &expected, 4e-6);
                if set.name() != "portable" {
                    assert_eq!(fused.get_or_insert_with(|| y.clone()), &y, "{set}");
                }
            }
        }
    }
}

/// Masked keys weigh nothing, and scores far apart neither overflow nor give NaN.
#[test]
fn extreme_scores_stay_finite() {
    let case = case(1, 1, 3, 150, 16);
    let mut operands = case.operands(|n| Some(values(n, 4).iter().map(|v| v * 300.0).collect()));
    let expected = case.naive(&operands);
    for set in InstructionSet::available() {
        close(&case.run(&operands, set), &expected, 4e-5);
    }
    for bias in operands.bias.as_mut().unwrap().chunks_exact_mut(150) {
        bias[..100].fill(f32::NEG_INFINITY);
    }
    let expected = case.naive(&operands);
    for set in InstructionSet::available() {
        close(&case.run(&operands, set), &expected, 4e-5);
    }
}

/// A NaN in one key reaches every row that sees it.
#[test]
fn nan_is_not_swallowed() {
    let case = case(1, 2, 8, 70, 16);
    let mut operands = case.operands(|_| None);
    operands.k[0] = f32::NAN;
    for set in InstructionSet::available() {
        let y = case.run(&operands, set);
        for row in y.chunks_exact(32) {
            assert!(row[..16].iter().all(|v| v.is_nan()));
            assert!(row[16..].iter().all(|v| v.is_finite()));
        }
    }
}

/// Packed qkv, other strides, fewer rows and fewer heads: the bits stay those of the dense whole.
#[test]
fn rows_and_heads_do_not_depend_on_the_others() {
    let case = case(2, 4, 301, 301, 64);
    let operands = case.operands(|_| None);
    let set = instruction_set();
    let whole = case.run(&operands, set);
    let Case {
        heads, q_rows, dim, ..
    } = case;
    let width = heads * dim;
    let mut qkv = Vec::new();
    for row in 0..case.batch * q_rows {
        for part in [&operands.q, &operands.k, &operands.v] {
            qkv.extend_from_slice(&part[row * width..][..width]);
        }
    }
    let packed = |first: usize| HeadsView {
        data: &qkv[first..],
        batch_stride: q_rows * 3 * width,
        row_stride: 3 * width,
        head_stride: dim,
    };
    for (row, rows, head, count) in [(0, 301, 0, 4), (0, 1, 0, 4), (299, 2, 3, 1), (5, 100, 1, 2)] {
        // Heads outermost in the output, with a gap behind each.
        let (head_stride, batch_stride) = (rows * dim + 3, count * (rows * dim + 3));
        let mut y = vec![f32::NAN; 2 * batch_stride];
        Attention {
            batch: 2,
            heads: count,
            q_rows: rows,
            kv_rows: case.kv_rows,
            head_dim: dim,
            scale: case.scale(),
            products: case.products,
            q: packed(row * 3 * width + head * dim),
            k: packed(width + head * dim),
            v: packed(2 * width + head * dim),
            bias: None,
            y: HeadsViewMut {
                data: &mut y,
                batch_stride,
                row_stride: dim,
                head_stride,
            },
        }
        .run()
        .unwrap();
        for (b, r, h) in (0..2)
            .flat_map(|b| (0..rows).map(move |r| (b, r, 0)))
            .flat_map(|(b, r, _)| (0..count).map(move |h| (b, r, h)))
        {
            let found = &y[b * batch_stride + h * head_stride + r * dim..][..dim];
            let expected = &whole[((b * q_rows + row + r) * heads + head + h) * dim..][..dim];
            assert_eq!(bits(found), bits(expected));
        }
        let gaps = y.chunks_exact(head_stride).flat_map(|c| &c[rows * dim..]);
        assert!(gaps.clone().count() == 2 * count * 3 && gaps.into_iter().all(|v| v.is_nan()));
    }
}

/// Attention in steps over key ranges of the given lengths, then the finish.
fn in_steps(case: Case, operands: &Operands, lengths: &[usize]) -> Vec<f32> {
    let Case {
        batch,
        heads,
        q_rows,
        dim,
        ..
    } = case;
    let mut state = vec![f32::NAN; batch * q_rows * heads * (dim + 2)];
    let mut first = 0;
    for (step, &kv_rows) in lengths.iter().enumerate() {
        let block = |data| {
            let whole = case.dense(data, case.kv_rows);
            HeadsView {
                data: &data[(first * whole.row_stride).min(data.len())..],
                ..whole
            }
        };
        AttentionStep {
            batch,
            heads,
            q_rows,
            kv_rows,
            head_dim: dim,
            scale: case.scale(),
            products: case.products,
            q: case.dense(&operands.q, q_rows),
            k: block(&operands.k),
            v: block(&operands.v),
            stage: if step == 0 {
                StepStage::First
            } else {
                StepStage::Next
            },
            state: &mut state,
        }
        .run()
        .unwrap();
        first += kv_rows;
    }
    let mut y = vec![f32::NAN; operands.q.len()];
    AttentionFinish {
        rows: batch * q_rows,
        heads,
        head_dim: dim,
        state: &state,
        y: &mut y,
    }
    .run()
    .unwrap();
    y
}

#[test]
fn steps_equal_the_whole() {
    let case = case(2, 3, 50, 300, 24);
    let operands = case.operands(|_| None);
    let whole = case.run(&operands, instruction_set());
    for lengths in [&[300][..], &[96, 0, 192, 12], &[0, 192, 108]] {
        let y = same_in_all_pools(|| bits(&in_steps(case, &operands, lengths)));
        assert_eq!(y, bits(&whole), "{lengths:?}");
    }
    let expected = case.naive(&operands);
    for lengths in [&[1, 299][..], &[100, 0, 100, 100], &[37, 200, 63]] {
        close(&in_steps(case, &operands, lengths), &expected, 4e-6);
    }
    let none = in_steps(case, &operands, &[0, 0]);
    assert!(none.iter().all(|&v| v == 0.0));
}

#[test]
fn no_query_rows_run() {
    let case = case(1, 2, 0, 30, 8);
    let operands = case.operands(|_| None);
    assert!(in_steps(case, &operands, &[30]).is_empty());
    assert!(case.run(&operands, instruction_set()).is_empty());
}

/// The nearest bf16 of every element.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&v| half(v)).collect()
}

/// The nearest bf16 of an ordinary number, ties to even.
fn half(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// Shapes whose scale is a power of two, so that rounding before and after scaling is the same; odd
/// numbers of channels and keys.
fn rounded_cases() -> [Case; 6] {
    let cases = [
        case(2, 3, 7, 5, 64),
        case(1, 2, 43, 97, 64),
        case(1, 2, 300, 65, 16),
        case(2, 1, 15, 200, 4),
        case(1, 1, 9, 131, 1),
        case(1, 1, 50, 96, 256),
    ];
    cases.map(|case| Case {
        products: AttentionProducts::Bf16,
        ..case
    })
}

#[test]
fn rounded_attention_is_that_of_rounded_operands() {
    for case in rounded_cases() {
        let operands = case.operands(|n| Some(values(n, 4)));
        let nearest = Operands {
            q: rounded(&operands.q),
            k: rounded(&operands.k),
            v: rounded(&operands.v),
            bias: operands.bias.clone(),
        };
        let expected = case.naive(&nearest);
        let mut fused: Option<Vec<u32>> = None;
        for set in InstructionSet::available() {
            let y = same_in_all_pools(|| bits(&case.run(&operands, set)));
            assert_eq!(bits(&case.run(&nearest, set)), y, "{set}");
            let found: Vec<f32> = y.iter().map(|&v| f32::from_bits(v)).collect();
            // What is left is the rounding of the weights, by one in 512 at most.
            close(&found, &expected, 1.0 / 512.0);
            let whole = Case {
                products: AttentionProducts::F32,
                ..case
            };
            assert_ne!(bits(&whole.run(&nearest, set)), y, "{set}");
            if set.name() != "portable" {
                assert_eq!(fused.get_or_insert_with(|| y.clone()), &y, "{set}");
            }
        }
    }
}

/// One key weighs 1, two keys of equal score 1/2 each: the result shows what values are rounded to.
#[test]
fn values_are_rounded_to_the_nearest() {
    for case in [1, 2].map(|keys| case(1, 1, 3, keys, 33)) {
        let case = Case {
            products: AttentionProducts::Bf16,
            ..case
        };
        let mut operands = case.operands(|_| None);
        operands.q.fill(0.0);
        let v = rounded(&operands.v);
        for set in InstructionSet::available() {
            for row in case.run(&operands, set).chunks_exact(33) {
                for (channel, y) in row.iter().enumerate() {
                    let sum: f32 = v.iter().skip(channel).step_by(33).sum();
                    assert_eq!(*y, sum / case.kv_rows as f32, "{set}");
                }
            }
        }
    }
}

#[test]
fn rounded_steps_equal_the_whole() {
    let case = Case {
        products: AttentionProducts::Bf16,
        ..case(2, 3, 50, 301, 23)
    };
    let operands = case.operands(|_| None);
    let whole = case.run(&operands, instruction_set());
    for lengths in [&[301][..], &[96, 0, 192, 13], &[0, 192, 109]] {
        let y = same_in_all_pools(|| bits(&in_steps(case, &operands, lengths)));
        assert_eq!(y, bits(&whole), "{lengths:?}");
    }
    let expected = case.naive(&operands);
    for lengths in [&[1, 300][..], &[37, 200, 64]] {
        close(&in_steps(case, &operands, lengths), &expected, 2e-2);
    }
}
