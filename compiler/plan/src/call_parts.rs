//! The parts that kernel calls are made of: operands, segments, norms, sizes.
//!
//! Offsets and strides count elements. Nothing here is checked; [`crate::Plan::check`] does that.

use crate::{BufferId, DType, WeightId};
use serde::{Deserialize, Serialize};

/// First element of an operand in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The buffer.
    pub buffer: BufferId,
    /// Elements before the operand.
    pub offset: usize,
}

/// An operand that is either computed or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Operand {
    /// A buffer of the rank.
    Buffer(Slot),
    /// A weight in plain layout.
    Weight(WeightId),
}

/// Modulation vectors: `mods[batch item]` begins at `slot + item * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mods {
    /// Vector of the first batch item.
    pub slot: Slot,
    /// Elements between batch items.
    pub stride: usize,
}

/// Rows of one segment (text or video) and the offsets of its modulation vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModSegment {
    /// Rows of the segment in each batch item.
    pub rows: usize,
    /// Offset of the shift vector in [`Mods`].
    pub shift: usize,
    /// Offset of the scale vector in [`Mods`].
    pub scale: usize,
}

/// Rows of one segment and the offset of its gate vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSegment {
    /// Rows of the segment in each batch item.
    pub rows: usize,
    /// Offset of the gate vector in [`Mods`].
    pub gate: usize,
}

/// A gate applied before a residual addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Modulation vectors.
    pub mods: Mods,
    /// Batch items; rows = batch x sum of segment rows.
    pub batch: usize,
    /// Segments in row order.
    pub segments: Vec<GateSegment>,
}

/// What a matrix product does to its result before storing it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// GELU by the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `residual + gate * result`; the residual may be the result's own slot.
    Residual {
        /// `[rows, n]`.
        residual: Slot,
        /// Absent: a plain sum.
        gate: Option<Gate>,
    },
}

/// Weight and bias of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// Multiplier per channel.
    pub weight: Option<WeightId>,
    /// Offset per channel.
    pub bias: Option<WeightId>,
}

/// Normalisation over the channels of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Norm {
    /// None: modulation alone.
    None,
    /// LayerNorm.
    Layer {
        /// Added to the variance.
        eps: f64,
        /// Optional weight and bias, `[width]` each.
        affine: Affine,
    },
    /// RMSNorm without mean, as T5.
    Rms {
        /// Added to the mean square.
        eps: f64,
        /// `[width]`.
        weight: WeightId,
    },
}

/// A strided view `[batch, rows, heads, head_dim]`; the last dimension is dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// First element.
    pub slot: Slot,
    /// Elements between batch items.
    pub batch_stride: usize,
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between heads.
    pub head_stride: usize,
}

/// Whether an attention step begins a running state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The state is written without being read.
    First,
    /// The state is merged into.
    Next,
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// Order of the halves of a sinusoidal embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinusoidOrder {
    /// `[sin | cos]`.
    SinCos,
    /// `[cos | sin]`: `flip_sin_to_cos`.
    CosSin,
}

/// An axis of the token grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GridAxis {
    /// Time.
    T,
    /// Height.
    H,
    /// Width.
    W,
}

/// A block of columns of a position table: positions are `start + index * step`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionColumns {
    /// Grid axis that the block encodes.
    pub axis: GridAxis,
    /// Number of columns.
    pub dim: usize,
    /// Position of index 0.
    pub start: f64,
    /// Distance of neighbouring positions.
    pub step: f64,
}

/// Kind of a position table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum PositionKind {
    /// Rows of `[sin | cos]` blocks, width = sum of dims.
    SinCos,
    /// Rows of `[cos D | sin D]`, D = sum of dims.
    Rotary {
        /// Base of the frequencies.
        theta: f64,
    },
}

/// Time handling of a nearest up-sampling by two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpsampleTime {
    /// Frames are kept.
    Keep,
    /// Frames are doubled, the first of an odd number excepted.
    Double,
}

/// Spatial modulation of a GroupNorm: `yb` is `[batch, t, h, w, 2 * channels]`, multiplier first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpatialModulation {
    /// First element of `yb`.
    pub yb: Slot,
    /// `[t, h, w]` of `yb`, spread to the size of `x` by nearest neighbour.
    pub grid: [usize; 3],
}

/// LayerNorm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QkNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Of the queries, `[head_dim]` each.
    pub q: Affine,
    /// Of the keys, `[head_dim]` each.
    pub k: Affine,
}

/// Rotary positions of the video rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// `[rows - first_row, 2, head_dim]`: cosines, then sines.
    pub table: Slot,
    /// Rows before it (text) are left as they are.
    pub first_row: usize,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionShape {
    /// Batch items.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Query rows.
    pub q_rows: usize,
    /// Key rows.
    pub kv_rows: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Multiplier of the scores.
    pub scale: f64,
    /// What queries, keys, values and weights are rounded to before they are multiplied: f32 or bf16.
    /// Sums and the softmax are f32.
    pub products: DType,
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvShape {
    /// Batch items.
    pub batch: usize,
    /// `[frames, height, width]` of input and output.
    pub grid: [usize; 3],
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// `[kt, kh, kw]`; `kh` and `kw` are odd.
    pub kernel: [usize; 3],
}
