//! Calls of attention and of the positions that it needs.

use super::site::{Site, rows, width};
use crate::CompileError;
use crate::ops::{self, NormKind, Packing, Presence};
use terrace_plan as plan;
use terrace_plan::{KernelCall, Slot};

impl Site<'_> {
    pub(super) fn qk_norm_rope(&self, a: &ops::QkNormRope) -> Result<KernelCall, CompileError> {
        let ty = self.ty();
        let norm = match a.norm {
            None => None,
            Some(NormKind::Layer { eps, affine }) => Some(plan::QkNorm {
                eps,
                q: self.affine(1, affine)?,
                k: self.affine(1 + affine.count(), affine)?,
            }),
            Some(NormKind::Rms { .. }) => {
                return Err(self.refuse("heads are normalised by LayerNorm"));
            }
        };
        let rows = ty.dims[1].size();
        let rope = match a.rope {
            Presence::Absent => None,
            Presence::Present => {
                let port = 1 + a.norm_operands();
                Some(plan::Rope {
                    table: self.slot(port)?,
                    first_row: rows - self.operand(port).dims[0].size(),
                })
            }
        };
        Ok(KernelCall::QkNormRope {
            batch: ty.dims[0].size(),
            rows,
            heads: self.factor("n")?,
            head_dim: self.factor("d")?,
            norm,
            rope,
            qkv: self.y(),
        })
    }

    /// Views of the parts of a tensor `[b, rows, (parts n d)]`.
    pub(super) fn heads_view(&self, port: usize, part: usize) -> Result<plan::Heads, CompileError> {
        let ty = self.operand(port);
        let (n, d) = (self.factor_of(ty, "n")?, self.factor_of(ty, "d")?);
        let row_stride = width(ty);
        let slot = self.slot(port)?;
        Ok(plan::Heads {
            slot: Slot {
                buffer: slot.buffer,
                offset: part * n * d,
            },
            batch_stride: ty.dims[1].size() * row_stride,
            row_stride,
            head_stride: d,
        })
    }

    pub(super) fn attention_shape(
        &self,
        kv: usize,
        scale: f64,
        products: plan::DType,
    ) -> Result<plan::AttentionShape, CompileError> {
        let q = self.operand(0);
        Ok(plan::AttentionShape {
            batch: q.dims[0].size(),
            heads: self.factor_of(q, "n")?,
            q_rows: q.dims[1].size(),
            kv_rows: self.operand(kv).dims[1].size(),
            head_dim: self.factor_of(q, "d")?,
            scale,
            products,
        })
    }

    pub(super) fn attention(&self, a: &ops::Attention) -> Result<KernelCall, CompileError> {
        let (ports, parts) = match a.packing {
            Packing::Packed => ([0, 0, 0], [0, 1, 2]),
            Packing::Separate => ([0, 1, 2], [0, 0, 0]),
        };
        let row_stride = width(self.ty());
        Ok(KernelCall::Attention {
            shape: self.attention_shape(ports[1], a.scale, a.products)?,
            q: self.heads_view(ports[0], parts[0])?,
            k: self.heads_view(ports[1], parts[1])?,
            v: self.heads_view(ports[2], parts[2])?,
            bias: self.optional_slot(ports[2] + 1, a.bias)?,
            y: plan::Heads {
                slot: self.y(),
                batch_stride: self.ty().dims[1].size() * row_stride,
                row_stride,
                head_stride: self.factor("d")?,
            },
        })
    }

    pub(super) fn attention_step(
        &self,
        a: &ops::AttentionStep,
    ) -> Result<KernelCall, CompileError> {
        let first = match self.operand(1).factor("qkv") {
            Some(_) => 1,
            None => 0,
        };
        Ok(KernelCall::AttentionStep {
            shape: self.attention_shape(1, a.scale, a.products)?,
            q: self.heads_view(0, 0)?,
            k: self.heads_view(1, first)?,
            v: self.heads_view(1, first + 1)?,
            stage: a.stage,
            state: self.y(),
        })
    }

    pub(super) fn attention_finish(&self) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::AttentionFinish {
            rows: rows(self.ty()),
            heads: self.factor("n")?,
            head_dim: self.factor("d")?,
            state: self.slot(0)?,
            y: self.y(),
        })
    }

    pub(super) fn position_table(
        &self,
        a: &ops::PositionTable,
    ) -> Result<KernelCall, CompileError> {
        let node = self.graph.node(self.id);
        let size = |name: &str| self.factor_of(&node.ty, name);
        let (t, h, w) = (size("t")?, size("h")?, size("w")?);
        let cells = node
            .sharding
            .starting_at("h")
            .map_or(0..h * w, |(_, p)| p.range(&self.graph.mesh, self.coords));
        Ok(KernelCall::PositionTable {
            kind: a.kind,
            columns: a.columns.clone(),
            zero_rows: rows(self.ty()) - t * cells.len(),
            t,
            grid_w: w,
            first_cell: cells.start,
            cells: cells.len(),
            y: self.y(),
        })
    }

    pub(super) fn relative_bias(&self, a: &ops::RelativeBias) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::RelativeBias {
            heads: width(self.operand(0)),
            q_rows: a.rows,
            kv_rows: a.rows,
            buckets: a.buckets,
            max_distance: a.max_distance,
            table: self.weight(0)?,
            y: self.y(),
        })
    }
}
