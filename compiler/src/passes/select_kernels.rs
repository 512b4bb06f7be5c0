//! select-kernels: the kernel call that computes a node on one rank.
//!
//! Sizes come from the rank's local types, strides from the packing of the operands. One
//! exhaustive match leads from op to kernel; ops that only move data have none and are served by
//! copies and exchanges.
//!
//! ```text
//! before  %3 = linear %0 %1 %2 out=c=8 : f32[b=1, seq=(txt=2 | t=1 h.w=4), c=8]
//! after   linear rows=6 k=16 n=8 x=b0 weight=w0 bias=w1 y=b1
//! ```
//!
//! Refuses ops that only exist fused (rotary positions outside packed qkv) and operands that are
//! weights where a computed tensor is needed.

use crate::CompileError;
use crate::ir::{Graph, NodeId, Type};
use crate::ops::{
    self, Affine, Guidance, LinearEpilogue, ModChunks, NormKind, Op, Packing, Presence,
};
use terrace_plan as plan;
use terrace_plan::{BoxCopy, BufferId, Coords, KernelCall, Slot, WeightId};

/// Where an operand is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a buffer of the rank.
    Buffer(BufferId),
    /// Among the weights.
    Weight(WeightId),
}

/// A node on a rank, with the places of its operands and result.
pub struct Site<'a> {
    /// Global graph.
    pub graph: &'a Graph,
    /// Graph of the rank.
    pub local: &'a Graph,
    /// Position of the rank.
    pub coords: Coords,
    /// The node.
    pub id: NodeId,
    /// Places of the operands.
    pub operands: Vec<Source>,
    /// Buffer of the result.
    pub result: BufferId,
}

/// The kernel call of a node, or `None` when the op only moves data.
///
/// # Errors
/// No kernel serves the op in this form.
pub fn run(site: &Site<'_>) -> Result<Option<KernelCall>, CompileError> {
    let call = match site.op() {
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Concat(_)
        | Op::Repeat(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => return Ok(None),
        Op::Reshard(_) => return Err(site.refuse("reshards are lowered before")),
        Op::Rope(_) => return Err(site.refuse("rotary positions need packed queries and keys")),
        Op::Linear(a) => site.linear(a)?,
        Op::Norm(a) => site.norm(Some(a.kind), a.modulate.as_deref())?,
        Op::Modulate(chunks) => site.norm(None, Some(chunks))?,
        Op::Residual(gates) => site.residual(gates.as_deref())?,
        Op::HeadNorm(kind) => site.head_norm(*kind)?,
        Op::QkNormRope(a) => site.qk_norm_rope(a)?,
        Op::Attention(a) => site.attention(a)?,
        Op::AttentionStep(a) => site.attention_step(a)?,
        Op::AttentionFinish => site.attention_finish()?,
        Op::Activate(function) => KernelCall::Activate {
            len: site.ty().elements(),
            function: *function,
            x: site.slot(0)?,
            y: site.y(),
        },
        Op::GatedGelu => KernelCall::GatedGelu {
            rows: rows(site.ty()),
            width: width(site.ty()),
            x: site.slot(0)?,
            y: site.y(),
        },
        Op::Embedding(_) => KernelCall::Embedding {
            rows: rows(site.ty()),
            width: width(site.ty()),
            vocabulary: rows(site.operand(1)),
            ids: site.slot(0)?,
            table: site.weight(1)?,
            y: site.y(),
        },
        Op::RelativeBias(a) => KernelCall::RelativeBias {
            heads: width(site.operand(0)),
            q_rows: a.rows,
            kv_rows: a.rows,
            buckets: a.buckets,
            max_distance: a.max_distance,
            table: site.weight(0)?,
            y: site.y(),
        },
        Op::TimestepEmbedding(a) => KernelCall::TimestepEmbedding {
            batch: rows(site.ty()),
            dim: width(site.ty()),
            order: a.order,
            shift: a.shift,
            timestep: site.slot(0)?,
            y: site.y(),
        },
        Op::PositionTable(a) => site.position_table(a)?,
        Op::Join(positions) => site.join(*positions)?,
        Op::Conv3d(a) => site.conv3d(a)?,
        Op::ConvCache(a) => site.conv_cache(a)?,
        Op::GroupNorm(a) => site.group_norm(a)?,
        Op::Upsample(a) => KernelCall::Upsample {
            batch: site.operand(0).dims[0].size(),
            grid: grid(site.operand(0)),
            channels: width(site.ty()),
            time: a.time,
            x: site.slot(0)?,
            y: site.y(),
        },
        Op::Denoise(a) => site.denoise(a)?,
        Op::Advance(a) => site.advance(*a)?,
        Op::Noise(a) => KernelCall::Noise {
            boxes: site.noise_boxes(a)?,
            key: site.slot(0)?,
            y: site.y(),
        },
    };
    Ok(Some(call))
}

/// Operands whose buffer the result may take over, best first.
pub fn in_place_ports(op: &Op) -> Vec<usize> {
    match op {
        Op::Norm(_)
        | Op::Modulate(_)
        | Op::HeadNorm(_)
        | Op::QkNormRope(_)
        | Op::Activate(_)
        | Op::GroupNorm(_) => vec![0],
        Op::Residual(_) => vec![0, 1],
        Op::Linear(a) => a.residual_port().into_iter().collect(),
        Op::AttentionStep(a) => match a.stage {
            plan::Stage::First => Vec::new(),
            plan::Stage::Next => vec![2],
        },
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Rope(_)
        | Op::Attention(_)
        | Op::AttentionFinish
        | Op::GatedGelu
        | Op::Embedding(_)
        | Op::RelativeBias(_)
        | Op::TimestepEmbedding(_)
        | Op::PositionTable(_)
        | Op::Join(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Concat(_)
        | Op::Repeat(_)
        | Op::Conv3d(_)
        | Op::ConvCache(_)
        | Op::Upsample(_)
        | Op::Denoise(_)
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => Vec::new(),
    }
}

/// The operand that the kernel changes in place and that must be copied first when it lives on.
pub fn updated_port(op: &Op) -> Option<usize> {
    match op {
        Op::QkNormRope(_) => Some(0),
        Op::AttentionStep(a) if a.stage == plan::Stage::Next => Some(2),
        _other => None,
    }
}

impl<'a> Site<'a> {
    fn op(&self) -> &'a Op {
        &self.graph.node(self.id).op
    }

    /// Local type of the result.
    fn ty(&self) -> &'a Type {
        &self.local.node(self.id).ty
    }

    /// Local type of an operand.
    fn operand(&self, port: usize) -> &'a Type {
        &self.local.node(self.local.operands(self.id)[port]).ty
    }

    fn refuse(&self, reason: &str) -> CompileError {
        CompileError::NoKernel {
            op: self.op().name(),
            path: self.graph.node(self.id).path.to_string(),
            reason: reason.into(),
        }
    }

    fn slot(&self, port: usize) -> Result<Slot, CompileError> {
        match self.operands[port] {
            Source::Buffer(buffer) => Ok(Slot { buffer, offset: 0 }),
            Source::Weight(_) => Err(self.refuse("a weight stands where a computed tensor is needed")),
        }
    }

    fn weight(&self, port: usize) -> Result<WeightId, CompileError> {
        match self.operands[port] {
            Source::Weight(weight) => Ok(weight),
            Source::Buffer(_) => Err(self.refuse("a computed tensor stands where a weight is needed")),
        }
    }

    fn y(&self) -> Slot {
        Slot {
            buffer: self.result,
            offset: 0,
        }
    }

    fn mods(&self, port: usize) -> Result<plan::Mods, CompileError> {
        Ok(plan::Mods {
            slot: self.slot(port)?,
            stride: width(self.operand(port)),
        })
    }

    fn gate(&self, gates: &[usize], port: usize) -> Result<plan::Gate, CompileError> {
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

    fn linear(&self, a: &ops::Linear) -> Result<KernelCall, CompileError> {
        let residual = 2 + a.bias.count();
        let epilogue = match &a.epilogue {
            LinearEpilogue::None => plan::Epilogue::None,
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

    fn optional_weight(
        &self,
        port: usize,
        presence: Presence,
    ) -> Result<Option<WeightId>, CompileError> {
        match presence {
            Presence::Absent => Ok(None),
            Presence::Present => self.weight(port).map(Some),
        }
    }

    fn optional_slot(
        &self,
        port: usize,
        presence: Presence,
    ) -> Result<Option<Slot>, CompileError> {
        match presence {
            Presence::Absent => Ok(None),
            Presence::Present => self.slot(port).map(Some),
        }
    }

    fn affine(&self, first: usize, affine: Affine) -> Result<plan::Affine, CompileError> {
        let (weight, bias) = match affine {
            Affine::None => (None, None),
            Affine::Weight => (Some(self.weight(first)?), None),
            Affine::WeightBias => (Some(self.weight(first)?), Some(self.weight(first + 1)?)),
        };
        Ok(plan::Affine { weight, bias })
    }

    fn norm_of(&self, kind: NormKind) -> Result<plan::Norm, CompileError> {
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

    fn norm(
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
    fn head_norm(&self, kind: NormKind) -> Result<KernelCall, CompileError> {
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

    fn residual(&self, gates: Option<&[usize]>) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::GateAdd {
            rows: rows(self.ty()),
            width: width(self.ty()),
            gate: gates.map(|g| self.gate(g, 2)).transpose()?,
            residual: self.slot(0)?,
            x: self.slot(1)?,
            y: self.y(),
        })
    }

    fn factor(&self, name: &str) -> Result<usize, CompileError> {
        self.factor_of(self.ty(), name)
    }

    fn factor_of(&self, ty: &Type, name: &str) -> Result<usize, CompileError> {
        ty.factor(name)
            .map(|f| f.size)
            .ok_or_else(|| self.refuse(&format!("no factor {name} in {ty}")))
    }

    fn qk_norm_rope(&self, a: &ops::QkNormRope) -> Result<KernelCall, CompileError> {
        let ty = self.ty();
        let norm = match a.norm {
            None => None,
            Some(NormKind::Layer { eps, affine }) => Some(plan::QkNorm {
                eps,
                q: self.affine(1, affine)?,
                k: self.affine(1 + affine.count(), affine)?,
            }),
            Some(NormKind::Rms { .. }) => return Err(self.refuse("heads are normalised by LayerNorm")),
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
    fn heads_view(&self, port: usize, part: usize) -> Result<plan::Heads, CompileError> {
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

    fn attention_shape(&self, kv: usize, scale: f64) -> Result<plan::AttentionShape, CompileError> {
        let q = self.operand(0);
        Ok(plan::AttentionShape {
            batch: q.dims[0].size(),
            heads: self.factor_of(q, "n")?,
            q_rows: q.dims[1].size(),
            kv_rows: self.operand(kv).dims[1].size(),
            head_dim: self.factor_of(q, "d")?,
            scale,
        })
    }

    fn attention(&self, a: &ops::Attention) -> Result<KernelCall, CompileError> {
        let (ports, parts) = match a.packing {
            Packing::Packed => ([0, 0, 0], [0, 1, 2]),
            Packing::Separate => ([0, 1, 2], [0, 0, 0]),
        };
        let row_stride = width(self.ty());
        Ok(KernelCall::Attention {
            shape: self.attention_shape(ports[1], a.scale)?,
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

    fn attention_step(&self, a: &ops::AttentionStep) -> Result<KernelCall, CompileError> {
        let first = match self.operand(1).factor("qkv") {
            Some(_) => 1,
            None => 0,
        };
        Ok(KernelCall::AttentionStep {
            shape: self.attention_shape(1, a.scale)?,
            q: self.heads_view(0, 0)?,
            k: self.heads_view(1, first)?,
            v: self.heads_view(1, first + 1)?,
            stage: a.stage,
            state: self.y(),
        })
    }

    fn attention_finish(&self) -> Result<KernelCall, CompileError> {
        Ok(KernelCall::AttentionFinish {
            rows: rows(self.ty()),
            heads: self.factor("n")?,
            head_dim: self.factor("d")?,
            state: self.slot(0)?,
            y: self.y(),
        })
    }

    fn position_table(&self, a: &ops::PositionTable) -> Result<KernelCall, CompileError> {
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

    fn join(&self, positions: Presence) -> Result<KernelCall, CompileError> {
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

    fn conv3d(&self, a: &ops::Conv3d) -> Result<KernelCall, CompileError> {
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

    fn conv_cache(&self, a: &ops::ConvCache) -> Result<KernelCall, CompileError> {
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

    fn group_norm(&self, a: &ops::GroupNorm) -> Result<KernelCall, CompileError> {
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

    fn denoise(&self, a: &ops::Denoise) -> Result<KernelCall, CompileError> {
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

    fn advance(&self, a: ops::Sources) -> Result<KernelCall, CompileError> {
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
        use crate::layout::{Layout, copies};
        let node = self.graph.node(self.id);
        let host = Layout::whole(&a.host);
        let part = Layout::part(&node.ty.dims, &node.sharding, &self.graph.mesh, self.coords);
        copies(&host, &part).ok_or_else(|| self.refuse("the host layout names other factors"))
    }
}

/// Product of all dimensions but the last.
fn rows(ty: &Type) -> usize {
    let (_, outer) = ty.dims.split_last().map_or((0, &[][..]), |(l, o)| (l.size(), o));
    outer.iter().map(crate::ir::Dim::size).product()
}

/// Size of the last dimension.
fn width(ty: &Type) -> usize {
    ty.dims.last().map_or(1, crate::ir::Dim::size)
}

/// Rows of each segment of the row dimension, the last but one.
fn segment_rows(ty: &Type) -> impl Iterator<Item = usize> {
    let at = ty.dims.len().saturating_sub(2);
    ty.dims[at].segments.iter().map(crate::ir::Segment::size)
}

/// `[f, y, x]` of a tensor `[b, f, y, x, c]`.
fn grid(ty: &Type) -> [usize; 3] {
    [1, 2, 3].map(|i| ty.dims[i].size())
}
