//! The kernels for GPUs by kernel call, for every backend that launches them: exhaustive matches, one
//! file per family of kernels.
//!
//! Invariants: every operand of a call goes through a [`Binder`], which has checked it; nothing here
//! knows a queue or an address. Epsilons, scales and frequencies of a plan are f64; kernels compute
//! in f32 and get them rounded.

mod attention;
mod embed;
mod operand;
mod rows;
mod sampler;
mod video;
mod weight;

pub(crate) use operand::{Binder, Buffer, Places, element};
pub(crate) use weight::{CubeWeight, pack};

use crate::RuntimeError;
use terrace_kernels::cube::{Call, Device, Queue};
use terrace_plan::KernelCall;

/// The device that calls are made for.
pub(crate) type For<P> = Device<<<P as Places>::Queue as Queue>::Runtime>;

/// The launches of a call, in order.
pub(crate) type Calls<P> = Result<Vec<Call<Buffer<P>>>, RuntimeError>;

/// Resolves a call.
pub(crate) fn calls<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    match call {
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. } => rows::calls(b, device, call),
        KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. } => attention::calls(b, device, call),
        KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. } => embed::calls(b, device, call),
        KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. } => video::calls(b, device, call),
        KernelCall::Denoise { .. } | KernelCall::Advance { .. } | KernelCall::Noise { .. } => {
            sampler::calls(b, device, call)
        }
    }
}
