//! Kernels that look up or compute rows: tokens, positions, time steps, the joint sequence.
//!
//! Refused: nothing of its own; operands were checked by the binder.

use super::super::super::args;
use super::super::operand::{Access, Binder};
use super::Run;
use crate::RuntimeError;
use terrace_kernels::cpu::{Join, PositionTable, RelativeBias, TimestepEmbedding, TokenEmbedding};
use terrace_plan::{PositionColumns, PositionKind, SinusoidOrder};

pub(super) fn tokens(b: &Binder<'_>, vocabulary: usize, width: usize) -> Result<Run, RuntimeError> {
    let (ids, y) = (b.integers("ids")?, b.output("y")?);
    let table = b.plain("table").ok_or_else(|| b.missing("table"))?;
    Ok(Box::new(move |a: &Access| {
        TokenEmbedding {
            vocabulary,
            width,
            ids: ids.get(a),
            table: table.get(),
            y: y.get(a),
        }
        .run()
    }))
}

/// `sizes`: heads, query rows, key rows.
pub(super) fn relative_bias(
    b: &Binder<'_>,
    sizes: [usize; 3],
    buckets: usize,
    max_distance: usize,
) -> Result<Run, RuntimeError> {
    let y = b.output("y")?;
    let table = b.plain("table").ok_or_else(|| b.missing("table"))?;
    let [heads, queries, keys] = sizes;
    Ok(Box::new(move |a: &Access| {
        RelativeBias {
            heads,
            queries,
            keys,
            buckets,
            max_distance,
            table: table.get(),
            y: y.get(a),
        }
        .run()
    }))
}

pub(super) fn timestep(
    b: &Binder<'_>,
    dim: usize,
    order: SinusoidOrder,
    shift: f64,
) -> Result<Run, RuntimeError> {
    let (timestep, y) = (b.input("timestep")?, b.output("y")?);
    let order = args::order(order);
    Ok(Box::new(move |a: &Access| {
        TimestepEmbedding {
            dim,
            order,
            downscale_freq_shift: shift as f32,
            max_period: args::MAX_PERIOD,
            timesteps: timestep.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

/// `rows`: zero rows, frames, width of the grid, first cell, cells.
pub(super) fn positions(
    b: &Binder<'_>,
    kind: PositionKind,
    columns: &[PositionColumns],
    rows: [usize; 5],
) -> Result<Run, RuntimeError> {
    let y = b.output("y")?;
    let [zero_rows, t, grid_w, first, cells] = rows;
    let kind = args::positions(kind);
    let columns = args::axes(columns);
    Ok(Box::new(move |a: &Access| {
        PositionTable {
            kind,
            columns: &columns,
            t,
            grid_w,
            // `KernelCall::operands` has proved that the sum fits.
            cells: first..first.saturating_add(cells),
            zero_rows,
            out: y.get(a),
        }
        .run()
    }))
}

/// `sizes`: batch, text rows, video rows, width.
pub(super) fn join(b: &Binder<'_>, sizes: [usize; 4]) -> Result<Run, RuntimeError> {
    let (text, video) = (b.input("text")?, b.input("video")?);
    let (positions, y) = (b.source("positions"), b.output("y")?);
    let [batch, text_rows, video_rows, width] = sizes;
    Ok(Box::new(move |a: &Access| {
        Join {
            batch,
            text_rows,
            video_rows,
            width,
            text: text.get(a),
            video: video.get(a),
            positions: positions.as_ref().map(|p| p.get(a)),
            y: y.get(a),
        }
        .run()
    }))
}
