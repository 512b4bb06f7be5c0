//! Calls over pixels: convolutions, their caches and GroupNorm.

use super::site::{Site, grid, width};
use crate::CompileError;
use crate::ops::{self, Presence};
use terrace_plan as plan;
use terrace_plan::KernelCall;

impl Site<'_> {
    pub(super) fn conv3d(&self, a: &ops::Conv3d) -> Result<KernelCall, CompileError> {
        let x = self.operand(0);
        let cache = a.cache_port().map(|p| self.slot(p)).transpose()?;
        let residual = a.residual_port().map(|p| self.slot(p)).transpose()?;
        Ok(KernelCall::Conv3d {
            shape: plan::ConvShape {
                batch: x.dims[0].size(),
                grid: grid(x),
                cin: width(x),
                cout: width(self.ty()),
                kernel: a.kernel,
            },
            x: self.slot(0)?,
            cache,
            weight: self.weight(1)?,
            bias: self.optional_weight(2, a.bias)?,
            residual,
            y: self.y(),
        })
    }

    pub(super) fn conv_cache(&self, a: &ops::ConvCache) -> Result<KernelCall, CompileError> {
        let x = self.operand(0);
        let [frames, height, across] = grid(x);
        Ok(KernelCall::ConvCache {
            batch: x.dims[0].size(),
            frames,
            frame_len: height * across * width(x),
            keep: a.keep,
            x: self.slot(0)?,
            cache: self.optional_slot(1, a.cache)?,
            y: self.y(),
        })
    }

    pub(super) fn group_norm(&self, a: &ops::GroupNorm) -> Result<KernelCall, CompileError> {
        let x = self.operand(0);
        let spatial = match a.spatial {
            Presence::Absent => None,
            Presence::Present => {
                let port = self.operands.len() - 1;
                Some(plan::SpatialModulation {
                    yb: self.slot(port)?,
                    grid: grid(self.operand(port)),
                })
            }
        };
        Ok(KernelCall::GroupNorm {
            batch: x.dims[0].size(),
            grid: grid(x),
            channels: width(x),
            groups: a.groups,
            eps: a.eps,
            affine: self.affine(1, a.affine)?,
            spatial,
            activation: a.activation,
            x: self.slot(0)?,
            y: self.y(),
        })
    }

    pub(super) fn upsample(&self, a: &ops::Upsample) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::Upsample {
            batch: self.operand(0).dims[0].size(),
            grid: grid(self.operand(0)),
            channels: width(self.ty()),
            time: a.time,
            x: self.slot(0)?,
            y: self.y(),
        })
    }
}
