//! Ops that leave values as they are: takes, concatenations, repeats, other element types.

use super::{OpError, arity, last};
use crate::ir::{Name, Type};
use terrace_plan::DType;

/// A range of one factor. A factor taken one element wide is dropped, unless it is the only
/// factor of its dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// Factor.
    pub factor: Name,
    /// First index.
    pub start: usize,
    /// Number of indices.
    pub count: usize,
}

/// Copies along a factor of size one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Factor of size one.
    pub factor: Name,
    /// Size afterwards.
    pub count: usize,
}

impl Take {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        let mut ty = operands[0].clone();
        let segment = ty
            .dims
            .iter_mut()
            .flat_map(|d| &mut d.segments)
            .find(|s| s.factors.iter().any(|f| f.name == self.factor));
        let Some(segment) = segment else {
            return Err(missing(&self.factor, operands[0]));
        };
        let alone = segment.factors.len() == 1;
        for factor in &mut segment.factors {
            if factor.name == self.factor {
                if self.count == 0 || self.start + self.count > factor.size {
                    return Err(OpError::new(
                        format!("a range within {}={}", factor.name, factor.size),
                        format!("{}..{}", self.start, self.start + self.count),
                    ));
                }
                factor.size = self.count;
            }
        }
        if self.count == 1 && !alone {
            segment.factors.retain(|f| f.name != self.factor);
        }
        Ok(ty)
    }
}

impl Repeat {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        let mut ty = operands[0].clone();
        let factor = ty
            .dims
            .iter_mut()
            .flat_map(|d| &mut d.segments)
            .flat_map(|s| &mut s.factors)
            .find(|f| f.name == self.factor);
        match factor {
            Some(factor) if factor.size == 1 && self.count > 0 => {
                factor.size = self.count;
                Ok(ty)
            }
            _ => Err(OpError::new(
                format!("a factor {}=1", self.factor),
                operands[0].to_string(),
            )),
        }
    }
}

/// The type of the only operand.
pub(super) fn infer_same(operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 1)?;
    Ok(operands[0].clone())
}

/// The operand in another floating type.
pub(super) fn infer_cast(to: DType, operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 1)?;
    if !operands[0].dtype.is_floating() || !to.is_floating() {
        return Err(OpError::new(
            "floating types",
            format!("{} to {to}", operands[0].dtype),
        ));
    }
    Ok(Type::new(to, operands[0].dims.clone()))
}

/// Rows of one segment of the row dimension, the last but one. The dimension keeps its name.
pub(super) fn infer_segment(index: usize, operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 1)?;
    last(operands[0])?;
    let mut ty = operands[0].clone();
    let rows = ty.dims.len().checked_sub(2).map(|i| &mut ty.dims[i]);
    match rows {
        Some(rows) if index < rows.segments.len() => {
            rows.segments = vec![rows.segments[index].clone()];
            Ok(ty)
        }
        _ => Err(OpError::new(
            format!("rows with a segment {index}"),
            operands[0].to_string(),
        )),
    }
}

/// Operands one after the other along a dimension of one factor.
pub(super) fn infer_concat(dim: &Name, operands: &[&Type]) -> Result<Type, OpError> {
    let Some((first, rest)) = operands.split_first() else {
        return Err(OpError::new("at least one operand", "none"));
    };
    let mut ty = (*first).clone();
    let Some(at) = ty.dims.iter().position(|d| d.name == *dim) else {
        return Err(missing(dim, first));
    };
    let mut total = first.dims[at].size();
    for other in rest {
        let same = other.dims.len() == first.dims.len()
            && (0..first.dims.len()).all(|i| i == at || first.dims[i] == other.dims[i]);
        if !same {
            return Err(OpError::new(
                format!("operands like {first} except for {dim}"),
                other.to_string(),
            ));
        }
        total += other.dims[at].size();
    }
    match ty.dims[at].segments.as_mut_slice() {
        [segment] if segment.factors.len() == 1 => segment.factors[0].size = total,
        _ => {
            return Err(OpError::new(
                format!("a dimension {dim} of one factor"),
                first.to_string(),
            ));
        }
    }
    Ok(ty)
}

fn missing(name: &str, ty: &Type) -> OpError {
    OpError::new(format!("a factor {name}"), ty.to_string())
}
