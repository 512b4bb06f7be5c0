//! Ops: a closed enum, one file per family with attributes, type inference, sharding rule and cost.
//!
//! Adding an op is one variant here, its attributes and functions in a family file, and a kernel.
//! Every match on [`Op`] is exhaustive.

mod attention;
mod comm;
mod conv;
mod embed;
mod io;
mod linear;
mod modulate;
mod sampler;
mod shape;

pub use attention::{Attention, AttentionStep, Packing, QkNormRope, Rope};
pub use comm::{AllGather, AllToAll, RingShift};
pub use conv::{Conv3d, ConvCache, GroupNorm, Upsample};
pub use embed::{Embedding, PositionTable, RelativeBias, TimestepEmbedding};
pub use io::{Input, Output, Weight};
pub use linear::{Linear, LinearEpilogue};
pub use modulate::{Affine, ModChunks, Norm, NormKind};
pub use sampler::{Denoise, Guidance, Noise, Sources};
pub use shape::{Repeat, Take};

use crate::CompileError;
use crate::ir::{Sharding, Slices, Type};
use terrace_plan::{Activation, DType};

/// Whether an optional operand is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// The operand is left out.
    Absent,
    /// The operand takes its port.
    Present,
}

impl Presence {
    /// How many ports the operand takes.
    pub const fn count(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Present => 1,
        }
    }
}

impl From<bool> for Presence {
    fn from(present: bool) -> Self {
        match present {
            true => Self::Present,
            false => Self::Absent,
        }
    }
}

/// An operation. Operands are listed in port order; `?` marks optional ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A tensor of the caller.
    Input(Input),
    /// A tensor for the caller: `x`.
    Output(Output),
    /// A tensor of the checkpoint.
    Weight(Weight),
    /// `epilogue(x W^T + bias)`: `x, weight, bias?, residual?, mods?`.
    Linear(Linear),
    /// Normalisation of rows, modulated or not: `x, weight?, bias?, mods?`.
    Norm(Norm),
    /// `x * (1 + scale) + shift` per segment: `x, mods`.
    Modulate(Vec<ModChunks>),
    /// `residual + gate * x` per segment, or a plain sum: `residual, x, mods?`.
    Residual(Option<Vec<usize>>),
    /// LayerNorm over the channels of each head: `x, weight?, bias?`.
    HeadNorm(NormKind),
    /// Rotary positions of the last segment's rows: `x, table`.
    Rope(Rope),
    /// LayerNorm of q and k and rotary positions in packed qkv:
    /// `qkv, (q weight, q bias, k weight, k bias)?, table?`.
    QkNormRope(QkNormRope),
    /// Softmax attention: `q, k, v, bias?` or `qkv, bias?`.
    Attention(Attention),
    /// Attention to one block, merged into a running state: `qkv, kv, state?`.
    AttentionStep(AttentionStep),
    /// The result of a running state, in this element type: `state`.
    AttentionFinish(DType),
    /// An elementwise function: `x`.
    Activate(Activation),
    /// The same values in another floating type: `x`.
    Cast(DType),
    /// `gelu_tanh(x[g=0]) * x[g=1]`: `x` with last dimension `(g=2 f)`.
    GatedGelu,
    /// Rows of a table: `ids, table`.
    Embedding(Embedding),
    /// T5's relative position bias: `table`.
    RelativeBias(RelativeBias),
    /// Sinusoidal embedding of a time step: `timestep`.
    TimestepEmbedding(TimestepEmbedding),
    /// A table of positions of the token grid.
    PositionTable(PositionTable),
    /// `[text | video] + positions`: `text, video, positions?`.
    Join(Presence),
    /// One segment of the rows: `x`.
    Segment(usize),
    /// A range of one factor: `x`.
    Take(Take),
    /// Several tensors one after the other along the dimension of this name: `x...`.
    Concat(crate::ir::Name),
    /// Copies along a factor of size one: `x`.
    Repeat(Repeat),
    /// Causal convolution, channels last: `x, weight, bias?, cache?, residual?`.
    Conv3d(Conv3d),
    /// The frames that the next batch of frames needs: `x, cache?`.
    ConvCache(ConvCache),
    /// GroupNorm: `x, weight?, bias?, spatial?`.
    GroupNorm(GroupNorm),
    /// Nearest up-sampling: `x`.
    Upsample(Upsample),
    /// Guidance and predicted clean latents: `pred, latents, coefficients`.
    Denoise(Denoise),
    /// Latents of the next step: `latents, x0, coefficients, previous?, noise?`.
    Advance(Sources),
    /// Standard normal numbers by global position: `key`.
    Noise(Noise),
    /// Another cut of the same tensor: `x`. Sharded stage only.
    Reshard(Sharding),
    /// Sequence shards for head shards, or back: `x`.
    AllToAll(AllToAll),
    /// Every member of the axis gets every part: `x`.
    AllGather(AllGather),
    /// Keys and values of the ring neighbour: `qkv` or `kv`.
    RingShift(RingShift),
}

/// What an op expected of its operands and what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// What the op takes.
    pub expected: String,
    /// What it was given.
    pub found: String,
}

/// Cuts that an op needs of its operands and gives its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// One per operand.
    pub operands: Vec<Sharding>,
    /// Of the result.
    pub result: Sharding,
}

/// Work of an op on whole tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl OpError {
    pub(crate) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn at(self, op: &Op, path: &str) -> CompileError {
        CompileError::Operand {
            op: op.name(),
            path: path.into(),
            expected: self.expected,
            found: self.found,
        }
    }
}

impl Op {
    /// The snake-case name of the text form.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Output(_) => "output",
            Self::Weight(_) => "weight",
            Self::Linear(_) => "linear",
            Self::Norm(_) => "norm",
            Self::Modulate(_) => "modulate",
            Self::Residual(_) => "residual",
            Self::HeadNorm(_) => "head_norm",
            Self::Rope(_) => "rope",
            Self::QkNormRope(_) => "qk_norm_rope",
            Self::Attention(_) => "attention",
            Self::AttentionStep(_) => "attention_step",
            Self::AttentionFinish(_) => "attention_finish",
            Self::Activate(_) => "activate",
            Self::Cast(_) => "cast",
            Self::GatedGelu => "gated_gelu",
            Self::Embedding(_) => "embedding",
            Self::RelativeBias(_) => "relative_bias",
            Self::TimestepEmbedding(_) => "timestep_embedding",
            Self::PositionTable(_) => "position_table",
            Self::Join(_) => "join",
            Self::Segment(_) => "segment",
            Self::Take(_) => "take",
            Self::Concat(_) => "concat",
            Self::Repeat(_) => "repeat",
            Self::Conv3d(_) => "conv3d",
            Self::ConvCache(_) => "conv_cache",
            Self::GroupNorm(_) => "group_norm",
            Self::Upsample(_) => "upsample",
            Self::Denoise(_) => "denoise",
            Self::Advance(_) => "advance",
            Self::Noise(_) => "noise",
            Self::Reshard(_) => "reshard",
            Self::AllToAll(_) => "all_to_all",
            Self::AllGather(_) => "all_gather",
            Self::RingShift(_) => "ring_shift",
        }
    }

    /// Whether the op moves data between ranks.
    pub const fn is_collective(&self) -> bool {
        matches!(
            self,
            Self::AllToAll(_) | Self::AllGather(_) | Self::RingShift(_)
        )
    }
}

/// The type of an op's result.
///
/// # Errors
/// The operands do not fit the op.
pub fn infer(op: &Op, operands: &[&Type]) -> Result<Type, OpError> {
    match op {
        Op::Input(a) => a.infer(operands),
        Op::Output(a) => a.infer(operands),
        Op::Weight(a) => a.infer(operands),
        Op::Linear(a) => a.infer(operands),
        Op::Norm(a) => a.infer(operands),
        Op::Modulate(chunks) => modulate::infer_modulate(chunks, operands),
        Op::Residual(gates) => modulate::infer_residual(gates.as_deref(), operands),
        Op::HeadNorm(kind) => attention::infer_head_norm(*kind, operands),
        Op::Rope(a) => a.infer(operands),
        Op::QkNormRope(a) => a.infer(operands),
        Op::Attention(a) => a.infer(operands),
        Op::AttentionStep(a) => a.infer(operands),
        Op::AttentionFinish(dtype) => attention::infer_finish(*dtype, operands),
        Op::Activate(_) => shape::infer_same(operands),
        Op::Cast(to) => shape::infer_cast(*to, operands),
        Op::GatedGelu => embed::infer_gated(operands),
        Op::Embedding(a) => a.infer(operands),
        Op::RelativeBias(a) => a.infer(operands),
        Op::TimestepEmbedding(a) => a.infer(operands),
        Op::PositionTable(a) => a.infer(operands),
        Op::Join(positions) => embed::infer_join(*positions, operands),
        Op::Segment(index) => shape::infer_segment(*index, operands),
        Op::Take(a) => a.infer(operands),
        Op::Concat(dim) => shape::infer_concat(dim, operands),
        Op::Repeat(a) => a.infer(operands),
        Op::Conv3d(a) => a.infer(operands),
        Op::ConvCache(a) => a.infer(operands),
        Op::GroupNorm(a) => a.infer(operands),
        Op::Upsample(a) => a.infer(operands),
        Op::Denoise(a) => a.infer(operands),
        Op::Advance(sources) => sampler::infer_advance(*sources, operands),
        Op::Noise(a) => a.infer(operands),
        Op::Reshard(_) | Op::AllToAll(_) | Op::AllGather(_) => shape::infer_same(operands),
        Op::RingShift(a) => a.infer(operands),
    }
}

/// The cuts that an op needs and gives when the graph is cut as `slices` says.
pub fn rule(op: &Op, operands: &[&Type], result: &Type, slices: &Slices) -> Rule {
    match op {
        Op::Attention(_) | Op::AttentionStep(_) | Op::AttentionFinish(_) | Op::RingShift(_) => {
            attention::rule(operands, result, slices)
        }
        Op::Linear(_) => linear::rule(operands, result, slices),
        Op::Denoise(a) => sampler::rule_denoise(a, operands, result, slices),
        Op::Weight(a) => a.rule(result, slices),
        Op::Input(_)
        | Op::Output(_)
        | Op::Norm(_)
        | Op::Modulate(_)
        | Op::Residual(_)
        | Op::HeadNorm(_)
        | Op::Rope(_)
        | Op::QkNormRope(_)
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
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_) => by_name(operands, result, slices),
    }
}

/// Every factor is cut as the slices say, wherever it occurs: the rule of elementwise ops.
fn by_name(operands: &[&Type], result: &Type, slices: &Slices) -> Rule {
    Rule {
        operands: operands
            .iter()
            .map(|ty| Sharding::of(ty, &slices.rows))
            .collect(),
        result: Sharding::of(result, &slices.rows),
    }
}

/// Checks the number of operands.
fn arity(operands: &[&Type], expected: usize) -> Result<(), OpError> {
    if operands.len() == expected {
        return Ok(());
    }
    Err(OpError::new(
        format!("{expected} operands"),
        format!("{}", operands.len()),
    ))
}

/// Checks that two sizes are equal.
fn same_size(what: &str, expected: usize, found: usize) -> Result<(), OpError> {
    if expected == found {
        return Ok(());
    }
    Err(OpError::new(
        format!("{what} {expected}"),
        format!("{found}"),
    ))
}

/// The last dimension of a type.
fn last(ty: &Type) -> Result<&crate::ir::Dim, OpError> {
    ty.dims
        .last()
        .ok_or_else(|| OpError::new("at least one dimension", "a scalar"))
}
