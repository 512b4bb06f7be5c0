//! Embeddings and tables: tokens, time steps, positions, and the joint sequence.

use super::{OpError, Presence, arity, last, same_size};
use crate::ir::{Dim, Segment, Type};
use terrace_plan::{DType, PositionColumns, PositionKind, SinusoidOrder};

/// Rows of a table; operands `ids[.., seq] u32, table[vocabulary, width]`, result `[.., seq, out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The dimension appended to those of the ids.
    pub out: Dim,
}

/// T5's bidirectional relative position bias; operand `table[buckets, heads]`, result
/// `[n, rows, keys]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RelativeBias {
    /// Query rows and key rows.
    pub rows: usize,
    /// Number of buckets.
    pub buckets: usize,
    /// Distance from which all positions share a bucket.
    pub max_distance: usize,
}

/// Sinusoidal embedding; operand `timestep[b]`, result `[b, out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TimestepEmbedding {
    /// The embedding's dimension.
    pub out: Dim,
    /// Order of the halves.
    pub order: SinusoidOrder,
    /// `downscale_freq_shift`.
    pub shift: f64,
}

/// Positions of the token grid, computed once per session.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionTable {
    /// Kind.
    pub kind: PositionKind,
    /// Column blocks, in order.
    pub columns: Vec<PositionColumns>,
    /// Rows: `(t h w)`, or `(txt | t h w)` with zeros for the text.
    pub rows: Dim,
    /// Columns; `r=(cs=2 d)` for rotary, `c` for sin-cos.
    pub out: Dim,
}

impl Embedding {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 2)?;
        let (ids, table) = (operands[0], operands[1]);
        if ids.dtype != DType::U32 {
            return Err(OpError::new("ids of type u32", ids.to_string()));
        }
        same_size("channels", self.out.size(), last(table)?.size())?;
        let mut ty = Type::f32(ids.dims.clone());
        ty.dims.push(self.out.clone());
        Ok(ty)
    }
}

impl RelativeBias {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        let [buckets, heads] = operands[0].dims.as_slice() else {
            return Err(OpError::new(
                "a table [buckets, heads]",
                operands[0].to_string(),
            ));
        };
        same_size("buckets", self.buckets, buckets.size())?;
        Ok(Type::f32(vec![
            Dim::new("n", heads.size()),
            Dim::new("rows", self.rows),
            Dim::new("keys", self.rows),
        ]))
    }
}

impl TimestepEmbedding {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 1)?;
        let mut ty = Type::f32(operands[0].dims.clone());
        same_size("dimensions of a time step", 1, ty.dims.len())?;
        ty.dims.push(self.out.clone());
        Ok(ty)
    }
}

impl PositionTable {
    pub(super) fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        arity(operands, 0)?;
        let width: usize = self.columns.iter().map(|c| c.dim).sum();
        let needed = match self.kind {
            PositionKind::SinCos => width,
            PositionKind::Rotary { .. } => 2 * width,
        };
        same_size("columns", needed, self.out.size())?;
        match self.rows.segments.as_slice() {
            [grid] | [_, grid] if is_grid(grid) => {
                Ok(Type::f32(vec![self.rows.clone(), self.out.clone()]))
            }
            _ => Err(OpError::new(
                "rows (t h w), with or without a text segment before",
                self.rows.to_string(),
            )),
        }
    }
}

/// Operands `text[b, txt, c], video[b, v=(t h w), c], positions[seq, c]?`; result
/// `[b, seq=(txt | t h w), c]`.
pub(super) fn infer_join(positions: Presence, operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 2 + positions.count())?;
    let ([tb, text, tc], [vb, video, vc]) =
        (operands[0].dims.as_slice(), operands[1].dims.as_slice())
    else {
        return Err(OpError::new(
            "text [b, txt, c] and video [b, v, c]",
            format!("{} and {}", operands[0], operands[1]),
        ));
    };
    same_size("batch", tb.size(), vb.size())?;
    same_size("channels", tc.size(), vc.size())?;
    let segments = text
        .segments
        .iter()
        .chain(&video.segments)
        .cloned()
        .collect();
    let seq = Dim::sum("seq", segments);
    if positions == Presence::Present {
        same_size(
            "rows of positions",
            seq.size() * tc.size(),
            operands[2].elements(),
        )?;
    }
    let dims = vec![vb.clone(), seq, vc.clone()];
    Ok(Type::new(operands[1].dtype, dims))
}

/// Operand `[.., m=(g=2 f)]`, result `[.., f]`.
pub(super) fn infer_gated(operands: &[&Type]) -> Result<Type, OpError> {
    arity(operands, 1)?;
    match last(operands[0])?.segments.as_slice() {
        [Segment { factors }] if factors.len() == 2 && factors[0].size == 2 => {
            let mut ty = operands[0].clone();
            ty.dims.pop();
            ty.dims.push(Dim::new(&factors[1].name, factors[1].size));
            Ok(ty)
        }
        _ => Err(OpError::new("channels m=(g=2 f)", operands[0].to_string())),
    }
}

fn is_grid(segment: &Segment) -> bool {
    let names: Vec<&str> = segment.factors.iter().map(|f| &*f.name).collect();
    names == ["t", "h", "w"]
}
