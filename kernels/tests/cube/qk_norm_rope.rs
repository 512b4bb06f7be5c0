//! Norm and rotation of packed heads.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::values;

fn on_the_cpu(
    [batch, rows, text_rows, parts, heads, dim]: [usize; 6],
    q: Option<cpu::HeadNorm<'_>>,
    k: Option<cpu::HeadNorm<'_>>,
    table: Option<&[f32]>,
    qkv: &mut [f32],
) {
    cpu::QkNormRope {
        batch,
        rows,
        text_rows,
        parts,
        heads,
        dim,
        q,
        k,
        table,
        qkv,
    }
    .run()
    .unwrap();
}

#[test]
fn heads_match_those_of_the_cpu() {
    let (batch, rows, text_rows, heads) = (2, 11, 4, 3);
    for element in FLOATS {
        for (dim, parts, skew) in [(2, 2, 0), (6, 3, 0), (64, 3, 0), (64, 3, 1), (132, 3, 0)] {
            let start: Vec<f32> = values(batch * rows * parts * heads * dim, 1)
                .iter()
                .map(|v| v * 2.0 + 0.5)
                .collect();
            let angles = values((rows - text_rows) * 2 * dim, 2);
            let (weight, bias) = (values(dim, 3), values(dim, 4));
            for case in 0..4 {
                let (rotated, both) = (case % 2 == 1, case / 2 == 1);
                let mut arena = Arena::new(skew);
                let qkv = arena.put(element, &start);
                let vectors = [&angles, &weight, &bias].map(|v| arena.put(Element::F32, v));
                let on = arena.upload();
                let [table, weight_at, bias_at] = vectors.map(|region| on.at(region));
                let call = QkNormRope {
                    batch,
                    rows,
                    text_rows,
                    parts,
                    heads,
                    dim,
                    q: Some(HeadNorm {
                        eps: 1e-6,
                        weight: Some(weight_at.clone()),
                        bias: Some(bias_at),
                    }),
                    k: both.then_some(HeadNorm {
                        eps: 1e-3,
                        weight: Some(weight_at),
                        bias: None,
                    }),
                    table: rotated.then_some(table),
                    qkv: on.at(qkv),
                };
                let found = on.run(call.calls(on.device()), qkv);
                let mut expected = rounded(element, &start);
                let norm = |eps, bias| cpu::HeadNorm {
                    eps,
                    weight: Some(&weight),
                    bias,
                };
                let (q, k) = (norm(1e-6, Some(&bias[..])), norm(1e-3, None));
                let (q, k) = (Some(q), both.then_some(k));
                let table = rotated.then_some(&angles[..]);
                let sizes = [batch, rows, text_rows, parts, heads, dim];
                on_the_cpu(sizes, q, k, table, &mut expected);
                close(element, &found, &expected, 1e-5);
            }
        }
    }
}

#[test]
fn heads_without_a_norm_are_only_rotated() {
    let (batch, rows, text_rows, parts, heads, dim) = (1, 5, 0, 3, 2, 8);
    let start = values(batch * rows * parts * heads * dim, 1);
    let angles = values(rows * 2 * dim, 2);
    let mut arena = Arena::new(0);
    let (qkv, table) = (
        arena.put(Element::F32, &start),
        arena.put(Element::F32, &angles),
    );
    let on = arena.upload();
    let call = QkNormRope {
        batch,
        rows,
        text_rows,
        parts,
        heads,
        dim,
        q: None,
        k: None,
        table: Some(on.at(table)),
        qkv: on.at(qkv),
    };
    let found = on.run(call.calls(on.device()), qkv);
    let mut expected = start;
    let sizes = [batch, rows, text_rows, parts, heads, dim];
    on_the_cpu(sizes, None, None, Some(&angles), &mut expected);
    close(Element::F32, &found, &expected, 1e-6);
}
