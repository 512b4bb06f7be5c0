//! Borders of the graph: inputs, outputs and weights.
//!
//! Inputs and outputs name the factors of the caller's dense tensor as well as those of the node,
//! so patchify and unpatchify are a change of order, done by strided copies when a port is bound.

use super::{OpError, Rule, arity};
use crate::ir::{Dim, Factor, Sharding, Slices, Type};
use terrace_plan::{DType, WeightLayout, WeightSource};

/// A tensor of the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Port name.
    pub name: String,
    /// Type of the node.
    pub ty: Type,
    /// Dimensions of the caller's tensor: the node's factors in another order, dimension by
    /// dimension, e.g. `[b=1, f=(t=13), c=16, y=(h=30 p=2), x=(w=45 q=2)]`.
    pub host: Vec<Dim>,
}

/// A tensor for the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Port name.
    pub name: String,
    /// Dimensions of the caller's tensor, as for [`Input`].
    pub host: Vec<Dim>,
}

/// A tensor of the checkpoint: sources joined along their first dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Stored tensors.
    pub sources: Vec<WeightSource>,
    /// Type of the joined tensor. `[o, i]` for linears, `[o, i, kt, kh, kw]` for convolutions,
    /// `[o]` for vectors; a table of positions names the factors of its rows and is cut like them.
    pub dims: Vec<Dim>,
    /// Layout in memory.
    pub layout: WeightLayout,
    /// Element type in memory.
    pub dtype: DType,
}

impl Input {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 0)?;
        same_factors(&self.ty.dims, &self.host)?;
        Ok(self.ty.clone())
    }
}

impl Output {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        same_factors(&operands[0].dims, &self.host)?;
        Ok(operands[0].clone())
    }
}

impl Weight {
    /// One weight of the rows of several, in order; `None` when they lie differently or have rows
    /// of different shapes.
    pub fn joined(parts: &[&Self]) -> Option<Self> {
        let first = *parts.first()?;
        let alike = |part: &&Self| {
            (part.layout, part.dtype) == (first.layout, first.dtype)
                && part.dims.get(1..) == first.dims.get(1..)
        };
        let rows: usize = parts
            .iter()
            .map(|p| p.dims.first().map_or(0, Dim::size))
            .sum();
        let mut dims = first.dims.clone();
        let outer = dims.first_mut()?;
        *outer = Dim::new(&outer.name, rows);
        parts.iter().all(alike).then(|| Self {
            sources: parts.iter().flat_map(|p| &p.sources).cloned().collect(),
            dims,
            layout: first.layout,
            dtype: first.dtype,
        })
    }

    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 0)?;
        let ty = Type::new(self.dtype, self.dims.clone());
        let stored: usize = self
            .sources
            .iter()
            .map(|s| s.shape.iter().product::<usize>())
            .sum();
        super::same_size("stored elements", ty.elements(), stored)?;
        Ok(ty)
    }

    pub(super) fn rule(&self, result: &Type, slices: &Slices) -> Rule {
        let result = match self.layout {
            WeightLayout::Plain => Sharding::of(result, &slices.rows),
            WeightLayout::Linear | WeightLayout::Conv3d => Sharding::replicated(),
        };
        Rule {
            operands: Vec::new(),
            result,
        }
    }
}

/// Host and node must be made of the same factors, sums excepted: a port is a product per
/// dimension on the host side.
fn same_factors(node: &[Dim], host: &[Dim]) -> Result<(), OpError> {
    let sorted = |dims: &[Dim]| {
        let mut factors: Vec<Factor> = dims.iter().flat_map(Dim::factors).cloned().collect();
        factors.sort();
        factors
    };
    if sorted(node) == sorted(host) {
        return Ok(());
    }
    let show = |dims: &[Dim]| Type::f32(dims.to_vec()).to_string();
    Err(OpError::new(
        format!("a host layout with the factors of {}", show(node)),
        show(host),
    ))
}
