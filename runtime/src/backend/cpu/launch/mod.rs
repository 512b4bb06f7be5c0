//! From kernel call to kernel: exhaustive matches, one file per family of kernels.
//!
//! Invariant: every operand of a call goes through a [`Binder`], which has checked it; a result that is
//! its own input is read from a copy, since kernels take distinct slices. Epsilons, scales and
//! frequencies of a plan are f64; kernels compute in f32 and get them rounded.

mod attention;
mod embed;
mod rows;
mod sampler;
mod video;

use super::memory::CpuMemory;
use super::operand::{Access, Binder};
use crate::{LoadedWeight, RuntimeError};
use std::sync::Arc;
use terrace_kernels::KernelError;
use terrace_plan::KernelCall;

/// A kernel with everything but the right to touch its operands.
pub(super) type Run = Box<dyn Fn(&Access) -> Result<(), KernelError> + Send + Sync>;

/// Resolves a call.
pub(super) fn prepare(
    memory: &Arc<CpuMemory>,
    weights: &[Arc<LoadedWeight>],
    call: &KernelCall,
) -> Result<Run, RuntimeError> {
    let b = &Binder::new(memory, weights, call)?;
    match call {
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. } => row_kernels(b, call),
        KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. } => attention_kernels(b, call),
        KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. } => table_kernels(b, call),
        KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. } => video_kernels(b, call),
        KernelCall::Denoise { .. } | KernelCall::Advance { .. } | KernelCall::Noise { .. } => {
            sampler_kernels(b, call)
        }
    }
}

/// Kernels over rows of channels.
fn row_kernels(b: &Binder<'_>, call: &KernelCall) -> Result<Run, RuntimeError> {
    match call {
        KernelCall::Linear { rows, epilogue, .. } => rows::linear(b, *rows, epilogue),
        KernelCall::NormModulate {
            batch,
            width,
            segments,
            norm,
            mods,
            ..
        } => rows::norm_modulate(b, *batch, *width, segments, *norm, mods.as_ref()),
        KernelCall::GateAdd { width, gate, .. } => rows::gate_add(b, *width, gate.as_ref()),
        KernelCall::QkNormRope {
            batch,
            rows,
            heads,
            head_dim,
            norm,
            rope,
            ..
        } => rows::qk_norm_rope(b, [*batch, *rows, *heads, *head_dim], *norm, *rope),
        KernelCall::Activate { function, .. } => rows::activate(b, *function),
        KernelCall::Cast { .. } => rows::cast(b),
        KernelCall::GatedGelu { rows, width, .. } => rows::gated_gelu(b, *rows, *width),
        KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
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

/// Attention, whole or in blocks.
fn attention_kernels(b: &Binder<'_>, call: &KernelCall) -> Result<Run, RuntimeError> {
    match call {
        KernelCall::Attention {
            shape, q, k, v, y, ..
        } => attention::whole(b, *shape, [q, k, v, y]),
        KernelCall::AttentionStep {
            shape,
            q,
            k,
            v,
            stage,
            ..
        } => attention::step(b, *shape, [q, k, v], *stage),
        KernelCall::AttentionFinish {
            rows,
            heads,
            head_dim,
            ..
        } => attention::finish(b, *rows, *heads, *head_dim),
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

/// Kernels that look up or compute rows.
fn table_kernels(b: &Binder<'_>, call: &KernelCall) -> Result<Run, RuntimeError> {
    match call {
        KernelCall::Embedding {
            width, vocabulary, ..
        } => embed::tokens(b, *vocabulary, *width),
        KernelCall::RelativeBias {
            heads,
            q_rows,
            kv_rows,
            buckets,
            max_distance,
            ..
        } => embed::relative_bias(b, [*heads, *q_rows, *kv_rows], *buckets, *max_distance),
        KernelCall::TimestepEmbedding {
            dim, order, shift, ..
        } => embed::timestep(b, *dim, *order, *shift),
        KernelCall::PositionTable {
            kind,
            columns,
            zero_rows,
            t,
            grid_w,
            first_cell,
            cells,
            ..
        } => {
            let rows = [*zero_rows, *t, *grid_w, *first_cell, *cells];
            embed::positions(b, *kind, columns, rows)
        }
        KernelCall::Join {
            batch,
            text_rows,
            video_rows,
            width,
            ..
        } => embed::join(b, [*batch, *text_rows, *video_rows, *width]),
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. }
        | KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. }
        | KernelCall::Denoise { .. }
        | KernelCall::Advance { .. }
        | KernelCall::Noise { .. } => Err(b.other_family()),
    }
}

/// Kernels over video.
fn video_kernels(b: &Binder<'_>, call: &KernelCall) -> Result<Run, RuntimeError> {
    match call {
        KernelCall::Conv3d { shape, .. } => video::conv3d(b, *shape),
        KernelCall::ConvCache {
            batch,
            frames,
            frame_len,
            keep,
            ..
        } => video::conv_cache(b, [*batch, *frames, *frame_len, *keep]),
        KernelCall::GroupNorm {
            batch,
            grid,
            channels,
            groups,
            eps,
            spatial,
            activation,
            ..
        } => {
            let sizes = video::GroupSizes {
                batch: *batch,
                grid: *grid,
                channels: *channels,
                groups: *groups,
            };
            video::group_norm(b, sizes, *eps, spatial.map(|s| s.grid), *activation)
        }
        KernelCall::Upsample {
            batch,
            grid,
            channels,
            time,
            ..
        } => video::upsample(b, *batch, *grid, *channels, *time),
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. }
        | KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. }
        | KernelCall::Denoise { .. }
        | KernelCall::Advance { .. }
        | KernelCall::Noise { .. } => Err(b.other_family()),
    }
}

/// Kernels of the denoising loop.
fn sampler_kernels(b: &Binder<'_>, call: &KernelCall) -> Result<Run, RuntimeError> {
    match call {
        KernelCall::Denoise { .. } => sampler::denoise(b),
        KernelCall::Advance { .. } => sampler::advance(b),
        KernelCall::Noise { boxes, .. } => sampler::noise(b, boxes),
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. }
        | KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. }
        | KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. } => Err(b.other_family()),
    }
}
