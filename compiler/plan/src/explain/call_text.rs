//! Kernel calls in words: sizes and settings by name, operands and weights by place.

use super::steps::{Place, StepLine, Used};
use crate::{
    Activation, AttentionShape, ConvShape, DType, Epilogue, GridAxis, KernelCall, Norm,
    PositionKind, Stage, UpsampleTime,
};

/// Adds what a call says about itself to its line.
pub(super) fn describe(line: &mut StepLine, call: &KernelCall) {
    rows(line, call);
    heads(line, call);
    tables(line, call);
    grids(line, call);
    operands(line, call);
}

fn operands(line: &mut StepLine, call: &KernelCall) {
    match call.operands() {
        Ok(operands) => {
            for operand in operands {
                let used = Used::buffer(operand.name, operand.buffer, operand.offset);
                if operand.access.reads() {
                    line.reads.push(used.clone());
                }
                if operand.access.writes() {
                    line.writes.push(used);
                }
            }
        }
        Err(error) => line.text("illegal", &error.to_string()),
    }
    for weight in call.weights() {
        line.reads.push(Used {
            operand: weight.name.to_owned(),
            place: Place::Weight { id: weight.weight },
        });
    }
}

/// Kernels over rows of tokens.
fn rows(line: &mut StepLine, call: &KernelCall) {
    match call {
        KernelCall::Linear {
            rows,
            k,
            n,
            epilogue,
            ..
        } => {
            numbers(line, &[("rows", *rows), ("k", *k), ("n", *n)]);
            epilogue_text(line, epilogue);
        }
        KernelCall::NormModulate {
            batch,
            width,
            segments,
            norm,
            mods,
            ..
        } => {
            let rows = segments.iter().map(|it| it.rows);
            let rows = rows.fold(0, usize::saturating_add);
            numbers(
                line,
                &[("batch", *batch), ("rows", rows), ("width", *width)],
            );
            line.text("norm", norm_name(norm));
            if mods.is_some() {
                line.number("segments", segments.len());
            }
        }
        KernelCall::GateAdd {
            rows, width, gate, ..
        } => {
            numbers(line, &[("rows", *rows), ("width", *width)]);
            if let Some(gate) = gate {
                line.number("segments", gate.segments.len());
            }
        }
        KernelCall::Activate { len, function, .. } => {
            line.number("len", *len);
            line.text("function", activation_name(*function));
        }
        KernelCall::Cast { len, .. } => line.number("len", *len),
        KernelCall::GatedGelu { rows, width, .. } => {
            numbers(line, &[("rows", *rows), ("width", *width)]);
        }
        KernelCall::QkNormRope { .. } | KernelCall::Attention { .. } => {}
        KernelCall::AttentionStep { .. } | KernelCall::AttentionFinish { .. } => {}
        KernelCall::Embedding { .. } | KernelCall::RelativeBias { .. } => {}
        KernelCall::TimestepEmbedding { .. } | KernelCall::PositionTable { .. } => {}
        KernelCall::Join { .. } | KernelCall::Conv3d { .. } | KernelCall::ConvCache { .. } => {}
        KernelCall::GroupNorm { .. } | KernelCall::Upsample { .. } => {}
        KernelCall::Denoise { .. } | KernelCall::Advance { .. } | KernelCall::Noise { .. } => {}
    }
}

/// Kernels over attention heads.
fn heads(line: &mut StepLine, call: &KernelCall) {
    match call {
        KernelCall::QkNormRope {
            batch,
            rows,
            heads,
            head_dim,
            norm,
            rope,
            ..
        } => {
            numbers(line, &[("batch", *batch), ("rows", *rows)]);
            numbers(line, &[("heads", *heads), ("head_dim", *head_dim)]);
            if norm.is_some() {
                line.text("norm", "layer");
            }
            if let Some(rope) = rope {
                line.number("first_row", rope.first_row);
            }
        }
        KernelCall::Attention { shape, .. } => attention(line, shape),
        KernelCall::AttentionStep { shape, stage, .. } => {
            attention(line, shape);
            line.text("stage", stage_name(*stage));
        }
        KernelCall::AttentionFinish {
            rows,
            heads,
            head_dim,
            ..
        } => numbers(
            line,
            &[("rows", *rows), ("heads", *heads), ("head_dim", *head_dim)],
        ),
        KernelCall::Linear { .. } | KernelCall::NormModulate { .. } => {}
        KernelCall::GateAdd { .. } | KernelCall::Activate { .. } => {}
        KernelCall::GatedGelu { .. } | KernelCall::Embedding { .. } | KernelCall::Cast { .. } => {}
        KernelCall::RelativeBias { .. } | KernelCall::TimestepEmbedding { .. } => {}
        KernelCall::PositionTable { .. } | KernelCall::Join { .. } => {}
        KernelCall::Conv3d { .. } | KernelCall::ConvCache { .. } => {}
        KernelCall::GroupNorm { .. } | KernelCall::Upsample { .. } => {}
        KernelCall::Denoise { .. } | KernelCall::Advance { .. } | KernelCall::Noise { .. } => {}
    }
}

/// Kernels that make or look up rows.
fn tables(line: &mut StepLine, call: &KernelCall) {
    match call {
        KernelCall::Embedding {
            rows,
            width,
            vocabulary,
            ..
        } => numbers(
            line,
            &[
                ("rows", *rows),
                ("width", *width),
                ("vocabulary", *vocabulary),
            ],
        ),
        KernelCall::RelativeBias {
            heads,
            q_rows,
            kv_rows,
            buckets,
            max_distance,
            ..
        } => {
            numbers(line, &[("heads", *heads), ("q_rows", *q_rows)]);
            numbers(line, &[("kv_rows", *kv_rows), ("buckets", *buckets)]);
            line.number("max_distance", *max_distance);
        }
        KernelCall::TimestepEmbedding { batch, dim, .. } => {
            numbers(line, &[("batch", *batch), ("dim", *dim)]);
        }
        KernelCall::PositionTable { .. } => position_table(line, call),
        KernelCall::Join {
            batch,
            text_rows,
            video_rows,
            width,
            ..
        } => {
            numbers(line, &[("batch", *batch), ("text_rows", *text_rows)]);
            numbers(line, &[("video_rows", *video_rows), ("width", *width)]);
        }
        KernelCall::Noise { boxes, .. } => line.number("boxes", boxes.len()),
        KernelCall::Linear { .. } | KernelCall::NormModulate { .. } => {}
        KernelCall::GateAdd { .. } | KernelCall::QkNormRope { .. } => {}
        KernelCall::Attention { .. } | KernelCall::AttentionStep { .. } => {}
        KernelCall::AttentionFinish { .. } | KernelCall::Activate { .. } => {}
        KernelCall::GatedGelu { .. } | KernelCall::Conv3d { .. } | KernelCall::Cast { .. } => {}
        KernelCall::ConvCache { .. } | KernelCall::GroupNorm { .. } => {}
        KernelCall::Upsample { .. } | KernelCall::Denoise { .. } | KernelCall::Advance { .. } => {}
    }
}

/// Kernels over frames, and over whole latents.
fn grids(line: &mut StepLine, call: &KernelCall) {
    match call {
        KernelCall::Conv3d { shape, .. } => convolution(line, shape),
        KernelCall::ConvCache {
            batch,
            frames,
            frame_len,
            keep,
            ..
        } => {
            numbers(line, &[("batch", *batch), ("frames", *frames)]);
            numbers(line, &[("frame_len", *frame_len), ("keep", *keep)]);
        }
        KernelCall::GroupNorm {
            batch,
            grid,
            channels,
            groups,
            activation,
            ..
        } => {
            line.number("batch", *batch);
            line.text("grid", &times(grid));
            numbers(line, &[("channels", *channels), ("groups", *groups)]);
            if let Some(activation) = activation {
                line.text("activation", activation_name(*activation));
            }
        }
        KernelCall::Upsample {
            batch,
            grid,
            channels,
            time,
            ..
        } => {
            line.number("batch", *batch);
            line.text("grid", &times(grid));
            line.number("channels", *channels);
            line.text("time", time_name(*time));
        }
        KernelCall::Denoise { len, .. } | KernelCall::Advance { len, .. } => {
            line.number("len", *len);
        }
        KernelCall::Linear { .. } | KernelCall::NormModulate { .. } => {}
        KernelCall::GateAdd { .. } | KernelCall::QkNormRope { .. } => {}
        KernelCall::Attention { .. } | KernelCall::AttentionStep { .. } => {}
        KernelCall::AttentionFinish { .. } | KernelCall::Activate { .. } => {}
        KernelCall::GatedGelu { .. } | KernelCall::Embedding { .. } | KernelCall::Cast { .. } => {}
        KernelCall::RelativeBias { .. } | KernelCall::TimestepEmbedding { .. } => {}
        KernelCall::PositionTable { .. } | KernelCall::Join { .. } | KernelCall::Noise { .. } => {}
    }
}

fn position_table(line: &mut StepLine, call: &KernelCall) {
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
        return;
    };
    line.text("kind", kind_name(*kind));
    let columns = columns
        .iter()
        .map(|it| format!("{}{}", axis_name(it.axis), it.dim));
    line.text("columns", &columns.collect::<Vec<_>>().join(","));
    numbers(line, &[("zero_rows", *zero_rows), ("t", *t)]);
    numbers(line, &[("grid_w", *grid_w), ("first_cell", *first_cell)]);
    line.number("cells", *cells);
}

fn numbers(line: &mut StepLine, sizes: &[(&str, usize)]) {
    for (name, size) in sizes {
        line.number(name, *size);
    }
}

fn attention(line: &mut StepLine, shape: &AttentionShape) {
    let AttentionShape {
        batch,
        heads,
        q_rows,
        kv_rows,
        head_dim,
        products,
        ..
    } = *shape;
    numbers(line, &[("batch", batch), ("heads", heads)]);
    numbers(line, &[("q_rows", q_rows), ("kv_rows", kv_rows)]);
    line.number("head_dim", head_dim);
    if products != DType::F32 {
        line.text("products", products.name());
    }
}

fn convolution(line: &mut StepLine, shape: &ConvShape) {
    line.number("batch", shape.batch);
    line.text("grid", &times(&shape.grid));
    numbers(line, &[("cin", shape.cin), ("cout", shape.cout)]);
    line.text("kernel", &times(&shape.kernel));
}

fn epilogue_text(line: &mut StepLine, epilogue: &Epilogue) {
    match epilogue {
        Epilogue::None => {}
        Epilogue::Gelu => line.text("epilogue", "gelu"),
        Epilogue::GeluTanh => line.text("epilogue", "gelu_tanh"),
        Epilogue::Silu => line.text("epilogue", "silu"),
        Epilogue::Residual { gate: None, .. } => line.text("epilogue", "residual"),
        Epilogue::Residual { gate: Some(_), .. } => line.text("epilogue", "gated_residual"),
    }
}

fn times(sizes: &[usize; 3]) -> String {
    let [a, b, c] = sizes;
    format!("{a}x{b}x{c}")
}

const fn norm_name(norm: &Norm) -> &'static str {
    match norm {
        Norm::None => "none",
        Norm::Layer { .. } => "layer",
        Norm::Rms { .. } => "rms",
    }
}

const fn activation_name(function: Activation) -> &'static str {
    match function {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
    }
}

const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::First => "first",
        Stage::Next => "next",
    }
}

const fn kind_name(kind: PositionKind) -> &'static str {
    match kind {
        PositionKind::SinCos => "sin_cos",
        PositionKind::Rotary { .. } => "rotary",
    }
}

const fn axis_name(axis: GridAxis) -> &'static str {
    match axis {
        GridAxis::T => "t",
        GridAxis::H => "h",
        GridAxis::W => "w",
    }
}

const fn time_name(time: UpsampleTime) -> &'static str {
    match time {
        UpsampleTime::Keep => "keep",
        UpsampleTime::Double => "double",
    }
}
