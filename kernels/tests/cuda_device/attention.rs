//! Attention by cuDNN: results and log-sum-exp over strided views.

use crate::common::values;
use crate::gpu::{close, get, gpu, poison, put, rounded};
use terrace_kernels::cuda::{
    AttentionOperands, AttentionPlan, CudaFault, DeviceAddress, Dnn, Float, HeadStrides, Priority,
};

const SCALE: f32 = 0.3;

/// Queries, keys and values are the parts of rows `[3][heads][head_dim]`.
fn plan(
    element: Float,
    [batch, heads, rows, head_dim]: [usize; 4],
    with_lse: bool,
) -> AttentionPlan {
    let width = heads * head_dim;
    let packed = HeadStrides {
        batch: 3 * rows * width,
        row: 3 * width,
        head: head_dim,
    };
    let dense = HeadStrides {
        batch: rows * width,
        row: width,
        head: head_dim,
    };
    AttentionPlan {
        element,
        batch,
        heads,
        q_rows: rows,
        kv_rows: rows,
        head_dim,
        strides: [packed, packed, packed, dense],
        with_lse,
    }
}

/// Result `[batch, rows, heads, head_dim]` and log-sum-exp `[batch, heads, rows]`.
fn expected(key: &AttentionPlan, packed: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let AttentionPlan {
        batch,
        heads,
        q_rows: rows,
        head_dim: dim,
        ..
    } = *key;
    let width = heads * dim;
    let of = |part: usize, b: usize, row: usize, head: usize| {
        let at = ((b * rows + row) * 3 + part) * width + head * dim;
        &packed[at..at + dim]
    };
    let (mut y, mut lse) = (vec![0.0; batch * rows * width], Vec::new());
    for (b, head) in (0..batch).flat_map(|b| (0..heads).map(move |head| (b, head))) {
        for row in 0..rows {
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum()
            };
            let q = of(0, b, row, head);
            let scores: Vec<f64> = (0..rows)
                .map(|key| f64::from(SCALE) * dot(q, of(1, b, key, head)))
                .collect();
            let total: f64 = scores.iter().map(|score| score.exp()).sum();
            lse.push(total.ln() as f32);
            let to = (b * rows + row) * width + head * dim;
            for (channel, out) in y[to..to + dim].iter_mut().enumerate() {
                let sum: f64 = (0..rows)
                    .map(|key| scores[key].exp() * f64::from(of(2, b, key, head)[channel]))
                    .sum();
                *out = (sum / total) as f32;
            }
        }
    }
    (y, lse)
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn attention_and_log_sum_exp_are_those_of_the_host() {
    for element in [Float::F16, Float::Bf16] {
        for sizes in [
            [1, 1, 128, 64],
            [2, 3, 77, 64],
            [1, 2, 300, 32],
            [2, 1, 65, 16],
        ] {
            for with_lse in [false, true] {
                let key = plan(element, sizes, with_lse);
                let [batch, heads, rows, dim] = sizes;
                let packed = rounded(element, &values(batch * rows * 3 * heads * dim, 4));
                let Some((y, lse)) = run(key, &packed) else {
                    // Other kernels serve what cuDNN does not; it must serve the heads of the published models.
                    assert_ne!(dim, 64, "{sizes:?}");
                    continue;
                };
                let (expected_y, expected_lse) = expected(&key, &packed);
                let what = format!("attention {sizes:?}");
                close(element, &what, &y, &expected_y);
                if with_lse {
                    close(
                        Float::F16,
                        &format!("{what}, log-sum-exp"),
                        &lse,
                        &expected_lse,
                    );
                }
            }
        }
    }
}

/// Nothing when cuDNN has no plan.
fn run(key: AttentionPlan, packed: &[f32]) -> Option<(Vec<f32>, Vec<f32>)> {
    let width = key.heads * key.head_dim;
    let from = put(key.element, packed);
    let y = poison(key.element, key.batch * key.q_rows * width);
    let lse = poison(Float::F32, key.batch * key.heads * key.q_rows);
    let stream = gpu().stream(Priority::Normal).unwrap();
    let dnn = Dnn::open(&stream).unwrap();
    let bytes = match dnn.attention_workspace(key) {
        Err(CudaFault::Unsupported { .. }) => return None,
        bytes => bytes.unwrap(),
    };
    let workspace = gpu().allocate("scratch", bytes).unwrap();
    let part = |part: usize| from.address().plus(part * width * key.element.bytes());
    let at = AttentionOperands {
        q: part(0),
        k: part(1),
        v: part(2),
        y: y.address(),
        lse: match key.with_lse {
            true => lse.address(),
            false => DeviceAddress(0),
        },
    };
    let attention = dnn.attention(key, SCALE, at, workspace.address()).unwrap();
    // SAFETY: all operands are allocated until the queue has been waited for, and nobody else knows them.
    unsafe { attention.run() }.unwrap();
    stream.synchronize().unwrap();
    Some((get(key.element, &y), get(Float::F32, &lse)))
}
