//! Kernels of the denoising loop: guidance, scheduler update, noise.
//!
//! Invariant: coefficients and keys are read when the kernel runs, since they change with every call.

use super::{Binder, Calls, For, Places};
use terrace_kernels::cube::{Advance, Denoise, NoiseBox};
use terrace_plan::{BoxCopy, KernelCall};

pub(super) fn calls<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    match call {
        KernelCall::Denoise { .. } => {
            let denoise = Denoise {
                uncond: b.maybe("uncond")?,
                pred: b.operand("pred")?,
                latents: b.operand("latents")?,
                coefficients: b.operand("coefficients")?,
                y: b.operand("y")?,
            };
            Ok(denoise.calls(device)?)
        }
        KernelCall::Advance { .. } => {
            let advance = Advance {
                latents: b.operand("latents")?,
                x0: b.operand("x0")?,
                previous: b.maybe("previous")?,
                noise: b.maybe("noise")?,
                coefficients: b.operand("coefficients")?,
                y: b.operand("y")?,
            };
            Ok(advance.calls(device)?)
        }
        KernelCall::Noise { boxes, .. } => noise(b, device, boxes),
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
        | KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. } => Err(b.other_family()),
    }
}

fn noise<P: Places>(b: &Binder<'_, P>, device: &For<P>, boxes: &[BoxCopy]) -> Calls<P> {
    let mut calls = Vec::new();
    for copy in boxes {
        let strides: Vec<u64> = copy.src_strides.iter().map(|&s| s as u64).collect();
        let noise = NoiseBox {
            key: b.operand("key")?,
            extents: &copy.extents,
            out: b.operand("y")?,
            out_offset: copy.dst_offset,
            out_strides: &copy.dst_strides,
            index_offset: copy.src_offset as u64,
            index_strides: &strides,
        };
        calls.extend(noise.calls(device)?);
    }
    Ok(calls)
}
