//! Sizes for which a kernel has no meaning.

use super::Case;
use crate::build::dense;
use crate::kernels::{CONV, SHAPE, U, heads, out, plan, weight, x};
use terrace_plan::*;

pub fn cases() -> Vec<Case> {
    [sizes(), shapes(), numbers(), tables()]
        .into_iter()
        .flatten()
        .collect()
}

fn case(call: KernelCall, expected: &'static str) -> Case {
    let weights = vec![
        weight("conv", &[6, 5, 3, 2, 3], WeightLayout::Conv3d),
        weight("table", &[6, 3], WeightLayout::Plain),
    ];
    Case {
        plan: plan(vec![call], weights),
        expected: vec![expected],
    }
}

fn activate(len: usize, offset: usize) -> KernelCall {
    KernelCall::Activate {
        len,
        function: Activation::Silu,
        x: x(offset),
        y: out(0),
    }
}

fn attention(edit: fn(&mut AttentionShape, &mut Heads)) -> KernelCall {
    let (mut shape, mut y) = (SHAPE, heads(out(0), 5, 3, 4));
    edit(&mut shape, &mut y);
    KernelCall::Attention {
        shape,
        q: heads(x(0), 5, 3, 4),
        k: heads(x(0), 7, 3, 4),
        v: heads(x(0), 7, 3, 4),
        bias: None,
        y,
    }
}

fn sizes() -> Vec<Case> {
    vec![
        case(
            KernelCall::GatedGelu {
                rows: 3,
                width: 0,
                x: x(0),
                y: out(0),
            },
            "rank 0, step 0 (kernel): gated_gelu: `width` must be at least 1, is 0",
        ),
        case(
            attention(|shape, _| shape.kv_rows = 0),
            "rank 0, step 0 (kernel): attention: `kv_rows` must be at least 1, is 0",
        ),
        case(
            attention(|shape, _| shape.products = DType::F16),
            "rank 0, step 0 (kernel): attention: the products must be in f32 or bf16, are in f16",
        ),
        case(
            activate(usize::MAX, 1),
            "rank 0, step 0 (kernel): activate: the size of `x` overflows",
        ),
        case(
            KernelCall::GatedGelu {
                rows: 1 << 40,
                width: 1 << 40,
                x: x(0),
                y: out(0),
            },
            "rank 0, step 0 (kernel): gated_gelu: the size of `x` overflows",
        ),
        case(
            KernelCall::GateAdd {
                rows: 4,
                width: 2,
                gate: Some(Gate {
                    mods: Mods {
                        slot: x(0),
                        stride: 2,
                    },
                    batch: 1,
                    segments: vec![GateSegment { rows: 3, gate: 0 }],
                }),
                residual: x(0),
                x: x(8),
                y: out(0),
            },
            "rank 0, step 0 (kernel): gate_add: the segments have 3 rows, the call has 4",
        ),
    ]
}

fn shapes() -> Vec<Case> {
    vec![
        case(
            attention(|_, y| y.row_stride = 0),
            "rank 0, step 0 (kernel): attention: \
             the strides of `y` write elements onto each other",
        ),
        case(
            KernelCall::Noise {
                boxes: vec![BoxCopy {
                    dst_strides: vec![0],
                    ..dense(2, 0, 0)
                }],
                key: U,
                y: out(0),
            },
            "rank 0, step 0 (kernel): noise: box 0 of `y`: \
             its strides write elements onto each other",
        ),
        case(
            KernelCall::GroupNorm {
                batch: 1,
                grid: [1, 1, 1],
                channels: 5,
                groups: 2,
                eps: 0.0,
                affine: Affine {
                    weight: None,
                    bias: None,
                },
                spatial: None,
                activation: None,
                x: x(0),
                y: out(0),
            },
            "rank 0, step 0 (kernel): group_norm: 5 channels do not divide into 2 groups",
        ),
        case(
            KernelCall::Conv3d {
                shape: ConvShape {
                    kernel: [3, 2, 3],
                    ..CONV
                },
                x: x(0),
                cache: None,
                weight: WeightId(0),
                bias: None,
                residual: None,
                y: out(0),
            },
            "rank 0, step 0 (kernel): conv3d: \
             the kernel must be odd in height and width, is 2x3",
        ),
    ]
}

fn timestep(dim: usize, shift: f64) -> KernelCall {
    KernelCall::TimestepEmbedding {
        batch: 1,
        dim,
        order: SinusoidOrder::SinCos,
        shift,
        timestep: x(0),
        y: out(0),
    }
}

fn numbers() -> Vec<Case> {
    vec![
        case(
            timestep(4, 2.0),
            "rank 0, step 0 (kernel): timestep_embedding: \
             a frequency shift of 2 does not fit an embedding of 4 channels",
        ),
        case(
            timestep(4, f64::NAN),
            "rank 0, step 0 (kernel): timestep_embedding: `shift` must be finite, is NaN",
        ),
        case(
            attention(|shape, _| shape.scale = f64::INFINITY),
            "rank 0, step 0 (kernel): attention: `scale` must be finite, is inf",
        ),
        case(
            KernelCall::NormModulate {
                batch: 1,
                width: 4,
                segments: Vec::new(),
                norm: Norm::Layer {
                    eps: -1.0,
                    affine: Affine {
                        weight: None,
                        bias: None,
                    },
                },
                mods: None,
                x: x(0),
                y: out(0),
            },
            "rank 0, step 0 (kernel): norm_modulate: `eps` must not be negative, is -1",
        ),
    ]
}

fn rope(head_dim: usize, first_row: usize) -> KernelCall {
    KernelCall::QkNormRope {
        batch: 1,
        rows: 2,
        heads: 1,
        head_dim,
        norm: None,
        rope: Some(Rope {
            table: x(0),
            first_row,
        }),
        qkv: out(0),
    }
}

fn tables() -> Vec<Case> {
    vec![
        case(
            rope(3, 0),
            "rank 0, step 0 (kernel): qk_norm_rope: `head_dim` must be even, is 3",
        ),
        case(
            rope(4, 3),
            "rank 0, step 0 (kernel): qk_norm_rope: \
             rotary positions begin at row 3, there are 2 rows",
        ),
        case(
            KernelCall::RelativeBias {
                heads: 3,
                q_rows: 1,
                kv_rows: 1,
                buckets: 6,
                max_distance: 16,
                table: WeightId(1),
                y: out(0),
            },
            "rank 0, step 0 (kernel): relative_bias: 6 buckets up to distance 16: \
             needs a multiple of 4 buckets and a distance above a quarter of them",
        ),
    ]
}
