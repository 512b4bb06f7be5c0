//! Attention kernels over strided views of heads.
//!
//! Refused: nothing of its own; operands were checked by the binder.

use super::super::super::args;
use super::super::operand::{Access, Binder, In};
use super::Run;
use crate::RuntimeError;
use terrace_kernels::cpu::{
    Attention, AttentionFinish, AttentionProducts, AttentionStep, HeadsView, HeadsViewMut,
};
use terrace_plan::{AttentionShape, DType, Heads, Stage};

/// `views`: queries, keys, values, result.
pub(super) fn whole(
    b: &Binder<'_>,
    shape: AttentionShape,
    views: [&Heads; 4],
) -> Result<Run, RuntimeError> {
    let [q, k, v, y] = views;
    let (q, k, v) = (view(b, "q", q)?, view(b, "k", k)?, view(b, "v", v)?);
    let (bias, result, strides) = (b.maybe("bias"), b.output("y")?, *y);
    Ok(Box::new(move |a: &Access| {
        Attention {
            batch: shape.batch,
            heads: shape.heads,
            q_rows: shape.q_rows,
            kv_rows: shape.kv_rows,
            head_dim: shape.head_dim,
            scale: shape.scale as f32,
            products: products(shape.products),
            q: q.get(a),
            k: k.get(a),
            v: v.get(a),
            bias: bias.as_ref().map(|bias| bias.get(a)),
            y: HeadsViewMut {
                data: result.get(a),
                batch_stride: strides.batch_stride,
                row_stride: strides.row_stride,
                head_stride: strides.head_stride,
            },
        }
        .run()
    }))
}

/// `views`: queries, keys, values.
pub(super) fn step(
    b: &Binder<'_>,
    shape: AttentionShape,
    views: [&Heads; 3],
    stage: Stage,
) -> Result<Run, RuntimeError> {
    let [q, k, v] = views;
    let (q, k, v) = (view(b, "q", q)?, view(b, "k", k)?, view(b, "v", v)?);
    let state = b.output("state")?;
    Ok(Box::new(move |a: &Access| {
        AttentionStep {
            batch: shape.batch,
            heads: shape.heads,
            q_rows: shape.q_rows,
            kv_rows: shape.kv_rows,
            head_dim: shape.head_dim,
            scale: shape.scale as f32,
            products: products(shape.products),
            q: q.get(a),
            k: k.get(a),
            v: v.get(a),
            stage: args::stage(stage),
            state: state.get(a),
        }
        .run()
    }))
}

pub(super) fn finish(
    b: &Binder<'_>,
    rows: usize,
    heads: usize,
    head_dim: usize,
) -> Result<Run, RuntimeError> {
    let (state, y) = (b.input("state")?, b.output("y")?);
    Ok(Box::new(move |a: &Access| {
        AttentionFinish {
            rows,
            heads,
            head_dim,
            state: state.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

/// The plan is checked: products are f32 or bf16.
const fn products(dtype: DType) -> AttentionProducts {
    match dtype {
        DType::Bf16 => AttentionProducts::Bf16,
        DType::F32 | DType::F16 | DType::U32 | DType::I8 | DType::F8E4M3 => AttentionProducts::F32,
    }
}

/// A view that is read.
struct View {
    data: In<f32>,
    strides: Heads,
}

fn view(b: &Binder<'_>, name: &'static str, strides: &Heads) -> Result<View, RuntimeError> {
    Ok(View {
        data: b.input(name)?,
        strides: *strides,
    })
}

impl View {
    const fn get<'a>(&self, access: &'a Access) -> HeadsView<'a> {
        HeadsView {
            data: self.data.get(access),
            batch_stride: self.strides.batch_stride,
            row_stride: self.strides.row_stride,
            head_stride: self.strides.head_stride,
        }
    }
}
