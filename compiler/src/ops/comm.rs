//! Collectives, at Comm stage and later.

use super::attention::{packed, with_channels};
use super::{OpError, arity};
use crate::ir::{Factor, Name, Type};
use terrace_plan::Axis;

/// Exchanges the cut of some factors for the cut of another among the members of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllToAll {
    /// Axis whose members exchange.
    pub axis: Axis,
    /// Dimension or factor that becomes whole on the axis.
    pub gather: Name,
    /// Dimension or factor that becomes cut by the axis.
    pub split: Name,
}

/// Every member of an axis receives every part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllGather {
    /// Axis whose members exchange.
    pub axis: Axis,
    /// Dimension or factor that becomes whole.
    pub gather: Name,
}

/// The block of keys and values of the neighbour before; operand packed `qkv` or `kv`, result
/// `[b, seq, c=(kv=2 n d)]` of the block that started `shift` positions before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingShift {
    /// Axis along which blocks travel.
    pub axis: Axis,
}

impl RingShift {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        let (n, d) = packed(operands[0], "qkv", 3).or_else(|_| packed(operands[0], "kv", 2))?;
        Ok(with_channels(operands[0], vec![Factor::new("kv", 2), n, d]))
    }
}
