//! Matrix products with a weight, and what is fused behind them.

use super::{OpError, Presence, Rule, arity, last, same_size};
use crate::ir::{Dim, Sharding, Slices, Type};
use terrace_plan::Activation;

/// `epilogue(x W^T + bias)`; operands `x, weight[o, i], bias[o]?, residual?, mods?`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// The last dimension of the result; its size is the weight's first dimension.
    pub out: Dim,
    /// Whether a bias follows the weight.
    pub bias: Presence,
    /// What is fused behind the product.
    pub epilogue: LinearEpilogue,
}

/// What is fused behind a matrix product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinearEpilogue {
    /// Nothing.
    None,
    /// An elementwise function.
    Activate(Activation),
    /// `residual + result`: one more operand.
    Residual,
    /// `residual + gate * result`: two more operands; one chunk of the modulation per segment.
    GatedResidual(Vec<usize>),
}

impl Linear {
    /// Port of the residual operand, when there is one.
    pub fn residual_port(&self) -> Option<usize> {
        match self.epilogue {
            LinearEpilogue::None | LinearEpilogue::Activate(_) => None,
            LinearEpilogue::Residual | LinearEpilogue::GatedResidual(_) => {
                Some(2 + self.bias.count())
            }
        }
    }

    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        let extra = match self.epilogue {
            LinearEpilogue::None | LinearEpilogue::Activate(_) => 0,
            LinearEpilogue::Residual => 1,
            LinearEpilogue::GatedResidual(_) => 2,
        };
        arity(operands, 2 + self.bias.count() + extra)?;
        let (x, weight) = (operands[0], operands[1]);
        let [out, inner] = weight.dims.as_slice() else {
            return Err(OpError::new("a weight [o, i]", weight.to_string()));
        };
        same_size("input channels", inner.size(), last(x)?.size())?;
        same_size("output channels", out.size(), self.out.size())?;
        if self.bias == Presence::Present {
            same_size("bias elements", self.out.size(), operands[2].elements())?;
        }
        let mut ty = x.clone();
        ty.dims.pop();
        ty.dims.push(self.out.clone());
        if let Some(port) = self.residual_port()
            && operands[port].shape() != ty.shape()
        {
            return Err(OpError::new(
                format!("a residual like {ty}"),
                operands[port].to_string(),
            ));
        }
        if let LinearEpilogue::GatedResidual(gates) = &self.epilogue {
            super::modulate::check_chunks(&ty, operands[operands.len() - 1], gates)?;
        }
        Ok(ty)
    }
}

/// Rows keep their cut; the contracted dimension must be whole.
pub(super) fn rule(operands: &[&Type], result: &Type, slices: &Slices) -> Rule {
    let mut rule = super::by_name(operands, result, slices);
    if let (Some(x), Some(sharding)) = (operands.first(), rule.operands.first_mut())
        && let Some(inner) = x.dims.last()
    {
        let keep = |group: &crate::ir::Group| !inner.factors().any(|f| group.0.contains(&f.name));
        sharding.0.retain(|group, _| keep(group));
    }
    for weight in rule.operands.iter_mut().skip(1).take(1) {
        *weight = Sharding::replicated();
    }
    rule
}
