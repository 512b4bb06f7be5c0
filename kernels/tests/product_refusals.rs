//! The matrix product, attention and the convolution refuse what does not fit, name it, and write
//! nothing; shapes without elements run.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/refusal.rs"]
mod refusal;

use refusal::{argument, refuses, zeros};
use terrace_kernels::KernelError;
use terrace_kernels::cpu::*;

#[test]
fn linear() {
    let weight = PackedLinear::pack(4, 8, zeros(32)).unwrap();
    let segments = [GateSegment { rows: 2, gate: 4 }];
    let run = |n: &[usize], batch, segments: &[GateSegment], y: &mut [f32]| {
        let mods = Mods {
            data: zeros(32),
            stride: 8,
        };
        let gate = Some(LinearGate {
            mods,
            batch,
            segments,
        });
        let residual = Input::Apart(zeros(n[2]));
        Linear {
            rows: 6,
            x: zeros(n[0]),
            weight: &weight,
            bias: Some(zeros(n[1])),
            epilogue: LinearEpilogue::Residual { residual, gate },
            y,
        }
        .run()
    };
    let sizes = [("x", 48), ("bias", 4), ("residual", 24), ("y", 24)];
    refuses(&sizes, |n, y| run(n, 3, &segments, y));
    let right = [48, 4, 24];
    let mut y = [9.0; 24];
    let segment = |rows, gate| [GateSegment { rows, gate }];
    argument(run(&right, 2, &segments, &mut y), "gate.segments");
    argument(run(&right, 3, &segment(3, 4), &mut y), "gate.segments");
    let batch = usize::MAX;
    argument(
        run(&right, batch, &segment(2, 4), &mut y),
        "gate.batch, gate.segments",
    );
    argument(run(&right, 3, &segment(2, usize::MAX), &mut y), "segments");
    assert!(matches!(
        run(&right, 3, &segment(2, 13), &mut y),
        Err(KernelError::Length {
            operand: "mods.data",
            expected: 33,
            found: 32,
            ..
        })
    ));
    assert_eq!(y, [9.0; 24]);
}

#[test]
fn linear_weights_and_sizes() {
    for found in [0, 31, 33] {
        let error = PackedLinear::pack(4, 8, zeros(found)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "kernel linear: operand `weight` needs 32 elements, found {found}; the plan's shapes and buffers disagree"
            )
        );
    }
    argument(PackedLinear::pack(usize::MAX, 2, &[]).map(|_| ()), "n, k");
    let run = |rows, n, k, y: &mut [f32]| {
        let weight = PackedLinear::pack(n, k, zeros(n * k)).unwrap();
        Linear {
            rows,
            x: &[],
            weight: &weight,
            bias: None,
            epilogue: LinearEpilogue::None,
            y,
        }
        .run()
    };
    argument(run(usize::MAX, 1, 2, &mut []), "rows, k");
    argument(run(usize::MAX, 2, 0, &mut []), "rows, n");
    run(0, 3, 4, &mut []).unwrap();
    run(5, 0, 0, &mut []).unwrap();
    run(usize::MAX, 0, 0, &mut []).unwrap();
    let mut y = [9.0; 6];
    run(2, 3, 0, &mut y).unwrap();
    assert_eq!(y, [0.0; 6]);
}

/// Sizes `[batch, heads, q_rows, kv_rows, dim]` and strides `[batch, row, head]` of an attention.
fn attend(
    sizes: [usize; 5],
    strides: [usize; 3],
    n: &[usize],
    bias: Option<usize>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let [batch, heads, q_rows, kv_rows, head_dim] = sizes;
    let [batch_stride, row_stride, head_stride] = strides;
    let view = |len: usize| HeadsView {
        data: zeros(len),
        batch_stride,
        row_stride,
        head_stride,
    };
    Attention {
        batch,
        heads,
        q_rows,
        kv_rows,
        head_dim,
        scale: 1.0,
        products: AttentionProducts::F32,
        q: view(n[0]),
        k: view(n[1]),
        v: view(n[2]),
        bias: bias.map(zeros),
        y: HeadsViewMut {
            data: y,
            batch_stride,
            row_stride,
            head_stride,
        },
    }
    .run()
}

/// A view may be longer than what it shows, so only short operands are refused.
#[test]
fn attention_operands() {
    let (sizes, strides) = ([2, 3, 4, 5, 8], [200, 30, 9]);
    let (q, kv) = (200 + 90 + 18 + 8, 200 + 120 + 18 + 8);
    let right = [q, kv, kv];
    let mut y = vec![9.0; q];
    attend(sizes, strides, &right, Some(60), &mut y).unwrap();
    for (i, (operand, expected)) in [("q", q), ("k", kv), ("v", kv)].into_iter().enumerate() {
        let mut short = right;
        short[i] -= 1;
        let mut y = vec![9.0; q];
        let error = attend(sizes, strides, &short, Some(60), &mut y).unwrap_err();
        let found = expected - 1;
        let kernel = "attention";
        assert_eq!(
            error,
            KernelError::Length {
                kernel,
                operand,
                expected,
                found
            }
        );
        assert!(y.iter().all(|&v| v == 9.0));
    }
    for len in [0, 59, 61] {
        assert!(matches!(
            attend(sizes, strides, &right, Some(len), &mut vec![9.0; q]),
            Err(KernelError::Length {
                operand: "bias",
                expected: 60,
                ..
            })
        ));
    }
    assert!(matches!(
        attend(sizes, strides, &right, None, &mut vec![9.0; q - 1]),
        Err(KernelError::Length { operand: "y", .. })
    ));
}

#[test]
fn attention_arguments() {
    let run = |sizes, strides| {
        let n = [4096, 4096, 4096];
        attend(sizes, strides, &n, None, &mut [9.0; 4096])
    };
    let dense = [96, 24, 8];
    run([2, 3, 4, 4, 8], dense).unwrap();
    // Heads outermost, and a dimension of one element with any stride.
    run([2, 3, 4, 4, 8], [96, 8, 32]).unwrap();
    run([1, 3, 4, 4, 8], [0, 24, 8]).unwrap();
    for overlap in [
        [0, 24, 8],
        [96, 0, 8],
        [96, 24, 7],
        [95, 24, 8],
        [96, 23, 8],
    ] {
        argument(run([2, 3, 4, 4, 8], overlap), "y");
    }
    argument(run([2, 3, 4, 4, 0], dense), "head_dim");
    let many = usize::MAX;
    argument(
        run([many, 3, 0, 4, 8], dense),
        "batch, heads, q_rows, head_dim",
    );
    argument(run([2, 3, 4, 4, 8], [many, 24, 8]), "q");
    argument(run([2, 3, 4, many, 8], dense), "k");
    argument(run([1, 3, 4, many, 8], [0, 0, 8]), "heads, q_rows, kv_rows");
    for empty in [[0, 3, 4, 4, 8], [2, 0, 4, 4, 8], [2, 3, 0, 4, 8]] {
        run(empty, dense).unwrap();
    }
}

#[test]
fn attention_in_steps() {
    refuses(&[("state", 2 * 4 * 3 * 10)], |_, state| {
        step([2, 3, 4, 5, 8], state)
    });
    let mut state = [9.0; 240];
    argument(step([2, 3, 4, 5, 0], &mut state), "head_dim");
    argument(
        step([1, 1, usize::MAX / 8, 0, 8], &mut state),
        "batch, q_rows, heads, head_dim + 2",
    );
    step([2, 3, 0, 5, 8], &mut []).unwrap();

    let finish = |n: &[usize], y: &mut [f32]| {
        AttentionFinish {
            rows: 8,
            heads: 3,
            head_dim: 8,
            state: zeros(n[0]),
            y,
        }
        .run()
    };
    refuses(&[("state", 240), ("y", 192)], finish);
    let huge = AttentionFinish {
        rows: usize::MAX,
        heads: 1,
        head_dim: usize::MAX - 2,
        state: &[],
        y: &mut [],
    };
    argument(huge.run(), "rows, heads, head_dim + 2");
}

fn step(sizes: [usize; 5], state: &mut [f32]) -> Result<(), KernelError> {
    let [batch, heads, q_rows, kv_rows, head_dim] = sizes;
    // A stride of zero shows one row as many.
    let view = HeadsView {
        data: zeros(64),
        batch_stride: 0,
        row_stride: 0,
        head_stride: head_dim,
    };
    AttentionStep {
        batch,
        heads,
        q_rows,
        kv_rows,
        head_dim,
        scale: 1.0,
        products: AttentionProducts::F32,
        q: view,
        k: view,
        v: view,
        stage: StepStage::First,
        state,
    }
    .run()
}

#[test]
fn convolution() {
    let weight = PackedConv3d::pack(5, 4, [3, 3, 1], zeros(180)).unwrap();
    let run = |[batch, frames, height, width]: [usize; 4], n: &[usize], y: &mut [f32]| {
        Conv3d {
            batch,
            frames,
            height,
            width,
            x: zeros(n[0]),
            cache: Some(zeros(n[1])),
            weight: &weight,
            bias: Some(zeros(n[2])),
            residual: Some(zeros(n[3])),
            y,
        }
        .run()
    };
    let sizes = [
        ("x", 2 * 3 * 6 * 4),
        ("cache", 2 * 2 * 6 * 4),
        ("bias", 5),
        ("residual", 2 * 3 * 6 * 5),
        ("y", 2 * 3 * 6 * 5),
    ];
    refuses(&sizes, |n, y| run([2, 3, 2, 3], n, y));
    let names = [
        ([usize::MAX, 2, 1, 1], "batch, frames, height, width"),
        ([usize::MAX, 1, 1, 1], "pixels, cin"),
        (
            [usize::MAX / 5 - 5, 0, 1, 1],
            "batch, kt - 1, height, width, cin",
        ),
    ];
    for (grid, name) in names {
        argument(run(grid, &[0, 0, 0, 0], &mut []), name);
    }
    run([2, 0, 2, 3], &[0, 96, 5, 0], &mut []).unwrap();
    run([2, 3, 0, 3], &[0, 0, 5, 0], &mut []).unwrap();
}

#[test]
fn convolution_weights() {
    for kernel in [[0, 3, 3], [3, 0, 3], [3, 2, 3], [3, 3, 4]] {
        argument(PackedConv3d::pack(1, 1, kernel, &[]).map(|_| ()), "kernel");
    }
    argument(
        PackedConv3d::pack(1, 1, [usize::MAX, 3, 1], &[]).map(|_| ()),
        "cout, cin, kernel",
    );
    argument(
        PackedConv3d::pack(0, 1, [usize::MAX, 3, 1], &[]).map(|_| ()),
        "kernel",
    );
    assert!(matches!(
        PackedConv3d::pack(5, 4, [3, 3, 1], zeros(179)),
        Err(KernelError::Length {
            operand: "weight",
            expected: 180,
            found: 179,
            ..
        })
    ));
}
