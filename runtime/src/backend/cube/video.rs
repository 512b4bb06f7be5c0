//! Kernels over channels-last video: convolution, its cache, GroupNorm, up-sampling.

use super::super::args;
use super::{Binder, Calls, For, Places, rows};
use crate::RuntimeError;
use terrace_kernels::cube::{
    Conv3d, ConvCache, ConvWeight, Function, GroupNorm, GroupShape, Spatial, Upsample,
};
use terrace_plan::{Activation, ConvShape, KernelCall, SpatialModulation, UpsampleTime};

pub(super) fn calls<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    match call {
        KernelCall::Conv3d { shape, .. } => conv3d(b, device, *shape),
        KernelCall::ConvCache {
            batch,
            frames,
            frame_len,
            keep,
            ..
        } => conv_cache(b, device, [*batch, *frames, *frame_len, *keep]),
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
            let shape = GroupShape {
                batch: *batch,
                grid: *grid,
                channels: *channels,
                groups: *groups,
            };
            group_norm(b, device, shape, *eps, *spatial, *activation)
        }
        KernelCall::Upsample {
            batch,
            grid: [frames, height, width],
            channels,
            time,
            ..
        } => {
            let sizes = [*batch, *frames, *height, *width, *channels];
            upsample(b, device, sizes, *time)
        }
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. }
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

fn conv3d<P: Places>(b: &Binder<'_, P>, device: &For<P>, shape: ConvShape) -> Calls<P> {
    let [frames, height, width] = shape.grid;
    let conv = Conv3d {
        batch: shape.batch,
        frames,
        height,
        width,
        shape: ConvWeight {
            cout: shape.cout,
            cin: shape.cin,
            kernel: shape.kernel,
        },
        x: b.operand("x")?,
        cache: b.maybe("cache")?,
        weight: b.weight("weight")?,
        bias: b.loaded("bias"),
        residual: b.maybe("residual")?,
        y: b.operand("y")?,
    };
    Ok(conv.calls(device)?)
}

/// `sizes`: batch, frames, elements of a frame, frames kept.
fn conv_cache<P: Places>(b: &Binder<'_, P>, device: &For<P>, sizes: [usize; 4]) -> Calls<P> {
    let [batch, frames, frame, keep] = sizes;
    let cache = ConvCache {
        batch,
        frames,
        frame,
        keep,
        cache: b.maybe("cache")?,
        x: b.operand("x")?,
        y: b.operand("y")?,
    };
    Ok(cache.calls(device)?)
}

/// `sizes`: batch, frames, height, width, channels.
fn upsample<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    sizes: [usize; 5],
    time: UpsampleTime,
) -> Calls<P> {
    let [batch, frames, height, width, channels] = sizes;
    let upsample = Upsample {
        batch,
        frames,
        height,
        width,
        channels,
        time: args::time_mode(time),
        x: b.operand("x")?,
        y: b.operand("y")?,
    };
    Ok(upsample.calls(device)?)
}

fn group_norm<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    shape: GroupShape,
    eps: f64,
    spatial: Option<SpatialModulation>,
    activation: Option<Activation>,
) -> Calls<P> {
    let spatial = spatial.map(|spatial| {
        Ok::<_, RuntimeError>(Spatial {
            yb: b.operand("yb")?,
            grid: spatial.grid,
        })
    });
    let norm = GroupNorm {
        shape,
        eps: eps as f32,
        weight: b.loaded("weight"),
        bias: b.loaded("bias"),
        spatial: spatial.transpose()?,
        activation: activation.map_or(Function::Identity, rows::function),
        x: b.operand("x")?,
        scratch: b.scratch(shape.scratch()?)?,
        y: b.operand("y")?,
    };
    Ok(norm.calls(device)?)
}
