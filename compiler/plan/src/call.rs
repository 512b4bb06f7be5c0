//! Kernel calls: every kernel of the contract with plain sizes and operands.
//!
//! Tensors are dense and row-major unless a call carries strides. A [`Slot`] is the first element
//! of an operand; its length follows from the sizes of the call.
//!
//! Activations, the tensors between products, have one floating type per call, that of their buffers.
//! Positions, times, biases of scores, running states and all that the scheduler computes are f32.

use crate::{
    Activation, Affine, AttentionShape, BoxCopy, ConvShape, Epilogue, Gate, Heads, ModSegment,
    Mods, Norm, Operand, PositionColumns, PositionKind, QkNorm, Rope, SinusoidOrder, Slot,
    SpatialModulation, Stage, UpsampleTime, WeightId,
};
use serde::{Deserialize, Serialize};

/// A kernel and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
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
    /// The same values in the element type of `y`'s buffer, rounded to nearest even.
    Cast {
        /// Elements.
        len: usize,
        /// Input, of any floating type.
        x: Slot,
        /// Output, of any floating type.
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
