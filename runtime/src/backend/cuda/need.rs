//! The scratch that the calls of a rank need, known before anything is allocated.
//!
//! Invariant: it is the largest need of any one call; what a call is prepared with is computed by the
//! same functions. Plans of cuDNN are made here, and found again when calls are prepared.

use super::lane::Lane;
use super::route;
use crate::RuntimeError;
use terrace_kernels::cuda::{AttentionPlan, ConvPlan};
use terrace_plan::{Action, DType, Epilogue, KernelCall, RankPlan, Slot};

/// Bytes at whose multiples the parts of the scratch of a call begin.
const ALIGNMENT: usize = 256;

/// Parts that lie one behind the other: where each begins, and the bytes of all.
pub(super) fn parts<const N: usize>(bytes: [usize; N]) -> ([usize; N], usize) {
    let mut end = 0usize;
    let starts = bytes.map(|bytes| {
        let start = end;
        end = start.saturating_add(bytes).saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        start
    });
    (starts, end)
}

/// Result, log-sum-exp and scratch of cuDNN of a step of attention.
pub(super) fn of_step(plan: &AttentionPlan, workspace: usize) -> ([usize; 3], usize) {
    let rows = plan.batch * plan.heads * plan.q_rows;
    parts([
        rows * plan.head_dim * plan.element.bytes(),
        rows * size_of::<f32>(),
        workspace,
    ])
}

/// Frames before and in the input, and scratch of cuDNN of a convolution.
pub(super) fn of_conv(plan: &ConvPlan, workspace: usize) -> ([usize; 2], usize) {
    let [t, h, w] = plan.grid;
    let before = plan.kernel[0] - 1;
    let frames = match before {
        0 => 0,
        _ => plan.batch * (t + before) * h * w * plan.cin * plan.element.bytes(),
    };
    parts([frames, workspace])
}

/// Bytes that the largest need of any call of `plan` takes.
pub(super) fn scratch(plan: &RankPlan, lane: &Lane) -> Result<usize, RuntimeError> {
    let mut most = 0;
    for step in plan.init.iter().chain(&plan.steps) {
        if let Action::Launch(call) = &step.action {
            most = most.max(of_call(call, plan, lane)?);
        }
    }
    Ok(most)
}

fn of_call(call: &KernelCall, plan: &RankPlan, lane: &Lane) -> Result<usize, RuntimeError> {
    let buffer = |slot: Slot| plan.buffers.get(slot.buffer.0);
    let dtype = |slot| buffer(slot).map_or(DType::F32, |buffer| buffer.dtype);
    match call {
        KernelCall::Linear {
            rows,
            n,
            x,
            epilogue: Epilogue::Residual { .. },
            ..
        } => Ok(rows.saturating_mul(*n).saturating_mul(dtype(*x).bytes())),
        KernelCall::Attention {
            shape,
            q,
            k,
            v,
            bias: None,
            y,
        } => match route::attention(dtype(q.slot), *shape, [q, k, v], Some(y)) {
            Some(key) => Ok(lane.dnn()?.attention_workspace(key)?),
            None => Ok(0),
        },
        KernelCall::AttentionStep { shape, q, k, v, .. } => {
            match route::attention(dtype(q.slot), *shape, [q, k, v], None) {
                Some(key) => Ok(of_step(&key, lane.dnn()?.attention_workspace(key)?).1),
                None => Ok(0),
            }
        }
        KernelCall::Conv3d {
            shape,
            x,
            bias,
            residual,
            ..
        } => match route::conv(dtype(*x), *shape, bias.is_some(), residual.is_some()) {
            Some(key) => Ok(of_conv(&key, lane.dnn()?.conv_workspace(key)?).1),
            None => Ok(0),
        },
        KernelCall::Linear { .. }
        | KernelCall::Attention { .. }
        | KernelCall::Cast { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Activate { .. }
        | KernelCall::GatedGelu { .. }
        | KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. }
        | KernelCall::Denoise { .. }
        | KernelCall::Advance { .. }
        | KernelCall::Noise { .. } => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_begin_apart_and_aligned() {
        assert_eq!(parts([0, 300, 1, 256]), ([0, 0, 512, 768], 1024));
        assert_eq!(parts([usize::MAX]).1, usize::MAX / 256 * 256);
    }
}
