//! Attention: whole, in steps, and the finish.

use terrace_kernels::cube::*;
use terrace_kernels::{StepStage, cpu};

use crate::arena::{Arena, Buffer, FLOATS, Loaded, Region, close, rounded};
use crate::common::{bits, values};

/// Sizes of an attention; q, k and v are the parts of rows `[heads][3][dim + gap]`.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    q_rows: usize,
    kv_rows: usize,
    dim: usize,
    gap: usize,
}

impl Sizes {
    fn head(&self) -> usize {
        3 * (self.dim + self.gap)
    }

    fn row(&self) -> usize {
        self.heads * self.head()
    }

    fn rows(&self) -> usize {
        self.q_rows.max(self.kv_rows)
    }

    fn packed(&self) -> usize {
        self.batch * self.rows() * self.row()
    }

    /// The view of a part of the packed rows from row `first` on.
    fn view(&self, on: &Loaded, packed: Region, part: usize, first: usize) -> HeadsView<Buffer> {
        let mut data = on.at(packed);
        let skip = first * self.row() + part * (self.dim + self.gap);
        data.offset += skip;
        data.len -= skip;
        HeadsView {
            data,
            batch_stride: self.rows() * self.row(),
            row_stride: self.row(),
            head_stride: self.head(),
        }
    }

    fn view_cpu<'a>(&self, packed: &'a [f32], part: usize, first: usize) -> cpu::HeadsView<'a> {
        cpu::HeadsView {
            data: &packed[first * self.row() + part * (self.dim + self.gap)..],
            batch_stride: self.rows() * self.row(),
            row_stride: self.row(),
            head_stride: self.head(),
        }
    }

    /// Elements of the dense output `[batch, q_rows, heads, dim]`.
    fn output(&self) -> usize {
        self.batch * self.q_rows * self.heads * self.dim
    }

    fn whole(
        &self,
        on: &Loaded,
        packed: Region,
        bias: Option<Region>,
        y: Region,
    ) -> Attention<Buffer> {
        Attention {
            batch: self.batch,
            heads: self.heads,
            q_rows: self.q_rows,
            kv_rows: self.kv_rows,
            head_dim: self.dim,
            scale: 0.7,
            q: self.view(on, packed, 0, 0),
            k: self.view(on, packed, 1, 0),
            v: self.view(on, packed, 2, 0),
            bias: bias.map(|region| on.at(region)),
            y: HeadsView {
                data: on.at(y),
                batch_stride: self.q_rows * self.heads * self.dim,
                row_stride: self.heads * self.dim,
                head_stride: self.dim,
            },
        }
    }

    fn expected(&self, packed: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let mut y = vec![0.0; self.output()];
        cpu::Attention {
            batch: self.batch,
            heads: self.heads,
            q_rows: self.q_rows,
            kv_rows: self.kv_rows,
            head_dim: self.dim,
            scale: 0.7,
            products: cpu::AttentionProducts::F32,
            q: self.view_cpu(packed, 0, 0),
            k: self.view_cpu(packed, 1, 0),
            v: self.view_cpu(packed, 2, 0),
            bias,
            y: cpu::HeadsViewMut {
                data: &mut y,
                batch_stride: self.q_rows * self.heads * self.dim,
                row_stride: self.heads * self.dim,
                head_stride: self.dim,
            },
        }
        .run()
        .unwrap();
        y
    }
}

fn sizes([batch, heads, q_rows, kv_rows, dim, gap]: [usize; 6]) -> Sizes {
    Sizes {
        batch,
        heads,
        q_rows,
        kv_rows,
        dim,
        gap,
    }
}

#[test]
fn attention_of_many_shapes_matches_that_of_the_cpu() {
    let shapes = [
        ([1, 1, 1, 1, 1, 0], 0),
        ([2, 3, 40, 70, 5, 2], 0),
        ([1, 2, 33, 65, 64, 0], 0),
        ([2, 2, 20, 130, 64, 0], 1),
        ([1, 2, 70, 31, 48, 4], 0),
        ([1, 1, 5, 100, 128, 0], 0),
    ];
    for element in FLOATS {
        for (case, (shape, skew)) in shapes.into_iter().enumerate() {
            let sizes = sizes(shape);
            let packed: Vec<f32> = values(sizes.packed(), 1).iter().map(|v| v * 2.0).collect();
            let terms = values(sizes.heads * sizes.q_rows * sizes.kv_rows, 2);
            let bias = (case % 2 == 1).then_some(&terms[..]);
            let mut arena = Arena::new(skew);
            let from = arena.put(element, &packed);
            let bias_at = arena.put(Element::F32, &terms);
            let to = arena.poison(element, sizes.output());
            let on = arena.upload();
            let call = sizes.whole(&on, from, bias.map(|_| bias_at), to);
            let found = on.run(call.calls(on.device()), to);
            let expected = sizes.expected(&rounded(element, &packed), bias);
            close(element, &found, &expected, 2e-5);
        }
    }
}

/// Scores far apart, a masked key and a row whose every key is masked.
#[test]
fn biases_may_mask_keys() {
    let sizes = sizes([1, 1, 3, 40, 8, 0]);
    let packed = values(sizes.packed(), 1);
    let mut terms = vec![0.0; 3 * 40];
    terms[5] = 80.0;
    terms[40..60].fill(f32::MIN);
    terms[80..].fill(f32::MIN);
    let mut arena = Arena::new(0);
    let from = arena.put(Element::F32, &packed);
    let bias = arena.put(Element::F32, &terms);
    let to = arena.poison(Element::F32, sizes.output());
    let on = arena.upload();
    let call = sizes.whole(&on, from, Some(bias), to);
    let found = on.run(call.calls(on.device()), to);
    let expected = sizes.expected(&packed, Some(&terms));
    close(Element::F32, &found, &expected, 1e-5);
}

#[test]
fn no_key_gives_zeros() {
    let sizes = sizes([1, 2, 5, 0, 8, 0]);
    let mut arena = Arena::new(0);
    let from = arena.put(Element::F32, &values(sizes.packed(), 1));
    let to = arena.poison(Element::F32, sizes.output());
    let on = arena.upload();
    let call = sizes.whole(&on, from, None, to);
    let found = on.run(call.calls(on.device()), to);
    assert_eq!(found, vec![0.0; sizes.output()]);
}

/// Steps over blocks of keys that begin at multiples of 32, then the finish, give the bits of whole
/// attention; others give its values.
#[test]
fn steps_agree_with_whole_attention() {
    for (element, dim, cuts) in [
        (Element::F32, 64, &[0, 32, 96, 110][..]),
        (Element::F32, 6, &[0, 64, 110][..]),
        (Element::F16, 64, &[0, 32, 96, 110][..]),
        (Element::F32, 64, &[0, 7, 50, 110][..]),
    ] {
        let sizes = sizes([2, 2, 37, 110, dim, 0]);
        let packed = values(sizes.packed(), 3);
        let states = sizes.batch * sizes.q_rows * sizes.heads * (dim + 2);
        let mut arena = Arena::new(0);
        let from = arena.put(element, &packed);
        let state = arena.poison(Element::F32, states);
        let to = arena.poison(element, sizes.output());
        let on = arena.upload();
        let whole = on.run(sizes.whole(&on, from, None, to).calls(on.device()), to);
        let mut calls = Vec::new();
        for (step, keys) in cuts.windows(2).enumerate() {
            let call = AttentionStep {
                batch: sizes.batch,
                heads: sizes.heads,
                q_rows: sizes.q_rows,
                kv_rows: keys[1] - keys[0],
                head_dim: dim,
                scale: 0.7,
                q: sizes.view(&on, from, 0, 0),
                k: sizes.view(&on, from, 1, keys[0]),
                v: sizes.view(&on, from, 2, keys[0]),
                stage: if step == 0 {
                    StepStage::First
                } else {
                    StepStage::Next
                },
                state: on.at(state),
            };
            calls.extend(call.calls(on.device()).unwrap());
        }
        let finish = AttentionFinish {
            rows: sizes.batch * sizes.q_rows,
            heads: sizes.heads,
            head_dim: dim,
            state: on.at(state),
            y: on.at(to),
        };
        calls.extend(finish.calls(on.device()).unwrap());
        let found = on.run_with(Ok(calls), Some(state), to);
        if cuts[1] % 32 == 0 {
            assert_eq!(bits(&found), bits(&whole));
        } else {
            close(element, &found, &whole, 1e-5);
        }
    }
}

/// A row has the same bits alone and among others, and wherever its operands begin.
#[test]
fn a_row_of_attention_depends_on_that_row_and_the_keys_alone() {
    let all = sizes([1, 2, 75, 75, 64, 0]);
    let packed = values(all.packed(), 4);
    let run = |first: usize, q_rows: usize, skew: usize| {
        let part = Sizes { q_rows, ..all };
        let mut arena = Arena::new(skew);
        let from = arena.put(Element::F32, &packed);
        let to = arena.poison(Element::F32, part.output());
        let on = arena.upload();
        let mut call = part.whole(&on, from, None, to);
        call.q = part.view(&on, from, 0, first);
        bits(&on.run(call.calls(on.device()), to))
    };
    let whole = run(0, 75, 0);
    assert_eq!(run(0, 75, 1), whole);
    let row = all.heads * all.dim;
    for (first, count) in [(0, 1), (20, 50), (74, 1)] {
        let range = first * row..(first + count) * row;
        assert_eq!(run(first, count, 0), whole[range]);
    }
}
