//! `conv3d %0 %1 %2 out=[c=8] kernel=[3, 3, 3] bias cache residual`, `conv_cache %0 keep=2 cache`,
//! `group_norm %0 %1 groups=4 eps=1e-6 affine=weight spatial activation=silu`,
//! `upsample %0 double`.

use super::linear::{read_out, write_out};
use super::{Attributes, Line};
use crate::CompileError;
use crate::ops::{Conv3d, ConvCache, GroupNorm, Upsample};
use crate::text::reader::Reader;
use crate::text::value::words;
use terrace_plan::UpsampleTime;

words!(UpsampleTime {
    UpsampleTime::Keep => "keep",
    UpsampleTime::Double => "double",
});

impl Attributes for Conv3d {
    fn write(&self, line: &mut Line<'_>) {
        write_out(&self.out, line);
        line.key("kernel", &self.kernel);
        line.flag("bias", self.bias);
        line.flag("cache", self.cache);
        line.flag("residual", self.residual);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            out: read_out(from)?,
            kernel: from.key("kernel")?,
            bias: from.flag("bias"),
            cache: from.flag("cache"),
            residual: from.flag("residual"),
        })
    }
}

impl Attributes for ConvCache {
    fn write(&self, line: &mut Line<'_>) {
        line.key("keep", &self.keep);
        line.flag("cache", self.cache);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            keep: from.key("keep")?,
            cache: from.flag("cache"),
        })
    }
}

impl Attributes for GroupNorm {
    fn write(&self, line: &mut Line<'_>) {
        line.key("groups", &self.groups);
        line.key("eps", &self.eps);
        line.key("affine", &self.affine);
        line.flag("spatial", self.spatial);
        if let Some(activation) = &self.activation {
            line.key("activation", activation);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            groups: from.key("groups")?,
            eps: from.key("eps")?,
            affine: from.key("affine")?,
            spatial: from.flag("spatial"),
            activation: from.optional("activation")?,
        })
    }
}

impl Attributes for Upsample {
    fn write(&self, line: &mut Line<'_>) {
        line.value(&self.time);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CompileError> {
        Ok(Self {
            time: from.value()?,
        })
    }
}
