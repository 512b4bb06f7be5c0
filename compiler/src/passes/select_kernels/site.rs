//! A node on a rank: its local types and the places of its operands and result.

use super::Source;
use crate::CompileError;
use crate::ir::{Graph, NodeId, Type};
use crate::ops::{Affine, Op, Presence};
use crate::passes::localize::Local;
use terrace_plan as plan;
use terrace_plan::{BufferId, Coords, Slot, WeightId};

/// A node on a rank, with the places of its operands and result.
pub struct Site<'a> {
    /// Global graph.
    pub graph: &'a Graph,
    /// Types of the rank.
    pub local: &'a Local<'a>,
    /// Position of the rank.
    pub coords: Coords,
    /// The node.
    pub id: NodeId,
    /// Places of the operands.
    pub operands: Vec<Source>,
    /// Buffer of the result.
    pub result: BufferId,
}

impl<'a> Site<'a> {
    pub(super) fn op(&self) -> &'a Op {
        &self.graph.node(self.id).op
    }

    /// Local type of the result.
    pub(super) fn ty(&self) -> &'a Type {
        self.local.ty(self.id)
    }

    /// Local type of an operand.
    pub(super) fn operand(&self, port: usize) -> &'a Type {
        self.local.ty(self.graph.operands(self.id)[port])
    }

    pub(super) fn refuse(&self, reason: &str) -> CompileError {
        CompileError::NoKernel {
            op: self.op().name(),
            path: self.graph.node(self.id).path.to_string(),
            reason: reason.into(),
        }
    }

    pub(super) fn slot(&self, port: usize) -> Result<Slot, CompileError> {
        match self.operands[port] {
            Source::Buffer(buffer) => Ok(Slot { buffer, offset: 0 }),
            Source::Weight(_) => {
                Err(self.refuse("a weight stands where a computed tensor is needed"))
            }
        }
    }

    pub(super) fn weight(&self, port: usize) -> Result<WeightId, CompileError> {
        match self.operands[port] {
            Source::Weight(weight) => Ok(weight),
            Source::Buffer(_) => {
                Err(self.refuse("a computed tensor stands where a weight is needed"))
            }
        }
    }

    pub(super) fn y(&self) -> Slot {
        Slot {
            buffer: self.result,
            offset: 0,
        }
    }

    pub(super) fn mods(&self, port: usize) -> Result<plan::Mods, CompileError> {
        Ok(plan::Mods {
            slot: self.slot(port)?,
            stride: width(self.operand(port)),
        })
    }

    pub(super) fn optional_weight(
        &self,
        port: usize,
        presence: Presence,
    ) -> Result<Option<WeightId>, CompileError> {
        match presence {
            Presence::Absent => Ok(None),
            Presence::Present => self.weight(port).map(Some),
        }
    }

    pub(super) fn optional_slot(
        &self,
        port: usize,
        presence: Presence,
    ) -> Result<Option<Slot>, CompileError> {
        match presence {
            Presence::Absent => Ok(None),
            Presence::Present => self.slot(port).map(Some),
        }
    }

    pub(super) fn affine(
        &self,
        first: usize,
        affine: Affine,
    ) -> Result<plan::Affine, CompileError> {
        let (weight, bias) = match affine {
            Affine::None => (None, None),
            Affine::Weight => (Some(self.weight(first)?), None),
            Affine::WeightBias => (Some(self.weight(first)?), Some(self.weight(first + 1)?)),
        };
        Ok(plan::Affine { weight, bias })
    }

    pub(super) fn factor(&self, name: &str) -> Result<usize, CompileError> {
        self.factor_of(self.ty(), name)
    }

    pub(super) fn factor_of(&self, ty: &Type, name: &str) -> Result<usize, CompileError> {
        ty.factor(name)
            .map(|f| f.size)
            .ok_or_else(|| self.refuse(&format!("no factor {name} in {ty}")))
    }
}

/// Product of all dimensions but the last.
pub(super) fn rows(ty: &Type) -> usize {
    let (_, outer) = ty
        .dims
        .split_last()
        .map_or((0, &[][..]), |(l, o)| (l.size(), o));
    outer.iter().map(crate::ir::Dim::size).product()
}

/// Size of the last dimension.
pub(super) fn width(ty: &Type) -> usize {
    ty.dims.last().map_or(1, crate::ir::Dim::size)
}

/// Rows of each segment of the row dimension, the last but one.
pub(super) fn segment_rows(ty: &Type) -> impl Iterator<Item = usize> {
    let at = ty.dims.len().saturating_sub(2);
    ty.dims[at].segments.iter().map(crate::ir::Segment::size)
}

/// `[f, y, x]` of a tensor `[b, f, y, x, c]`.
pub(super) fn grid(ty: &Type) -> [usize; 3] {
    [1, 2, 3].map(|i| ty.dims[i].size())
}
