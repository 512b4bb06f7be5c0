//! Attention kernels over strided views of heads.

use super::super::args;
use super::{Binder, Buffer, Calls, For, Places};
use crate::RuntimeError;
use terrace_kernels::cube::{Attention, AttentionFinish, AttentionStep, HeadsView};
use terrace_plan::{AttentionShape, Heads, KernelCall, Stage};

pub(super) fn calls<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    match call {
        KernelCall::Attention {
            shape, q, k, v, y, ..
        } => whole(b, device, *shape, [q, k, v, y]),
        KernelCall::AttentionStep {
            shape,
            q,
            k,
            v,
            stage,
            ..
        } => step(b, device, *shape, [q, k, v], *stage),
        KernelCall::AttentionFinish {
            rows,
            heads,
            head_dim,
            ..
        } => {
            let finish = AttentionFinish {
                rows: *rows,
                heads: *heads,
                head_dim: *head_dim,
                state: b.operand("state")?,
                y: b.operand("y")?,
            };
            Ok(finish.calls(device)?)
        }
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. }
        | KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. }
        | KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. }
        | KernelCall::Denoise { .. }
        | KernelCall::Advance { .. }
        | KernelCall::Noise { .. } => Err(b.other_family()),
    }
}

/// `views`: queries, keys, values, result.
fn whole<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    shape: AttentionShape,
    views: [&Heads; 4],
) -> Calls<P> {
    let [q, k, v, y] = views;
    let attention = Attention {
        batch: shape.batch,
        heads: shape.heads,
        q_rows: shape.q_rows,
        kv_rows: shape.kv_rows,
        head_dim: shape.head_dim,
        scale: shape.scale as f32,
        q: view(b, "q", q)?,
        k: view(b, "k", k)?,
        v: view(b, "v", v)?,
        bias: b.maybe("bias")?,
        y: view(b, "y", y)?,
    };
    Ok(attention.calls(device)?)
}

/// `views`: queries, keys, values.
fn step<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    shape: AttentionShape,
    views: [&Heads; 3],
    stage: Stage,
) -> Calls<P> {
    let [q, k, v] = views;
    let step = AttentionStep {
        batch: shape.batch,
        heads: shape.heads,
        q_rows: shape.q_rows,
        kv_rows: shape.kv_rows,
        head_dim: shape.head_dim,
        scale: shape.scale as f32,
        q: view(b, "q", q)?,
        k: view(b, "k", k)?,
        v: view(b, "v", v)?,
        stage: args::stage(stage),
        state: b.operand("state")?,
    };
    Ok(step.calls(device)?)
}

fn view<P: Places>(
    b: &Binder<'_, P>,
    name: &'static str,
    strides: &Heads,
) -> Result<HeadsView<Buffer<P>>, RuntimeError> {
    Ok(HeadsView {
        data: b.operand(name)?,
        batch_stride: strides.batch_stride,
        row_stride: strides.row_stride,
        head_stride: strides.head_stride,
    })
}
