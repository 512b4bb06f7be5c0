//! The operands of every kernel call, derived from its sizes.
//!
//! The checker proves with these that a call stays inside its buffers; the runtime cuts the same
//! regions out of them. Both therefore agree by construction. Refused: sizes for which the
//! kernel has no meaning, and any product that overflows.

use crate::call_use::{Uses, add, at_least_one, epsilon, finite, product, segment_rows};
use crate::geometry::check_box;
use crate::{
    Access, AttentionShape, BoxCopy, CallError, DType, Elements, Epilogue, Gate, KernelCall, Norm,
    Operand, OperandUse, PositionColumns, PositionKind, QkNorm, Rope, Slot, Stage,
};

impl KernelCall {
    /// Every buffer region that the call touches, operands in a fixed order.
    ///
    /// # Errors
    /// The first size for which the kernel has no meaning.
    pub fn operands(&self) -> Result<Vec<OperandUse>, CallError> {
        let mut uses = Uses::default();
        self.row_operands(&mut uses)?;
        self.table_operands(&mut uses)?;
        self.grid_operands(&mut uses)?;
        Ok(uses.list)
    }

    /// Kernels over rows of tokens.
    fn row_operands(&self, u: &mut Uses) -> Result<(), CallError> {
        match self {
            Self::Linear { .. } => self.linear(u),
            Self::NormModulate { .. } => self.norm_modulate(u),
            Self::GateAdd { .. } => self.gate_add(u),
            Self::QkNormRope {
                batch,
                rows,
                heads,
                head_dim,
                norm,
                rope,
                qkv,
            } => {
                let sizes = [*batch, *rows, 3, *heads, *head_dim];
                qk_norm_rope(u, sizes, norm.as_ref(), rope.as_ref(), *qkv)
            }
            Self::Attention { .. } | Self::AttentionStep { .. } => self.attention(u),
            Self::AttentionFinish {
                rows,
                heads,
                head_dim,
                state,
                y,
            } => {
                at_least_one(&[("head_dim", *head_dim)])?;
                let cell = add("state", *head_dim, 2)?;
                u.read_f32("state", *state, &[*rows, *heads, cell])?;
                u.write("y", *y, &[*rows, *heads, *head_dim], &[])
            }
            Self::Activate { len, x, y, .. } => {
                u.read("x", *x, &[*len])?;
                u.write("y", *y, &[*len], &["x"])
            }
            Self::Cast { len, x, y } => {
                u.dense("x", *x, &[*len], Elements::Floating, Access::Read, &[])?;
                u.dense("y", *y, &[*len], Elements::Floating, Access::Write, &[])
            }
            Self::GatedGelu { rows, width, x, y } => {
                at_least_one(&[("width", *width)])?;
                u.read("x", *x, &[*rows, 2, *width])?;
                u.write("y", *y, &[*rows, *width], &[])
            }
            Self::Embedding { .. } | Self::RelativeBias { .. } | Self::TimestepEmbedding { .. } => {
                Ok(())
            }
            Self::PositionTable { .. } | Self::Join { .. } | Self::Conv3d { .. } => Ok(()),
            Self::ConvCache { .. } | Self::GroupNorm { .. } | Self::Upsample { .. } => Ok(()),
            Self::Denoise { .. } | Self::Advance { .. } | Self::Noise { .. } => Ok(()),
        }
    }

    fn linear(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::Linear {
            rows,
            k,
            n,
            x,
            epilogue,
            y,
            ..
        } = self
        else {
            return Ok(());
        };
        at_least_one(&[("k", *k), ("n", *n)])?;
        u.read("x", *x, &[*rows, *k])?;
        epilogue_operands(u, epilogue, *rows, *n)?;
        u.write("y", *y, &[*rows, *n], &["residual"])
    }

    fn gate_add(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::GateAdd {
            rows,
            width,
            gate,
            residual,
            x,
            y,
        } = self
        else {
            return Ok(());
        };
        at_least_one(&[("width", *width)])?;
        u.read("residual", *residual, &[*rows, *width])?;
        u.read("x", *x, &[*rows, *width])?;
        gate_operands(u, gate.as_ref(), *rows, *width)?;
        u.write("y", *y, &[*rows, *width], &["residual", "x"])
    }

    fn norm_modulate(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::NormModulate {
            batch,
            width,
            segments,
            norm,
            mods,
            x,
            y,
        } = self
        else {
            return Ok(());
        };
        at_least_one(&[("width", *width)])?;
        match norm {
            Norm::None => {}
            Norm::Layer { eps, .. } | Norm::Rms { eps, .. } => epsilon(*eps)?,
        }
        let mut rows = 0;
        for segment in segments {
            rows = add("segments", rows, segment.rows)?;
        }
        u.read("x", *x, &[*batch, rows, *width])?;
        if let Some(mods) = mods {
            let vectors = segments.iter().flat_map(|s| [s.shift, s.scale]);
            u.mods(mods, *batch, *width, vectors)?;
        }
        u.write("y", *y, &[*batch, rows, *width], &["x"])
    }

    fn attention(&self, u: &mut Uses) -> Result<(), CallError> {
        let (Self::Attention { shape, q, k, v, .. } | Self::AttentionStep { shape, q, k, v, .. }) =
            self
        else {
            return Ok(());
        };
        let AttentionShape {
            batch,
            heads,
            q_rows,
            kv_rows,
            head_dim,
            scale,
            products,
        } = *shape;
        finite("scale", scale)?;
        match products {
            DType::F32 | DType::Bf16 => {}
            found @ (DType::F16 | DType::U32 | DType::I8 | DType::F8E4M3) => {
                return Err(CallError::Products { found });
            }
        }
        at_least_one(&[("head_dim", head_dim)])?;
        let q_sizes = [batch, q_rows, heads, head_dim];
        let kv_sizes = [batch, kv_rows, heads, head_dim];
        u.heads("q", q, q_sizes, Access::Read)?;
        u.heads("k", k, kv_sizes, Access::Read)?;
        u.heads("v", v, kv_sizes, Access::Read)?;
        if let Self::Attention { bias, y, .. } = self {
            if product("q", &q_sizes)? > 0 {
                at_least_one(&[("kv_rows", kv_rows)])?;
            }
            if let Some(bias) = bias {
                u.read_f32("bias", *bias, &[heads, q_rows, kv_rows])?;
            }
            u.heads("y", y, q_sizes, Access::Write)?;
        }
        if let Self::AttentionStep { stage, state, .. } = self {
            let access = match stage {
                Stage::First => Access::Write,
                Stage::Next => Access::ReadWrite,
            };
            let sizes = [batch, q_rows, heads, add("state", head_dim, 2)?];
            u.dense("state", *state, &sizes, Elements::F32, access, &[])?;
        }
        Ok(())
    }

    /// Kernels that make or look up rows.
    fn table_operands(&self, u: &mut Uses) -> Result<(), CallError> {
        match self {
            Self::Embedding {
                rows,
                width,
                vocabulary,
                ids,
                y,
                ..
            } => {
                at_least_one(&[("width", *width), ("vocabulary", *vocabulary)])?;
                u.dense("ids", *ids, &[*rows], Elements::U32, Access::Read, &[])?;
                u.write_f32("y", *y, &[*rows, *width])
            }
            Self::RelativeBias { .. } => self.relative_bias(u),
            Self::TimestepEmbedding { .. } => self.timestep_embedding(u),
            Self::PositionTable { .. } => self.position_table(u),
            Self::Join { .. } => self.join(u),
            Self::Noise { boxes, key, y } => noise(u, boxes, *key, *y),
            Self::Linear { .. } | Self::NormModulate { .. } | Self::GateAdd { .. } => Ok(()),
            Self::QkNormRope { .. } | Self::Attention { .. } | Self::AttentionStep { .. } => Ok(()),
            Self::AttentionFinish { .. } | Self::Activate { .. } | Self::GatedGelu { .. } => Ok(()),
            Self::Cast { .. } => Ok(()),
            Self::Conv3d { .. } | Self::ConvCache { .. } | Self::GroupNorm { .. } => Ok(()),
            Self::Upsample { .. } | Self::Denoise { .. } | Self::Advance { .. } => Ok(()),
        }
    }

    fn relative_bias(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::RelativeBias {
            heads,
            q_rows,
            kv_rows,
            buckets,
            max_distance,
            y,
            ..
        } = self
        else {
            return Ok(());
        };
        let (buckets, max_distance) = (*buckets, *max_distance);
        if buckets == 0 || buckets % 4 != 0 || max_distance <= buckets / 4 {
            return Err(CallError::Buckets {
                buckets,
                max_distance,
            });
        }
        u.write_f32("y", *y, &[*heads, *q_rows, *kv_rows])
    }

    fn timestep_embedding(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::TimestepEmbedding {
            batch,
            dim,
            shift,
            timestep,
            y,
            ..
        } = self
        else {
            return Ok(());
        };
        let (dim, shift) = (*dim, *shift);
        finite("shift", shift)?;
        if dim < 2 || (dim / 2) as f64 == shift {
            return Err(CallError::FrequencyShift { dim, shift });
        }
        u.read_f32("timestep", *timestep, &[*batch])?;
        u.write_f32("y", *y, &[*batch, dim])
    }

    fn position_table(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::PositionTable {
            kind,
            columns,
            zero_rows,
            t,
            grid_w,
            first_cell,
            cells,
            y,
        } = self
        else {
            return Ok(());
        };
        add("cells", *first_cell, *cells)?;
        at_least_one(&[("grid_w", *grid_w)])?;
        let width = table_width(*kind, columns)?;
        let rows = add("y", *zero_rows, product("y", &[*t, *cells])?)?;
        u.write_f32("y", *y, &[rows, width])
    }

    fn join(&self, u: &mut Uses) -> Result<(), CallError> {
        let Self::Join {
            batch,
            text_rows,
            video_rows,
            width,
            text,
            video,
            positions,
            y,
        } = self
        else {
            return Ok(());
        };
        at_least_one(&[("width", *width)])?;
        let rows = add("y", *text_rows, *video_rows)?;
        u.read("text", *text, &[*batch, *text_rows, *width])?;
        u.read("video", *video, &[*batch, *video_rows, *width])?;
        if let Some(Operand::Buffer(slot)) = positions {
            u.read_f32("positions", *slot, &[rows, *width])?;
        }
        u.write("y", *y, &[*batch, rows, *width], &[])
    }
}

fn epilogue_operands(
    u: &mut Uses,
    epilogue: &Epilogue,
    rows: usize,
    n: usize,
) -> Result<(), CallError> {
    match epilogue {
        Epilogue::None | Epilogue::Gelu | Epilogue::GeluTanh | Epilogue::Silu => Ok(()),
        Epilogue::Residual { residual, gate } => {
            u.read("residual", *residual, &[rows, n])?;
            gate_operands(u, gate.as_ref(), rows, n)
        }
    }
}

fn gate_operands(
    u: &mut Uses,
    gate: Option<&Gate>,
    rows: usize,
    width: usize,
) -> Result<(), CallError> {
    let Some(gate) = gate else { return Ok(()) };
    segment_rows(gate.segments.iter().map(|s| s.rows), gate.batch, rows)?;
    let vectors = gate.segments.iter().map(|s| s.gate);
    u.mods(&gate.mods, gate.batch, width, vectors)
}

/// `sizes`: `[batch, rows, 3, heads, head_dim]`.
fn qk_norm_rope(
    u: &mut Uses,
    sizes: [usize; 5],
    norm: Option<&QkNorm>,
    rope: Option<&Rope>,
    qkv: Slot,
) -> Result<(), CallError> {
    let [_, rows, _, _, head_dim] = sizes;
    at_least_one(&[("head_dim", head_dim)])?;
    if let Some(norm) = norm {
        epsilon(norm.eps)?;
    }
    if let Some(&Rope { table, first_row }) = rope {
        if head_dim % 2 != 0 {
            return Err(CallError::Odd {
                name: "head_dim",
                found: head_dim,
            });
        }
        let video = rows
            .checked_sub(first_row)
            .ok_or(CallError::FirstRow { rows, first_row })?;
        u.read_f32("rope", table, &[video, 2, head_dim])?;
    }
    u.dense(
        "qkv",
        qkv,
        &sizes,
        Elements::Activation,
        Access::ReadWrite,
        &[],
    )
}

/// Columns of a position table: `sum of dims`, twice that for rotary tables.
fn table_width(kind: PositionKind, columns: &[PositionColumns]) -> Result<usize, CallError> {
    let mut width = 0;
    for block in columns {
        finite("start", block.start)?;
        finite("step", block.step)?;
        if block.dim % 2 != 0 {
            return Err(CallError::Odd {
                name: "dim",
                found: block.dim,
            });
        }
        width = add("columns", width, block.dim)?;
    }
    at_least_one(&[("columns", width)])?;
    match kind {
        PositionKind::SinCos => Ok(width),
        PositionKind::Rotary { theta } => {
            finite("theta", theta)?;
            if theta <= 0.0 {
                return Err(CallError::Negative {
                    name: "theta",
                    found: theta,
                });
            }
            product("columns", &[width, 2])
        }
    }
}

fn noise(u: &mut Uses, boxes: &[BoxCopy], key: Slot, y: Slot) -> Result<(), CallError> {
    u.dense("key", key, &[4], Elements::U32, Access::Read, &[])?;
    let (mut elements, mut span) = (0, 0);
    for (index, copy) in boxes.iter().enumerate() {
        let facts = check_box(copy).map_err(|fault| CallError::Box {
            operand: "y",
            index,
            fault,
        })?;
        elements = add("y", elements, facts.elements)?;
        span = span.max(facts.dst_end);
    }
    u.write_f32("y", y, &[span])?;
    if let Some(last) = u.list.last_mut() {
        last.elements = elements;
    }
    Ok(())
}
