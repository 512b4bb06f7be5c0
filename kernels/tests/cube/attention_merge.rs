//! Blocks of keys with their log-sum-exp, merged, against whole attention.

use terrace_kernels::cube::*;
use terrace_kernels::{StepStage, cpu};

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::values;

const BATCH: usize = 2;
const ROWS: usize = 5;
const HEADS: usize = 3;
const BLOCKS: [usize; 3] = [4, 1, 7];

/// Softmax attention of one block and its log-sum-exp; `k` and `v` are `[batch, keys, heads, dim]`.
fn block(dim: usize, keys: usize, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut o, mut lse) = (vec![0.0; q.len()], vec![0.0; BATCH * HEADS * ROWS]);
    for (b, row, head) in entries() {
        let of_q = ((b * ROWS + row) * HEADS + head) * dim;
        let of_key = |key: usize| ((b * keys + key) * HEADS + head) * dim;
        let score = |key: usize| -> f32 {
            let k = &k[of_key(key)..][..dim];
            q[of_q..][..dim].iter().zip(k).map(|(x, y)| x * y).sum()
        };
        let sum: f32 = (0..keys).map(|key| score(key).exp()).sum();
        for key in 0..keys {
            let weight = score(key).exp() / sum;
            for channel in 0..dim {
                o[of_q + channel] += weight * v[of_key(key) + channel];
            }
        }
        lse[(b * HEADS + head) * ROWS + row] = sum.ln();
    }
    (o, lse)
}

fn entries() -> impl Iterator<Item = (usize, usize, usize)> {
    (0..BATCH * ROWS * HEADS).map(|i| (i / HEADS / ROWS, i / HEADS % ROWS, i % HEADS))
}

/// The keys of all blocks behind each other in every batch item.
fn joined(dim: usize, blocks: &[Vec<f32>]) -> Vec<f32> {
    let mut all = Vec::new();
    for b in 0..BATCH {
        for (block, keys) in blocks.iter().zip(BLOCKS) {
            let item = keys * HEADS * dim;
            all.extend_from_slice(&block[b * item..][..item]);
        }
    }
    all
}

fn whole(dim: usize, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let keys = BLOCKS.iter().sum();
    let mut y = vec![0.0; q.len()];
    let view = |data, rows: usize| cpu::HeadsView {
        data,
        batch_stride: rows * HEADS * dim,
        row_stride: HEADS * dim,
        head_stride: dim,
    };
    cpu::Attention {
        batch: BATCH,
        heads: HEADS,
        q_rows: ROWS,
        kv_rows: keys,
        head_dim: dim,
        scale: 1.0,
        products: cpu::AttentionProducts::F32,
        q: view(q, ROWS),
        k: view(k, keys),
        v: view(v, keys),
        bias: None,
        y: cpu::HeadsViewMut {
            data: &mut y,
            batch_stride: ROWS * HEADS * dim,
            row_stride: HEADS * dim,
            head_stride: dim,
        },
    }
    .run()
    .unwrap();
    y
}

#[test]
fn merged_blocks_are_whole_attention() {
    for element in FLOATS {
        for (dim, skew) in [(8, 0), (33, 1), (64, 0)] {
            let q = values(BATCH * ROWS * HEADS * dim, 1);
            let side = |seed| -> Vec<Vec<f32>> {
                let size = |keys| BATCH * keys * HEADS * dim;
                BLOCKS
                    .iter()
                    .map(|&keys| values(size(keys), seed + keys as u64))
                    .collect()
            };
            let (k, v) = (side(10), side(20));
            let entry = dim + 2;
            let mut state = vec![f32::NAN; BATCH * ROWS * HEADS * entry];
            for (index, keys) in BLOCKS.into_iter().enumerate() {
                let (o, lse) = block(dim, keys, &q, &k[index], &v[index]);
                let mut arena = Arena::new(skew);
                let (o, lse) = (arena.put(element, &o), arena.put(Element::F32, &lse));
                let to = arena.put(Element::F32, &state);
                let on = arena.upload();
                let call = AttentionMerge {
                    batch: BATCH,
                    rows: ROWS,
                    heads: HEADS,
                    head_dim: dim,
                    o: on.at(o),
                    lse: on.at(lse),
                    stage: [StepStage::First, StepStage::Next][index.min(1)],
                    state: on.at(to),
                };
                state = on.run(call.calls(on.device()), to);
            }
            let found: Vec<f32> = state
                .chunks_exact(entry)
                .flat_map(|s| s[..dim].iter().map(|x| x / s[dim + 1]).collect::<Vec<_>>())
                .collect();
            let expected = whole(dim, &q, &joined(dim, &k), &joined(dim, &v));
            close(element, &found, &rounded(element, &expected), 1e-5);
        }
    }
}

#[test]
fn a_block_without_weight_changes_nothing() {
    let (dim, entry) = (8, 10);
    let state: Vec<f32> = values(BATCH * ROWS * HEADS * entry, 3)
        .iter()
        .map(|x| x.abs())
        .collect();
    let mut arena = Arena::new(0);
    let o = arena.put(Element::F32, &values(BATCH * ROWS * HEADS * dim, 4));
    let lse = arena.put(Element::F32, &[f32::NEG_INFINITY; BATCH * ROWS * HEADS]);
    let to = arena.put(Element::F32, &state);
    let on = arena.upload();
    let call = AttentionMerge {
        batch: BATCH,
        rows: ROWS,
        heads: HEADS,
        head_dim: dim,
        o: on.at(o),
        lse: on.at(lse),
        stage: StepStage::Next,
        state: on.at(to),
    };
    let mut longer = call.clone();
    longer.rows += 1;
    assert!(longer.calls(on.device()).is_err());
    close(
        Element::F32,
        &on.run(call.calls(on.device()), to),
        &state,
        1e-6,
    );
}
