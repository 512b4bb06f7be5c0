//! The scratch that the calls of a rank need, known before anything is allocated.
//!
//! Invariant: it is the largest need of any one call; what a call is prepared with is computed by the
//! same functions. Plans of cuDNN are made here, and found again when calls are prepared. A call for which
//! cuDNN has no plan is left to the kernels of `terrace-kernels`, which need none.

use super::lane::Lane;
use super::route::{self, ProductRoute, Rest};
use crate::RuntimeError;
use terrace_kernels::cuda::{AttentionPlan, ConvPlan, CudaFault, Factors};
use terrace_plan::{Action, DType, KernelCall, RankPlan, Slot, Weight};

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

/// What a library has made, or nothing where it serves no such call.
///
/// # Errors
/// When the library fails in any other way.
pub(super) fn served<T>(made: Result<T, CudaFault>) -> Result<Option<T>, RuntimeError> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(CudaFault::Unsupported { .. }) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// Scratch of cuDNN for a whole attention or a step of one, if it has a plan.
pub(super) fn for_attention(
    lane: &Lane,
    key: AttentionPlan,
) -> Result<Option<usize>, RuntimeError> {
    served(lane.dnn()?.attention_workspace(key))
}

/// Scratch of cuDNN for a convolution, if it has a plan.
pub(super) fn for_conv(lane: &Lane, key: ConvPlan) -> Result<Option<usize>, RuntimeError> {
    served(lane.dnn()?.conv_workspace(key))
}

/// Codes and scales of the rows of a product in FP8, and the product itself where it is not the result.
/// `sizes`: `rows`, `k`, `n`.
pub(super) fn of_product(route: &ProductRoute, sizes: [usize; 3]) -> ([usize; 3], usize) {
    let [rows, k, n] = sizes;
    let (codes, scales) = match route.factors {
        Factors::OfResult => (0, 0),
        Factors::F8E4M3 => (
            rows.saturating_mul(k),
            rows.saturating_mul(size_of::<f32>()),
        ),
    };
    let product = match route.rest {
        Rest::Residual => rows.saturating_mul(n).saturating_mul(route.element.bytes()),
        Rest::Nothing | Rest::Gelu | Rest::GeluTanh | Rest::Silu => 0,
    };
    parts([codes, scales, product])
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
pub(super) fn scratch(
    plan: &RankPlan,
    weights: &[Weight],
    lane: &Lane,
) -> Result<usize, RuntimeError> {
    let mut most = 0;
    for step in plan.init.iter().chain(&plan.steps) {
        if let Action::Launch(call) = &step.action {
            most = most.max(of_call(call, plan, weights, lane)?);
        }
    }
    Ok(most)
}

fn of_call(
    call: &KernelCall,
    plan: &RankPlan,
    weights: &[Weight],
    lane: &Lane,
) -> Result<usize, RuntimeError> {
    let buffer = |slot: Slot| plan.buffers.get(slot.buffer.0);
    let dtype = |slot| buffer(slot).map_or(DType::F32, |buffer| buffer.dtype);
    match call {
        KernelCall::Linear { .. } => Ok(of_linear(call, dtype, weights)),
        KernelCall::Attention {
            shape,
            q,
            k,
            v,
            bias: None,
            y,
        } => {
            let key = route::attention(dtype(q.slot), *shape, [q, k, v], Some(y));
            let scratch = key.map(|key| for_attention(lane, key)).transpose()?;
            Ok(scratch.flatten().unwrap_or(0))
        }
        KernelCall::AttentionStep { shape, q, k, v, .. } => {
            let key = route::attention(dtype(q.slot), *shape, [q, k, v], None);
            key.map_or(Ok(0), |key| all_of_step(lane, key))
        }
        KernelCall::Conv3d {
            shape,
            x,
            bias,
            residual,
            ..
        } => {
            let key = route::conv(dtype(*x), *shape, bias.is_some(), residual.is_some());
            key.map_or(Ok(0), |key| all_of_conv(lane, key))
        }
        KernelCall::Attention { .. }
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

fn of_linear(call: &KernelCall, dtype: impl Fn(Slot) -> DType, weights: &[Weight]) -> usize {
    let KernelCall::Linear {
        rows,
        k,
        n,
        x,
        weight,
        bias,
        epilogue,
        ..
    } = call
    else {
        return 0;
    };
    let stored = weights.get(weight.0);
    let stored = stored.map_or(DType::F32, |weight| weight.dtype);
    let route = route::product(dtype(*x), stored, [*k, *n], epilogue, bias.is_some());
    route.map_or(0, |route| of_product(&route, [*rows, *k, *n]).1)
}

fn all_of_step(lane: &Lane, key: AttentionPlan) -> Result<usize, RuntimeError> {
    let scratch = for_attention(lane, key)?;
    Ok(scratch.map_or(0, |scratch| of_step(&key, scratch).1))
}

fn all_of_conv(lane: &Lane, key: ConvPlan) -> Result<usize, RuntimeError> {
    let scratch = for_conv(lane, key)?;
    Ok(scratch.map_or(0, |scratch| of_conv(&key, scratch).1))
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
