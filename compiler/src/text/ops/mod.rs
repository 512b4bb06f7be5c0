//! The text of ops: what stands between the operands and the type, one file per family, each op
//! printed and parsed side by side.
//!
//! An op is its name, its operands and its attributes in a fixed order. Optional operands show as
//! a word (`bias`), optional attributes are left out. What the type of the line says already is
//! not repeated, unless the line shows the part of one rank.

mod attention;
mod comm;
mod conv;
mod embed;
mod io;
mod linear;
mod modulate;
mod sampler;
mod shape;

use super::reader::Reader;
use super::value::Value;
use crate::CompileError;
use crate::ir::{Node, Type};
use crate::ops::{Op, Presence};

/// Attributes of an op.
trait Attributes: Sized {
    fn write(&self, line: &mut Line<'_>);
    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError>;
}

/// A line under construction.
struct Line<'a> {
    text: &'a mut String,
    node: &'a Node,
}

impl Line<'_> {
    fn word(&mut self, word: &str) {
        self.text.push(' ');
        self.text.push_str(word);
    }

    fn value<T: Value>(&mut self, value: &T) {
        self.text.push(' ');
        value.write(self.text);
    }

    fn key<T: Value>(&mut self, key: &str, value: &T) {
        self.word(key);
        self.text.push('=');
        value.write(self.text);
    }

    fn flag(&mut self, word: &str, presence: Presence) {
        if presence == Presence::Present {
            self.word(word);
        }
    }

    /// The global type of a border of the graph, when the line shows another.
    fn whole(&mut self, ty: &Type) {
        if *ty != self.node.ty {
            self.key("whole", ty);
        }
    }
}

/// The inverse of [`Line::whole`].
fn read_whole(from: &mut Reader<'_>) -> Result<Type, CompileError> {
    match from.optional("whole")? {
        Some(ty) => Ok(ty),
        None => Ok(from.annotation()?.0),
    }
}

/// Writes the attributes of a node's op, each after a space.
pub(super) fn write(node: &Node, text: &mut String) {
    let line = &mut Line { text, node };
    match &node.op {
        Op::Input(a) => a.write(line),
        Op::Output(a) => a.write(line),
        Op::Weight(a) => a.write(line),
        Op::Linear(a) => a.write(line),
        Op::Norm(a) => a.write(line),
        Op::Modulate(chunks) => line.key("chunks", chunks),
        Op::Residual(gates) => gates.write(line),
        Op::HeadNorm(kind) => kind.write(line),
        Op::Rope(a) => a.write(line),
        Op::QkNormRope(a) => a.write(line),
        Op::Attention(a) => a.write(line),
        Op::AttentionStep(a) => a.write(line),
        // The element type is that of its line.
        Op::AttentionFinish(_) | Op::GatedGelu => {}
        Op::Cast(to) => line.key("to", to),
        Op::Activate(function) => line.value(function),
        Op::Embedding(a) => a.write(line),
        Op::RelativeBias(a) => a.write(line),
        Op::TimestepEmbedding(a) => a.write(line),
        Op::PositionTable(a) => a.write(line),
        Op::Join(positions) => line.flag("positions", *positions),
        Op::Segment(index) => line.value(index),
        Op::Take(a) => a.write(line),
        Op::Concat(dim) => line.value(dim),
        Op::Repeat(a) => a.write(line),
        Op::Conv3d(a) => a.write(line),
        Op::ConvCache(a) => a.write(line),
        Op::GroupNorm(a) => a.write(line),
        Op::Upsample(a) => a.write(line),
        Op::Denoise(a) => a.write(line),
        Op::Advance(a) => a.write(line),
        Op::Noise(a) => a.write(line),
        // The cut that a reshard makes is that of its line.
        Op::Reshard(_) => {}
        Op::AllToAll(a) => a.write(line),
        Op::AllGather(a) => a.write(line),
        Op::RingShift(a) => a.write(line),
    }
}

/// Reads the attributes of the op of this name, or `None` when there is no such op.
pub(super) fn read(name: &str, from: &mut Reader<'_>) -> Result<Option<Op>, CompileError> {
    let op = match name {
        "input" => Op::Input(Attributes::read(from)?),
        "output" => Op::Output(Attributes::read(from)?),
        "weight" => Op::Weight(Attributes::read(from)?),
        "linear" => Op::Linear(Attributes::read(from)?),
        "norm" => Op::Norm(Attributes::read(from)?),
        "modulate" => Op::Modulate(from.key("chunks")?),
        "residual" => Op::Residual(Attributes::read(from)?),
        "head_norm" => Op::HeadNorm(Attributes::read(from)?),
        "rope" => Op::Rope(Attributes::read(from)?),
        "qk_norm_rope" => Op::QkNormRope(Attributes::read(from)?),
        "attention" => Op::Attention(Attributes::read(from)?),
        "attention_step" => Op::AttentionStep(Attributes::read(from)?),
        "attention_finish" => Op::AttentionFinish(from.annotation()?.0.dtype),
        "activate" => Op::Activate(from.value()?),
        "cast" => Op::Cast(from.key("to")?),
        "gated_gelu" => Op::GatedGelu,
        "embedding" => Op::Embedding(Attributes::read(from)?),
        "relative_bias" => Op::RelativeBias(Attributes::read(from)?),
        "timestep_embedding" => Op::TimestepEmbedding(Attributes::read(from)?),
        "position_table" => Op::PositionTable(Attributes::read(from)?),
        "join" => Op::Join(from.flag("positions")),
        "segment" => Op::Segment(from.value()?),
        "take" => Op::Take(Attributes::read(from)?),
        "concat" => Op::Concat(from.value()?),
        "repeat" => Op::Repeat(Attributes::read(from)?),
        "conv3d" => Op::Conv3d(Attributes::read(from)?),
        "conv_cache" => Op::ConvCache(Attributes::read(from)?),
        "group_norm" => Op::GroupNorm(Attributes::read(from)?),
        "upsample" => Op::Upsample(Attributes::read(from)?),
        "denoise" => Op::Denoise(Attributes::read(from)?),
        "advance" => Op::Advance(Attributes::read(from)?),
        "noise" => Op::Noise(Attributes::read(from)?),
        "reshard" => Op::Reshard(from.annotation()?.1),
        "all_to_all" => Op::AllToAll(Attributes::read(from)?),
        "all_gather" => Op::AllGather(Attributes::read(from)?),
        "ring_shift" => Op::RingShift(Attributes::read(from)?),
        _ => return Ok(None),
    };
    Ok(Some(op))
}
