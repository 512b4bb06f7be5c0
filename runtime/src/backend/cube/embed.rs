//! Kernels that look up or compute rows: tokens, positions, time steps, the joint sequence.
//!
//! Invariant: what needs double precision is computed on the host, once, and handed over as constants.

use super::super::args;
use super::{Binder, Calls, For, Places};
use terrace_kernels::cube::{
    Join, PositionShape, PositionTable, RelativeBias, RelativeShape, TimestepEmbedding,
    TimestepShape, TokenEmbedding,
};
use terrace_plan::{KernelCall, SinusoidOrder};

pub(super) fn calls<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    match call {
        KernelCall::Embedding {
            width, vocabulary, ..
        } => tokens(b, device, *vocabulary, *width),
        KernelCall::RelativeBias {
            heads,
            q_rows,
            kv_rows,
            buckets,
            max_distance,
            ..
        } => {
            let shape = RelativeShape {
                heads: *heads,
                queries: *q_rows,
                keys: *kv_rows,
                buckets: *buckets,
                max_distance: *max_distance,
            };
            relative_bias(b, device, shape)
        }
        KernelCall::TimestepEmbedding {
            dim, order, shift, ..
        } => timestep(b, device, *dim, *order, *shift),
        KernelCall::PositionTable { .. } => position_table(b, device, call),
        KernelCall::Join {
            batch,
            text_rows,
            video_rows,
            width,
            ..
        } => join(b, device, [*batch, *text_rows, *video_rows, *width]),
        KernelCall::Linear { .. }
        | KernelCall::NormModulate { .. }
        | KernelCall::GateAdd { .. }
        | KernelCall::QkNormRope { .. }
        | KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Activate { .. }
        | KernelCall::Cast { .. }
        | KernelCall::GatedGelu { .. }
        | KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. }
        | KernelCall::Denoise { .. }
        | KernelCall::Advance { .. }
        | KernelCall::Noise { .. } => Err(b.other_family()),
    }
}

fn tokens<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    vocabulary: usize,
    width: usize,
) -> Calls<P> {
    let tokens = TokenEmbedding {
        vocabulary,
        width,
        ids: b.operand("ids")?,
        table: b.weight("table")?,
        y: b.operand("y")?,
    };
    Ok(tokens.calls(device)?)
}

/// `sizes`: batch, text rows, video rows, width.
fn join<P: Places>(b: &Binder<'_, P>, device: &For<P>, sizes: [usize; 4]) -> Calls<P> {
    let [batch, text_rows, video_rows, width] = sizes;
    let join = Join {
        batch,
        text_rows,
        video_rows,
        width,
        text: b.operand("text")?,
        video: b.operand("video")?,
        positions: b.source("positions")?,
        y: b.operand("y")?,
    };
    Ok(join.calls(device)?)
}

fn relative_bias<P: Places>(b: &Binder<'_, P>, device: &For<P>, shape: RelativeShape) -> Calls<P> {
    let bias = RelativeBias {
        buckets: b.indices(&shape.buckets()?)?,
        shape,
        table: b.weight("table")?,
        y: b.operand("y")?,
    };
    Ok(bias.calls(device)?)
}

fn timestep<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    dim: usize,
    order: SinusoidOrder,
    shift: f64,
) -> Calls<P> {
    let shape = TimestepShape {
        dim,
        order: args::order(order),
        downscale_freq_shift: shift as f32,
        max_period: args::MAX_PERIOD,
    };
    let embedding = TimestepEmbedding {
        frequencies: b.floats(&shape.frequencies()?)?,
        shape,
        timesteps: b.operand("timestep")?,
        y: b.operand("y")?,
    };
    Ok(embedding.calls(device)?)
}

fn position_table<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    let KernelCall::PositionTable {
        kind,
        columns,
        zero_rows,
        t,
        grid_w,
        first_cell,
        cells,
        ..
    } = call
    else {
        return Err(b.other_family());
    };
    let shape = PositionShape {
        kind: args::positions(*kind),
        columns: args::axes(columns),
        t: *t,
        grid_w: *grid_w,
        // `KernelCall::operands` has proved that the sum fits.
        cells: *first_cell..first_cell.saturating_add(*cells),
        zero_rows: *zero_rows,
    };
    let constants = shape.constants()?;
    let table = PositionTable {
        map: b.indices(&constants.map)?,
        entries: b.floats(&constants.entries)?,
        shape,
        y: b.operand("y")?,
    };
    Ok(table.calls(device)?)
}
