//! Calls at the end of a denoising step, and noise.

use super::site::Site;
use crate::CompileError;
use crate::layout::{Layout, copies};
use crate::ops::{self, Guidance};
use terrace_plan::{BoxCopy, KernelCall, Slot};

impl Site<'_> {
    pub(super) fn denoise(&self, a: &ops::Denoise) -> Result<KernelCall, CompileError> {
        let len = self.ty().elements();
        let first = self.slot(0)?;
        let (uncond, pred) = match a.guidance {
            Guidance::None => (None, first),
            Guidance::ClassifierFree => (
                Some(first),
                Slot {
                    buffer: first.buffer,
                    offset: len,
                },
            ),
        };
        Ok(KernelCall::Denoise {
            len,
            uncond,
            pred,
            latents: self.slot(1)?,
            coefficients: self.slot(2)?,
            y: self.y(),
        })
    }

    pub(super) fn advance(&self, a: ops::Sources) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::Advance {
            len: self.ty().elements(),
            latents: self.slot(0)?,
            x0: self.slot(1)?,
            coefficients: self.slot(2)?,
            previous: self.optional_slot(3, a.previous)?,
            noise: self.optional_slot(3 + a.previous.count(), a.noise)?,
            y: self.y(),
        })
    }

    fn noise_boxes(&self, a: &ops::Noise) -> Result<Vec<BoxCopy>, CompileError> {
        let node = self.graph.node(self.id);
        let host = Layout::whole(&a.host);
        let part = Layout::part(&node.ty.dims, &node.sharding, &self.graph.mesh, self.coords);
        copies(&host, &part).ok_or_else(|| self.refuse("the host layout names other factors"))
    }

    pub(super) fn noise(&self, a: &ops::Noise) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::Noise {
            boxes: self.noise_boxes(a)?,
            key: self.slot(0)?,
            y: self.y(),
        })
    }
}
