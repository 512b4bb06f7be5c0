//! Kernels over channels-last video: convolution, its cache, GroupNorm, up-sampling.
//!
//! Refused: a GroupNorm that ends in an activation which no model of the format has.

use super::super::super::args;
use super::super::operand::{Access, Binder};
use super::Run;
use crate::RuntimeError;
use terrace_kernels::cpu::{Conv3d, ConvCache, GroupActivation, GroupNorm, Spatial, Upsample};
use terrace_plan::{Activation, ConvShape, UpsampleTime};

pub(super) fn conv3d(b: &Binder<'_>, shape: ConvShape) -> Result<Run, RuntimeError> {
    let (x, y, cache) = (b.input("x")?, b.output("y")?, b.maybe("cache"));
    let (weight, bias) = (b.conv3d("weight")?, b.plain("bias"));
    let residual = b.maybe("residual");
    let [frames, height, width] = shape.grid;
    Ok(Box::new(move |a: &Access| {
        Conv3d {
            batch: shape.batch,
            frames,
            height,
            width,
            x: x.get(a),
            cache: cache.as_ref().map(|cache| cache.get(a)),
            weight: &weight,
            bias: bias.as_ref().map(|bias| bias.get()),
            residual: residual.as_ref().map(|residual| residual.get(a)),
            y: y.get(a),
        }
        .run()
    }))
}

/// `sizes`: batch, frames, elements of a frame, frames kept.
pub(super) fn conv_cache(b: &Binder<'_>, sizes: [usize; 4]) -> Result<Run, RuntimeError> {
    let (x, cache, y) = (b.input("x")?, b.maybe("cache"), b.output("y")?);
    let [batch, frames, frame, keep] = sizes;
    Ok(Box::new(move |a: &Access| {
        ConvCache {
            batch,
            frames,
            frame,
            keep,
            cache: cache.as_ref().map(|c| c.get(a)),
            x: x.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

/// Sizes of a GroupNorm.
#[derive(Clone, Copy)]
pub(super) struct GroupSizes {
    pub(super) batch: usize,
    pub(super) grid: [usize; 3],
    pub(super) channels: usize,
    pub(super) groups: usize,
}

pub(super) fn group_norm(
    b: &Binder<'_>,
    sizes: GroupSizes,
    eps: f64,
    spatial: Option<[usize; 3]>,
    activation: Option<Activation>,
) -> Result<Run, RuntimeError> {
    let GroupSizes {
        batch,
        grid: [frames, height, width],
        channels,
        groups,
    } = sizes;
    let (x, y, yb) = (b.maybe_in_place("x")?, b.output("y")?, b.maybe("yb"));
    let (weight, bias) = (b.plain("weight"), b.plain("bias"));
    // The kernel always scales and shifts; absent weights do nothing. An untrusted call over no
    // elements may have any number of channels.
    let known = channels.min(y.len());
    let (ones, zeros) = (vec![1.0; known], vec![0.0; known]);
    let activation = match activation {
        None => GroupActivation::Identity,
        Some(Activation::Silu) => GroupActivation::Silu,
        Some(Activation::Gelu | Activation::GeluTanh) => {
            return Err(RuntimeError::UnsupportedCall {
                kernel: b.kernel(),
                found: "activation gelu",
                expected: "silu or none",
            });
        }
    };
    Ok(Box::new(move |a: &Access| {
        let grid = spatial.zip(yb.as_ref());
        let spatial = grid.map(|([frames, height, width], yb)| Spatial {
            yb: yb.get(a),
            frames,
            height,
            width,
        });
        GroupNorm {
            batch,
            frames,
            height,
            width,
            channels,
            groups,
            eps: eps as f32,
            weight: weight.as_ref().map_or(&ones, |w| w.get()),
            bias: bias.as_ref().map_or(&zeros, |b| b.get()),
            spatial,
            activation,
            x: x.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

pub(super) fn upsample(
    b: &Binder<'_>,
    batch: usize,
    grid: [usize; 3],
    channels: usize,
    time: UpsampleTime,
) -> Result<Run, RuntimeError> {
    let (x, y) = (b.input("x")?, b.output("y")?);
    let [frames, height, width] = grid;
    let time = args::time_mode(time);
    Ok(Box::new(move |a: &Access| {
        Upsample {
            batch,
            frames,
            height,
            width,
            channels,
            time,
            x: x.get(a),
            y: y.get(a),
        }
        .run()
    }))
}
