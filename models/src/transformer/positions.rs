//! Positions of the token grid: sin-cos or stored ones that are added, rotary ones in attention.
//!
//! Sources: `CogVideoXPatchEmbed`, `get_3d_sincos_pos_embed` and `get_3d_rotary_pos_embed` of
//! diffusers 0.42, and `_prepare_rotary_positional_embeddings` of its CogVideoX pipelines.
//!
//! Refuses sizes for which the reference has no positions: another number of text rows than the
//! config's where positions are added, another size than the stored one where they are stored, a
//! grid larger than the native one where rotary positions are cut out of the native grid.

use super::TransformerConfig;
use super::grid::Grid;
use crate::ModelError;
use crate::builder::{Builder, source};
use terrace_compiler::ir::{Dim, NodeId};
use terrace_compiler::ops::{Op, PositionTable};
use terrace_plan::{GridAxis, PositionColumns, PositionKind, WeightLayout};

/// Base of the rotary frequencies.
const THETA: f64 = 10_000.0;

/// Positions of one axis: `start + index * step`.
#[derive(Clone, Copy)]
struct Line {
    start: f64,
    step: f64,
}

impl Line {
    const COUNTING: Self = Self {
        start: 0.0,
        step: 1.0,
    };
}

/// What is added to the joint sequence, if anything.
pub(super) fn added(
    b: &mut Builder,
    config: &TransformerConfig,
    grid: &Grid,
) -> Result<Option<NodeId>, ModelError> {
    if !config.adds_positions() {
        return Ok(None);
    }
    if grid.text != config.max_text_seq_length {
        return Err(ModelError::Size {
            what: "number of text rows",
            found: grid.text,
            expected: format!("max_text_seq_length {}", config.max_text_seq_length),
        });
    }
    if config.use_learned_positional_embeddings {
        check_native(config, grid)?;
        // Other lengths than the native one fall back to sin-cos, as in the reference.
        let frames = (grid.t - 1) * config.temporal_compression_ratio + 1;
        if frames == config.sample_frames {
            return stored(b, config, grid).map(Some);
        }
    }
    sin_cos(b, config, grid).map(Some)
}

/// The table of rotary positions, if attention has them.
pub(super) fn rotary(
    b: &mut Builder,
    config: &TransformerConfig,
    grid: &Grid,
) -> Result<Option<NodeId>, ModelError> {
    if !config.use_rotary_positional_embeddings {
        return Ok(None);
    }
    let lines = match config.patch_size_t {
        None => cropped(config, grid),
        Some(_) => sliced(config, grid)?,
    };
    let axes = [GridAxis::T, GridAxis::H, GridAxis::W];
    let d = config.attention_head_dim;
    let op = Op::PositionTable(PositionTable {
        kind: PositionKind::Rotary { theta: THETA },
        columns: columns(d, axes, lines),
        rows: grid.v(),
        out: Dim::product("r", &[("cs", 2), ("d", d)]),
    });
    b.add(op, &[], "rotary_positions").map(Some)
}

fn stored(b: &mut Builder, config: &TransformerConfig, grid: &Grid) -> Result<NodeId, ModelError> {
    let (seq, c) = (grid.seq(), Dim::new("c", config.width()));
    let shape = [1, seq.size(), c.size()];
    let sources = vec![source("patch_embed.pos_embedding", &shape)];
    b.weight(sources, vec![seq, c], WeightLayout::Plain)
}

fn sin_cos(b: &mut Builder, config: &TransformerConfig, grid: &Grid) -> Result<NodeId, ModelError> {
    let every = |scale: f64| Line {
        start: 0.0,
        step: 1.0 / scale,
    };
    let (time, space) = (
        every(config.temporal_interpolation_scale),
        every(config.spatial_interpolation_scale),
    );
    // The reference puts columns before rows.
    let axes = [GridAxis::T, GridAxis::W, GridAxis::H];
    let op = Op::PositionTable(PositionTable {
        kind: PositionKind::SinCos,
        columns: columns(config.width(), axes, [time, space, space]),
        rows: grid.seq(),
        out: Dim::new("c", config.width()),
    });
    b.add(op, &[], "patch_embed.pos_embedding")
}

fn columns(width: usize, axes: [GridAxis; 3], lines: [Line; 3]) -> Vec<PositionColumns> {
    let dims = [width / 4, width / 8 * 3, width / 8 * 3];
    let blocks = axes.into_iter().zip(dims).zip(lines);
    blocks
        .map(|((axis, dim), Line { start, step })| PositionColumns {
            axis,
            dim,
            start,
            step,
        })
        .collect()
}

/// Rows and columns spread over the part of the native grid that has the video's aspect ratio.
fn cropped(config: &TransformerConfig, grid: &Grid) -> [Line; 3] {
    let native_h = config.sample_height / config.patch_size;
    let native_w = config.sample_width / config.patch_size;
    let (h, w) = (grid.h as f64, grid.w as f64);
    let (native_height, native_width) = (native_h as f64, native_w as f64);
    let (height, width) = if h / w > native_height / native_width {
        (native_height, round(native_height / h * w))
    } else {
        (round(native_width / w * h), native_width)
    };
    let spread = |native: f64, resized: f64, count: f64| {
        let start = round((native - resized) / 2.0);
        let last = (start + resized) * (count - 1.0) / count;
        Line {
            start,
            step: (last - start) / (count - 1.0).max(1.0),
        }
    };
    [
        Line::COUNTING,
        spread(native_height, height, h),
        spread(native_width, width, w),
    ]
}

/// The first rows and columns of the native grid.
fn sliced(config: &TransformerConfig, grid: &Grid) -> Result<[Line; 3], ModelError> {
    for (what, patches, native) in [
        ("latent height", grid.h, config.sample_height),
        ("latent width", grid.w, config.sample_width),
    ] {
        if patches > native / config.patch_size {
            return Err(ModelError::Size {
                what,
                found: patches * config.patch_size,
                expected: format!(
                    "at most {}, because positions are those of the native grid",
                    native / config.patch_size * config.patch_size
                ),
            });
        }
    }
    Ok([Line::COUNTING; 3])
}

/// Python's `round`: halves go to the even neighbour.
fn round(x: f64) -> f64 {
    x.round_ties_even()
}

fn check_native(config: &TransformerConfig, grid: &Grid) -> Result<(), ModelError> {
    for (what, found, expected) in [
        (
            "latent height",
            grid.h * config.patch_size,
            config.sample_height,
        ),
        (
            "latent width",
            grid.w * config.patch_size,
            config.sample_width,
        ),
    ] {
        if found != expected {
            return Err(ModelError::Size {
                what,
                found,
                expected: format!("{expected}, because positions are stored for this size alone"),
            });
        }
    }
    Ok(())
}
