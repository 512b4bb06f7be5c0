//! Kernel calls: every kernel of the contract with plain sizes and operands.
//!
//! Tensors are dense and row-major unless a call carries strides. A [`Slot`] is the first element
//! of an operand; its length follows from the sizes of the call.

use crate::{BoxCopy, BufferId, WeightId};
use serde::{Deserialize, Serialize};

/// First element of an operand in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The buffer.
    pub buffer: BufferId,
    /// Elements before the operand.
    pub offset: usize,
}

/// An operand that is either computed or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// A buffer of the rank.
    Buffer(Slot),
    /// A weight in plain layout.
    Weight(WeightId),
}

/// Modulation vectors: `mods[batch item]` begins at `slot + item * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mods {
    /// Vector of the first batch item.
    pub slot: Slot,
    /// Elements between batch items.
    pub stride: usize,
}

/// Rows of one segment (text or video) and the offsets of its modulation vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct GateSegment {
    /// Rows of the segment in each batch item.
    pub rows: usize,
    /// Offset of the gate vector in [`Mods`].
    pub gate: usize,
}

/// A gate applied before a residual addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub enum Epilogue {
    /// Nothing.
    None,
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
pub struct Affine {
    /// Multiplier per channel.
    pub weight: Option<WeightId>,
    /// Offset per channel.
    pub bias: Option<WeightId>,
}

/// Normalisation over the channels of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
pub struct SpatialModulation {
    /// First element of `yb`.
    pub yb: Slot,
    /// `[t, h, w]` of `yb`, spread to the size of `x` by nearest neighbour.
    pub grid: [usize; 3],
}

/// A kernel and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kernel")]
pub enum KernelCall {
    /// `y[rows, n] = epilogue(x[rows, k] W^T + bias)`.
    Linear {
        /// Rows of `x` and `y`.
        rows: usize,
        /// Columns of `x`.
        k: usize,
        /// Columns of `y`.
        n: usize,
        /// `[rows, k]`.
        x: Slot,
        /// `[n, k]` in linear layout.
        weight: WeightId,
        /// `[n]`.
        bias: Option<WeightId>,
        /// Applied before the store.
        epilogue: Epilogue,
        /// `[rows, n]`.
        y: Slot,
    },
    /// `y = norm(x) * (1 + scale) + shift`, rows `[batch, sum of segment rows, width]`.
    NormModulate {
        /// Batch items.
        batch: usize,
        /// Channels.
        width: usize,
        /// Segments in row order; shift and scale are ignored without `mods`.
        segments: Vec<ModSegment>,
        /// Normalisation.
        norm: Norm,
        /// Absent: normalisation alone.
        mods: Option<Mods>,
        /// Input rows.
        x: Slot,
        /// Output rows; may equal `x`.
        y: Slot,
    },
    /// `y = residual + gate * x`, or a plain sum without a gate.
    GateAdd {
        /// Rows of all operands.
        rows: usize,
        /// Channels.
        width: usize,
        /// Absent: a plain sum.
        gate: Option<Gate>,
        /// `[rows, width]`.
        residual: Slot,
        /// `[rows, width]`.
        x: Slot,
        /// `[rows, width]`; may equal `residual` or `x`.
        y: Slot,
    },
    /// LayerNorm over each head of q and k, then rotary positions, in place on
    /// `[batch, rows, 3, heads, head_dim]`.
    QkNormRope {
        /// Batch items.
        batch: usize,
        /// Rows per batch item.
        rows: usize,
        /// Heads.
        heads: usize,
        /// Channels per head.
        head_dim: usize,
        /// LayerNorm of q and k.
        norm: Option<QkNorm>,
        /// Rotary positions.
        rope: Option<Rope>,
        /// Packed qkv, changed in place.
        qkv: Slot,
    },
    /// Softmax attention without materialised scores.
    Attention {
        /// Sizes.
        shape: AttentionShape,
        /// Queries.
        q: Heads,
        /// Keys.
        k: Heads,
        /// Values.
        v: Heads,
        /// `[heads, q_rows, kv_rows]`, added to the scaled scores.
        bias: Option<Slot>,
        /// Output.
        y: Heads,
    },
    /// Attention to one block of keys, merged into a running state
    /// `[batch, q_rows, heads, head_dim + 2]` (accumulator, maximum, sum).
    AttentionStep {
        /// Sizes.
        shape: AttentionShape,
        /// Queries.
        q: Heads,
        /// Keys of the block.
        k: Heads,
        /// Values of the block.
        v: Heads,
        /// Whether the state is begun or merged into.
        stage: Stage,
        /// Running state.
        state: Slot,
    },
    /// Divides the accumulator by the sum: `[batch, rows, heads, head_dim]`.
    AttentionFinish {
        /// Batch x query rows.
        rows: usize,
        /// Heads.
        heads: usize,
        /// Channels per head.
        head_dim: usize,
        /// Running state.
        state: Slot,
        /// `[rows, heads, head_dim]`.
        y: Slot,
    },
    /// An elementwise function.
    Activate {
        /// Elements.
        len: usize,
        /// The function.
        function: Activation,
        /// Input.
        x: Slot,
        /// Output; may equal `x`.
        y: Slot,
    },
    /// `y[rows, width] = gelu_tanh(x[:, :width]) * x[:, width:]`.
    GatedGelu {
        /// Rows.
        rows: usize,
        /// Channels of `y`.
        width: usize,
        /// `[rows, 2 * width]`.
        x: Slot,
        /// `[rows, width]`.
        y: Slot,
    },
    /// `y[row] = table[ids[row]]`.
    Embedding {
        /// Number of ids.
        rows: usize,
        /// Channels.
        width: usize,
        /// Rows of the table.
        vocabulary: usize,
        /// `[rows]` u32.
        ids: Slot,
        /// `[vocabulary, width]`, plain.
        table: WeightId,
        /// `[rows, width]`.
        y: Slot,
    },
    /// T5's bidirectional relative position bias `[heads, q_rows, kv_rows]`.
    RelativeBias {
        /// Heads.
        heads: usize,
        /// Query rows.
        q_rows: usize,
        /// Key rows.
        kv_rows: usize,
        /// Number of buckets.
        buckets: usize,
        /// Distance from which all positions share a bucket.
        max_distance: usize,
        /// `[buckets, heads]`, plain.
        table: WeightId,
        /// Output.
        y: Slot,
    },
    /// Sinusoidal embedding of a time step: `[batch] -> [batch, dim]`.
    TimestepEmbedding {
        /// Batch items.
        batch: usize,
        /// Channels.
        dim: usize,
        /// Order of the halves.
        order: SinusoidOrder,
        /// `downscale_freq_shift`.
        shift: f64,
        /// `[batch]` f32.
        timestep: Slot,
        /// `[batch, dim]`.
        y: Slot,
    },
    /// Position table of the cells that the rank holds.
    PositionTable {
        /// Kind.
        kind: PositionKind,
        /// Column blocks.
        columns: Vec<PositionColumns>,
        /// Leading rows of zeros: text without positions.
        zero_rows: usize,
        /// Frames of the token grid.
        t: usize,
        /// Width of the token grid.
        grid_w: usize,
        /// First cell of the `(h w)` raster.
        first_cell: usize,
        /// Number of cells.
        cells: usize,
        /// `[zero_rows + t * cells, width]`.
        y: Slot,
    },
    /// `y = [text | video] + positions`, per batch item.
    Join {
        /// Batch items.
        batch: usize,
        /// Text rows per batch item.
        text_rows: usize,
        /// Video rows per batch item.
        video_rows: usize,
        /// Channels.
        width: usize,
        /// `[batch, text_rows, width]`.
        text: Slot,
        /// `[batch, video_rows, width]`.
        video: Slot,
        /// `[text_rows + video_rows, width]`.
        positions: Option<Operand>,
        /// `[batch, text_rows + video_rows, width]`.
        y: Slot,
    },
    /// Causal channels-last convolution, stride 1.
    Conv3d {
        /// Sizes.
        shape: ConvShape,
        /// `[batch, frames, height, width, cin]`.
        x: Slot,
        /// The `kt - 1` frames before `x`; absent: its first frame repeated.
        cache: Option<Slot>,
        /// `[cout, cin, kt, kh, kw]` in convolution layout.
        weight: WeightId,
        /// `[cout]`.
        bias: Option<WeightId>,
        /// Added to the result, shaped as `y`.
        residual: Option<Slot>,
        /// `[batch, frames, height, width, cout]`.
        y: Slot,
    },
    /// The last `kt - 1` frames of `cache ++ x`, the first frame of `x` standing in for an
    /// absent cache.
    ConvCache {
        /// Batch items.
        batch: usize,
        /// Frames of `x`.
        frames: usize,
        /// Elements of a frame.
        frame_len: usize,
        /// Frames kept: `kt - 1`.
        keep: usize,
        /// `[batch, frames, frame_len]`.
        x: Slot,
        /// `[batch, keep, frame_len]`.
        cache: Option<Slot>,
        /// `[batch, keep, frame_len]`.
        y: Slot,
    },
    /// GroupNorm, optional spatial modulation, optional activation; channels last.
    GroupNorm {
        /// Batch items.
        batch: usize,
        /// `[frames, height, width]`.
        grid: [usize; 3],
        /// Channels.
        channels: usize,
        /// Groups.
        groups: usize,
        /// Added to the variance.
        eps: f64,
        /// Weight and bias, `[channels]` each.
        affine: Affine,
        /// Spatial modulation after the affine part.
        spatial: Option<SpatialModulation>,
        /// Applied last.
        activation: Option<Activation>,
        /// Input.
        x: Slot,
        /// Output; may equal `x`.
        y: Slot,
    },
    /// Nearest up-sampling by two in height and width, and optionally in time.
    Upsample {
        /// Batch items.
        batch: usize,
        /// `[frames, height, width]` of `x`.
        grid: [usize; 3],
        /// Channels.
        channels: usize,
        /// Time handling.
        time: UpsampleTime,
        /// Input.
        x: Slot,
        /// Output.
        y: Slot,
    },
    /// `v = u + g (t - u)`; `y = c0 * latents + c1 * v`, with `[g, c0 .. c5]` in `coefficients`.
    Denoise {
        /// Elements.
        len: usize,
        /// Unconditional prediction; absent: no guidance, `v` is `pred`.
        uncond: Option<Slot>,
        /// Conditional prediction.
        pred: Slot,
        /// Current latents.
        latents: Slot,
        /// `[7]`.
        coefficients: Slot,
        /// Predicted clean latents.
        y: Slot,
    },
    /// `y = c2 * latents + c3 * x0 + c4 * previous + c5 * noise`.
    Advance {
        /// Elements.
        len: usize,
        /// Current latents.
        latents: Slot,
        /// Predicted clean latents.
        x0: Slot,
        /// Predicted clean latents of the step before.
        previous: Option<Slot>,
        /// Standard normal noise.
        noise: Option<Slot>,
        /// `[7]`, as for [`KernelCall::Denoise`].
        coefficients: Slot,
        /// Latents of the next step.
        y: Slot,
    },
    /// Standard normal numbers by global position.
    Noise {
        /// Source: global index space of the host tensor; destination: `y`.
        boxes: Vec<BoxCopy>,
        /// `[4]` u32: seed low, seed high, stream low, stream high.
        key: Slot,
        /// Output.
        y: Slot,
    },
}

/// LayerNorm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
pub struct Rope {
    /// `[rows - first_row, 2, head_dim]`: cosines, then sines.
    pub table: Slot,
    /// Rows before it (text) are left as they are.
    pub first_row: usize,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
