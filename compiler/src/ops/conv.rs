//! Ops of the VAE: channels-last tensors `[b, f, y, x, c]`.

use super::{Affine, OpError, Presence, arity, same_size};
use crate::ir::{Dim, Type};
use terrace_plan::{Activation, UpsampleTime};

/// Causal convolution, stride 1, zero padding in space, first frame or cache before the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv3d {
    /// Output channels.
    pub out: Dim,
    /// `[kt, kh, kw]`.
    pub kernel: [usize; 3],
    /// Whether a bias is given.
    pub bias: Presence,
    /// Whether the frames before `x` are given.
    pub cache: Presence,
    /// Whether a residual is added.
    pub residual: Presence,
}

/// The last frames of `cache ++ x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvCache {
    /// Frames kept: `kt - 1`.
    pub keep: usize,
    /// Whether an earlier cache is given.
    pub cache: Presence,
}

/// GroupNorm with what is fused behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupNorm {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Parameters.
    pub affine: Affine,
    /// Whether a spatial modulation `[b, f, y, x, m=(yb=2 c)]` at any smaller size is given.
    pub spatial: Presence,
    /// Applied last.
    pub activation: Option<Activation>,
}

/// Nearest up-sampling by two in space, and optionally in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upsample {
    /// Time handling.
    pub time: UpsampleTime,
}

impl Conv3d {
    /// Port of the cache operand.
    pub fn cache_port(&self) -> Option<usize> {
        (self.cache == Presence::Present).then_some(2 + self.bias.count())
    }

    /// Port of the residual operand.
    pub fn residual_port(&self) -> Option<usize> {
        (self.residual == Presence::Present).then_some(2 + self.bias.count() + self.cache.count())
    }

    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        let optional = super::modulate::ports(&[self.bias, self.cache, self.residual]);
        arity(operands, 2 + optional)?;
        let [b, f, y, x, cin] = grid(operands[0])?;
        let [kt, kh, kw] = self.kernel;
        let expected = [self.out.size(), cin.size(), kt, kh, kw];
        if operands[1].shape() != expected || kt == 0 || kh % 2 == 0 || kw % 2 == 0 {
            return Err(OpError::new(
                format!("a weight of shape {expected:?} with odd kh and kw"),
                operands[1].to_string(),
            ));
        }
        if let Some(port) = self.cache_port() {
            let frame = y.size() * x.size() * cin.size();
            let elements = b.size() * (kt - 1) * frame;
            same_size("elements of the cache", elements, operands[port].elements())?;
        }
        let dims = vec![b.clone(), f.clone(), y.clone(), x.clone(), self.out.clone()];
        let ty = Type::new(operands[0].dtype, dims);
        if let Some(port) = self.residual_port() {
            same_size(
                "elements of the residual",
                ty.elements(),
                operands[port].elements(),
            )?;
        }
        Ok(ty)
    }
}

impl ConvCache {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1 + self.cache.count())?;
        let [_, f, ..] = grid(operands[0])?;
        let mut ty = operands[0].clone();
        ty.dims[1] = Dim::new(&f.name, self.keep);
        if self.cache == Presence::Present {
            same_size(
                "elements of the cache",
                ty.elements(),
                operands[1].elements(),
            )?;
        }
        Ok(ty)
    }
}

impl GroupNorm {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1 + self.affine.count() + self.spatial.count())?;
        let [.., c] = grid(operands[0])?;
        if self.groups == 0 || c.size() % self.groups != 0 {
            return Err(OpError::new(
                format!("channels that {} groups divide", self.groups),
                c.to_string(),
            ));
        }
        if self.spatial == Presence::Present {
            let [.., m] = grid(operands[operands.len() - 1])?;
            same_size("channels of the modulation", 2 * c.size(), m.size())?;
        }
        Ok(operands[0].clone())
    }
}

impl Upsample {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        let [b, f, y, x, c] = grid(operands[0])?;
        let frames = f.size();
        let frames = match self.time {
            UpsampleTime::Keep => frames,
            UpsampleTime::Double if frames % 2 == 1 => 2 * frames - 1,
            UpsampleTime::Double => 2 * frames,
        };
        let dims = vec![
            b.clone(),
            Dim::new(&f.name, frames),
            Dim::new(&y.name, 2 * y.size()),
            Dim::new(&x.name, 2 * x.size()),
            c.clone(),
        ];
        Ok(Type::new(operands[0].dtype, dims))
    }
}

fn grid(ty: &Type) -> Result<&[Dim; 5], OpError> {
    ty.dims
        .as_slice()
        .try_into()
        .map_err(|_| OpError::new("a tensor [b, f, y, x, c]", ty.to_string()))
}
