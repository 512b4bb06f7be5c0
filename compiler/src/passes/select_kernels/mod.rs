//! select-kernels: the kernel call that computes a node on one rank.
//!
//! Sizes come from the rank's local types, strides from the packing of the operands. One
//! exhaustive match leads from op to kernel; ops that only move data have none and are served by
//! copies and exchanges.
//!
//! ```text
//! before  %3 = linear %0 %1 %2 out=[c=8] bias : f32[b=1, seq=(txt=2 | t=1 h.w=4), c=8]
//! after   linear rows=6 k=16 n=8 x=b0 weight=w0 bias=w1 y=b1
//! ```
//!
//! Refuses ops that only exist fused (rotary positions outside packed qkv) and operands that are
//! weights where a computed tensor is needed.

mod attention;
mod rows;
mod sampler;
mod site;
mod video;

pub use site::Site;

use crate::CompileError;
use crate::ops::Op;
use terrace_plan::{BufferId, KernelCall, Stage, WeightId};

/// Where an operand is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a buffer of the rank.
    Buffer(BufferId),
    /// Among the weights.
    Weight(WeightId),
}

/// The kernel call of a node, or `None` when the op only moves data.
///
/// # Errors
/// No kernel serves the op in this form.
pub fn run(site: &Site<'_>) -> Result<Option<KernelCall>, CompileError> {
    let call = match site.op() {
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Concat(_)
        | Op::Repeat(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => return Ok(None),
        Op::Reshard(_) => return Err(site.refuse("reshards are lowered before")),
        Op::Rope(_) => return Err(site.refuse("rotary positions need packed queries and keys")),
        Op::Linear(a) => site.linear(a)?,
        Op::Norm(a) => site.norm(Some(a.kind), a.modulate.as_deref())?,
        Op::Modulate(chunks) => site.norm(None, Some(chunks))?,
        Op::Residual(gates) => site.residual(gates.as_deref())?,
        Op::HeadNorm(kind) => site.head_norm(*kind)?,
        Op::QkNormRope(a) => site.qk_norm_rope(a)?,
        Op::Attention(a) => site.attention(a)?,
        Op::AttentionStep(a) => site.attention_step(a)?,
        Op::AttentionFinish(_) => site.attention_finish()?,
        Op::Activate(function) => site.activate(*function)?,
        Op::Cast(_) => site.cast()?,
        Op::GatedGelu => site.gated_gelu()?,
        Op::Embedding(_) => site.embedding()?,
        Op::RelativeBias(a) => site.relative_bias(a)?,
        Op::TimestepEmbedding(a) => site.timestep_embedding(a)?,
        Op::PositionTable(a) => site.position_table(a)?,
        Op::Join(positions) => site.join(*positions)?,
        Op::Conv3d(a) => site.conv3d(a)?,
        Op::ConvCache(a) => site.conv_cache(a)?,
        Op::GroupNorm(a) => site.group_norm(a)?,
        Op::Upsample(a) => site.upsample(a)?,
        Op::Denoise(a) => site.denoise(a)?,
        Op::Advance(a) => site.advance(*a)?,
        Op::Noise(a) => site.noise(a)?,
    };
    Ok(Some(call))
}

/// Operands whose buffer the result may take over, best first.
pub fn in_place_ports(op: &Op) -> Vec<usize> {
    match op {
        Op::Norm(_)
        | Op::Modulate(_)
        | Op::HeadNorm(_)
        | Op::QkNormRope(_)
        | Op::Activate(_)
        | Op::GroupNorm(_) => vec![0],
        Op::Residual(_) => vec![0, 1],
        Op::Linear(a) => a.residual_port().into_iter().collect(),
        Op::AttentionStep(a) => match a.stage {
            Stage::First => Vec::new(),
            Stage::Next => vec![2],
        },
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Rope(_)
        | Op::Attention(_)
        | Op::AttentionFinish(_)
        | Op::Cast(_)
        | Op::GatedGelu
        | Op::Embedding(_)
        | Op::RelativeBias(_)
        | Op::TimestepEmbedding(_)
        | Op::PositionTable(_)
        | Op::Join(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Concat(_)
        | Op::Repeat(_)
        | Op::Conv3d(_)
        | Op::ConvCache(_)
        | Op::Upsample(_)
        | Op::Denoise(_)
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => Vec::new(),
    }
}

/// The operand that the kernel changes in place and that must be copied first when it lives on.
pub fn updated_port(op: &Op) -> Option<usize> {
    match op {
        Op::QkNormRope(_) => Some(0),
        Op::AttentionStep(a) => (a.stage == Stage::Next).then_some(2),
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Linear(_)
        | Op::Norm(_)
        | Op::Modulate(_)
        | Op::Residual(_)
        | Op::HeadNorm(_)
        | Op::Rope(_)
        | Op::Attention(_)
        | Op::AttentionFinish(_)
        | Op::Activate(_)
        | Op::Cast(_)
        | Op::GatedGelu
        | Op::Embedding(_)
        | Op::RelativeBias(_)
        | Op::TimestepEmbedding(_)
        | Op::PositionTable(_)
        | Op::Join(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Concat(_)
        | Op::Repeat(_)
        | Op::Conv3d(_)
        | Op::ConvCache(_)
        | Op::GroupNorm(_)
        | Op::Upsample(_)
        | Op::Denoise(_)
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => None,
    }
}
