//! The two kernels that a transformer spends its time in, alone: matrix product and attention.
//!
//! On the CPU they are called as they are; GPUs run plans of one kernel.

use super::{Limit, Measured, Repeat, measure, operands, single, timed};
use crate::{Device, Error, Precision, Runner, tensors};
use std::sync::Arc;
use terrace_kernels::cpu::{
    Attention, AttentionProducts, HeadsView, HeadsViewMut, Linear, LinearEpilogue, Operands,
    PackedLinear,
};
use terrace_plan::{DType, Plan, Rank};
use terrace_runtime::backend::Backend;
use terrace_runtime::backend::cpu::Cpu;
use terrace_runtime::{Checkpoint, HostTensor, SessionOptions};

/// Size of a matrix product `x [rows, k] W [n, k]^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmSize {
    /// Rows of the input.
    pub rows: usize,
    /// Columns of the input.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
}

impl GemmSize {
    fn flops(self) -> u64 {
        product([2, self.rows, self.k, self.n])
    }
}

/// Size of an attention over one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSize {
    /// Queries, and keys.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

impl AttentionSize {
    /// Those of its two products.
    fn flops(self) -> u64 {
        product([4, self.heads, self.tokens, self.tokens, self.head_dim])
    }
}

/// Measures a matrix product with a packed weight.
///
/// # Errors
/// There is no memory for the operands, or the device fails.
pub fn gemm(
    size: GemmSize,
    precision: Precision,
    runner: &Runner,
    repeat: Repeat,
) -> Result<Measured, Error> {
    match runner.device() {
        Device::Cpu => gemm_on_cpu(size, precision, runner.options(), repeat),
        Device::Wgpu { .. } | Device::Cuda { .. } => {
            let input = tensors::noise(vec![size.rows, size.k])?;
            let plan = single::gemm(size, precision)?;
            on_gpu(plan, &input, size.flops(), runner, repeat)
        }
    }
}

/// Measures an attention whose queries, keys and values lie in one matrix, as the transformer has them.
///
/// # Errors
/// There is no memory for the operands, or the device fails.
pub fn attention(
    size: AttentionSize,
    precision: Precision,
    runner: &Runner,
    repeat: Repeat,
) -> Result<Measured, Error> {
    match runner.device() {
        Device::Cpu => attention_on_cpu(size, precision, runner.options(), repeat),
        Device::Wgpu { .. } | Device::Cuda { .. } => {
            let input = tensors::noise(vec![size.tokens, 3, size.heads, size.head_dim])?;
            let plan = single::attention(size, precision)?;
            on_gpu(plan, &input, size.flops(), runner, repeat)
        }
    }
}

/// Measures one of the kernels that a plan repeats.
fn on_gpu(
    plan: Plan,
    input: &HostTensor,
    flops: u64,
    runner: &Runner,
    repeat: Repeat,
) -> Result<Measured, Error> {
    let checkpoint = Checkpoint::noise(&plan, 0)?;
    let mut session = runner.session(Arc::new(plan), &checkpoint)?;
    session.set(single::INPUT, input)?;
    measure(repeat.on(runner.device()), Limit::Unknown, flops, || {
        Ok(timed(|| session.run())? / single::REPEATS)
    })
}

fn gemm_on_cpu(
    size: GemmSize,
    precision: Precision,
    options: &SessionOptions,
    repeat: Repeat,
) -> Result<Measured, Error> {
    let GemmSize { rows, k, n } = size;
    let weight = tensors::noise(vec![n, k])?;
    let threads = options.threads_per_rank(1);
    let lane = Cpu::pool(Rank(0), threads)?;
    let (operands, weight) = (operands(precision)?, weight.as_f32()?);
    let weight = Cpu.enter(&lane, || {
        PackedLinear::pack_with(operands, n, k, |row, out| {
            out.copy_from_slice(&weight[row * k..][..k]);
        })
    })?;
    let x = tensors::noise(vec![rows, k])?;
    let x = x.as_f32()?;
    let mut y = HostTensor::zeros(vec![rows, n], DType::F32)?;
    let y = y.as_f32_mut()?;
    let limit = Limit::Threads(threads, operands);
    measure(repeat, limit, size.flops(), || {
        let linear = Linear {
            rows,
            x,
            weight: &weight,
            bias: None,
            epilogue: LinearEpilogue::None,
            y: &mut *y,
        };
        Ok(timed(|| Cpu.enter(&lane, || linear.run()))?)
    })
}

fn attention_on_cpu(
    size: AttentionSize,
    precision: Precision,
    options: &SessionOptions,
    repeat: Repeat,
) -> Result<Measured, Error> {
    let AttentionSize {
        tokens,
        heads,
        head_dim,
    } = size;
    let joined = tensors::noise(vec![tokens, 3, heads, head_dim])?;
    let joined = joined.as_f32()?;
    let mut y = HostTensor::zeros(vec![tokens, heads, head_dim], DType::F32)?;
    let y = y.as_f32_mut()?;
    let width = heads.saturating_mul(head_dim);
    let view = |part: usize| HeadsView {
        data: &joined[part.saturating_mul(width).min(joined.len())..],
        batch_stride: 0,
        row_stride: width.saturating_mul(3),
        head_stride: head_dim,
    };
    let threads = options.threads_per_rank(1);
    let lane = Cpu::pool(Rank(0), threads)?;
    let (products, operands) = match operands(precision)? {
        Operands::F32 => (AttentionProducts::F32, Operands::F32),
        Operands::Bf16 | Operands::I8 | Operands::F8E4M3 => {
            (AttentionProducts::Bf16, Operands::Bf16)
        }
    };
    let limit = Limit::Threads(threads, operands);
    measure(repeat, limit, size.flops(), || {
        let attention = Attention {
            batch: 1,
            heads,
            q_rows: tokens,
            kv_rows: tokens,
            head_dim,
            scale: (head_dim as f32).sqrt().recip(),
            products,
            q: view(0),
            k: view(1),
            v: view(2),
            bias: None,
            y: HeadsViewMut {
                data: &mut *y,
                batch_stride: 0,
                row_stride: width,
                head_stride: head_dim,
            },
        };
        Ok(timed(|| Cpu.enter(&lane, || attention.run()))?)
    })
}

fn product<const N: usize>(sizes: [usize; N]) -> u64 {
    let sizes = sizes.into_iter().map(|size| size as u64);
    sizes.fold(1, u64::saturating_mul)
}
