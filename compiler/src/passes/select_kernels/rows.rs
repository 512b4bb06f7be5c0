//! Calls over rows: linears, norms, residuals and the joint sequence.

use super::Source;
use super::site::{Site, rows, segment_rows, width};
use crate::CompileError;
use crate::ops::{self, LinearEpilogue, ModChunks, NormKind, Presence};
use terrace_plan as plan;
use terrace_plan::KernelCall;

impl Site<'_> {
    pub(super) fn gate(&self, gates: &[usize], port: usize) -> Result<plan::Gate, CompileError> {
        let (ty, width) = (self.ty(), width(self.ty()));
        let segments = segment_rows(ty)
            .zip(gates)
            .map(|(rows, gate)| plan::GateSegment {
                rows,
                gate: gate * width,
            })
            .collect();
        Ok(plan::Gate {
            mods: self.mods(port)?,
            batch: ty.dims[0].size(),
            segments,
        })
    }

    pub(super) fn linear(&self, a: &ops::Linear) -> Result<KernelCall, CompileError> {
        let residual = 2 + a.bias.count();
        let epilogue = match &a.epilogue {
            LinearEpilogue::None => plan::Epilogue::None,
            LinearEpilogue::Activate(plan::Activation::Gelu) => plan::Epilogue::Gelu,
            LinearEpilogue::Activate(plan::Activation::GeluTanh) => plan::Epilogue::GeluTanh,
            LinearEpilogue::Activate(plan::Activation::Silu) => plan::Epilogue::Silu,
            LinearEpilogue::Residual => plan::Epilogue::Residual {
                residual: self.slot(residual)?,
                gate: None,
            },
            LinearEpilogue::GatedResidual(gates) => plan::Epilogue::Residual {
                residual: self.slot(residual)?,
                gate: Some(self.gate(gates, residual + 1)?),
            },
        };
        Ok(KernelCall::Linear {
            rows: rows(self.ty()),
            k: width(self.operand(0)),
            n: width(self.ty()),
            x: self.slot(0)?,
            weight: self.weight(1)?,
            bias: self.optional_weight(2, a.bias)?,
            epilogue,
            y: self.y(),
        })
    }

    pub(super) fn norm_of(&self, kind: NormKind) -> Result<plan::Norm, CompileError> {
        Ok(match kind {
            NormKind::Layer { eps, affine } => plan::Norm::Layer {
                eps,
                affine: self.affine(1, affine)?,
            },
            NormKind::Rms { eps } => plan::Norm::Rms {
                eps,
                weight: self.weight(1)?,
            },
        })
    }

    pub(super) fn norm(
        &self,
        kind: Option<NormKind>,
        modulate: Option<&[ModChunks]>,
    ) -> Result<KernelCall, CompileError> {
        let (ty, width) = (self.ty(), width(self.ty()));
        let whole = |rows| plan::ModSegment {
            rows,
            shift: 0,
            scale: 0,
        };
        let (batch, segments, mods) = match modulate {
            None => (1, vec![whole(rows(ty))], None),
            Some(chunks) => {
                let segments = segment_rows(ty)
                    .zip(chunks)
                    .map(|(rows, chunk)| plan::ModSegment {
                        rows,
                        shift: chunk.shift * width,
                        scale: chunk.scale * width,
                    })
                    .collect();
                let mods = self.mods(self.operands.len() - 1)?;
                (ty.dims[0].size(), segments, Some(mods))
            }
        };
        Ok(KernelCall::NormModulate {
            batch,
            width,
            segments,
            norm: kind.map_or(Ok(plan::Norm::None), |kind| self.norm_of(kind))?,
            mods,
            x: self.slot(0)?,
            y: self.y(),
        })
    }

    /// LayerNorm over heads is a norm of as many rows as there are rows and heads.
    pub(super) fn head_norm(&self, kind: NormKind) -> Result<KernelCall, CompileError> {
        let width = self.factor("d")?;
        Ok(KernelCall::NormModulate {
            batch: 1,
            width,
            segments: vec![plan::ModSegment {
                rows: self.ty().elements() / width.max(1),
                shift: 0,
                scale: 0,
            }],
            norm: self.norm_of(kind)?,
            mods: None,
            x: self.slot(0)?,
            y: self.y(),
        })
    }

    pub(super) fn residual(&self, gates: Option<&[usize]>) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::GateAdd {
            rows: rows(self.ty()),
            width: width(self.ty()),
            gate: gates.map(|g| self.gate(g, 2)).transpose()?,
            residual: self.slot(0)?,
            x: self.slot(1)?,
            y: self.y(),
        })
    }

    pub(super) fn join(&self, positions: Presence) -> Result<KernelCall, CompileError> {
        let positions = match positions {
            Presence::Absent => None,
            Presence::Present => Some(match self.operands[2] {
                Source::Buffer(_) => plan::Operand::Buffer(self.slot(2)?),
                Source::Weight(weight) => plan::Operand::Weight(weight),
            }),
        };
        Ok(KernelCall::Join {
            batch: self.ty().dims[0].size(),
            text_rows: self.operand(0).dims[1].size(),
            video_rows: self.operand(1).dims[1].size(),
            width: width(self.ty()),
            text: self.slot(0)?,
            video: self.slot(1)?,
            positions,
            y: self.y(),
        })
    }

    pub(super) fn activate(&self, function: plan::Activation) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::Activate {
            len: self.ty().elements(),
            function,
            x: self.slot(0)?,
            y: self.y(),
        })
    }

    pub(super) fn cast(&self) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::Cast {
            len: self.ty().elements(),
            x: self.slot(0)?,
            y: self.y(),
        })
    }

    pub(super) fn gated_gelu(&self) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::GatedGelu {
            rows: rows(self.ty()),
            width: width(self.ty()),
            x: self.slot(0)?,
            y: self.y(),
        })
    }

    pub(super) fn embedding(&self) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::Embedding {
            rows: rows(self.ty()),
            width: width(self.ty()),
            vocabulary: rows(self.operand(1)),
            ids: self.slot(0)?,
            table: self.weight(1)?,
            y: self.y(),
        })
    }

    pub(super) fn timestep_embedding(
        &self,
        a: &ops::TimestepEmbedding,
    ) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::TimestepEmbedding {
            batch: rows(self.ty()),
            dim: width(self.ty()),
            order: a.order,
            shift: a.shift,
            timestep: self.slot(0)?,
            y: self.y(),
        })
    }
}
