//! Kernels against small values that torch, diffusers and transformers computed
//! (`data/generate.py` writes `data/reference.json`).

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::close;
use serde_json::Value;
use terrace_kernels::cpu::*;

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("data/reference.json")).unwrap();
    all[name].clone()
}

fn cases(name: &str) -> Vec<Value> {
    reference(name).as_array().unwrap().clone()
}

fn f64s(v: &Value) -> Vec<f64> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

fn f32s(v: &Value) -> Vec<f32> {
    f64s(v).into_iter().map(|v| v as f32).collect()
}

fn sizes(v: &Value) -> Vec<usize> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as usize)
        .collect()
}

fn size(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}

#[test]
fn upsample_doubles_as_diffusers() {
    for case in cases("upsample") {
        let shape = sizes(&case["shape"]);
        let time = if case["double"] == true {
            TimeMode::Double
        } else {
            TimeMode::Keep
        };
        assert_eq!(time.frames(shape[1]), Some(size(&case["frames"])));
        let expected = f64s(&case["y"]);
        let mut y = vec![f32::NAN; expected.len()];
        Upsample {
            batch: shape[0],
            frames: shape[1],
            height: shape[2],
            width: shape[3],
            channels: shape[4],
            time,
            x: &f32s(&case["x"]),
            y: &mut y,
        }
        .run()
        .unwrap();
        close(&y, &expected, 0.0);
    }
}

#[test]
fn spatial_norm_modulates_as_diffusers() {
    for case in cases("spatial") {
        let (shape, latent) = (sizes(&case["shape"]), sizes(&case["latent"]));
        for (activation, name) in [
            (GroupActivation::Identity, "y"),
            (GroupActivation::Silu, "silu"),
        ] {
            let expected = f64s(&case[name]);
            let mut y = vec![f32::NAN; expected.len()];
            GroupNorm {
                batch: shape[0],
                frames: shape[1],
                height: shape[2],
                width: shape[3],
                channels: shape[4],
                groups: 2,
                eps: 1e-6,
                weight: &f32s(&case["weight"]),
                bias: &f32s(&case["bias"]),
                spatial: Some(Spatial {
                    yb: &f32s(&case["yb"]),
                    frames: latent[0],
                    height: latent[1],
                    width: latent[2],
                }),
                activation,
                x: Input::Apart(&f32s(&case["x"])),
                y: &mut y,
            }
            .run()
            .unwrap();
            close(&y, &expected, 4e-6);
        }
    }
}

/// The offset of the modulation carries the index, the multiplier is 0.
#[test]
fn nearest_indices_equal_torchs() {
    for case in cases("nearest") {
        let (input, expected) = (size(&case["size"]), f64s(&case["index"]));
        let width = expected.len();
        let yb: Vec<f32> = (0..input).flat_map(|i| [0.0, i as f32]).collect();
        let mut y = vec![f32::NAN; width];
        GroupNorm {
            batch: 1,
            frames: 1,
            height: 1,
            width,
            channels: 1,
            groups: 1,
            eps: 1.0,
            weight: &[1.0],
            bias: &[0.0],
            spatial: Some(Spatial {
                yb: &yb,
                frames: 1,
                height: 1,
                width: input,
            }),
            activation: GroupActivation::Identity,
            x: Input::Apart(&vec![0.5; width]),
            y: &mut y,
        }
        .run()
        .unwrap();
        close(&y, &expected, 0.0);
    }
}

#[test]
fn conv_cache_keeps_the_last_frames() {
    for case in cases("conv_cache") {
        let expected = f64s(&case["y"]);
        let mut y = vec![f32::NAN; expected.len()];
        let cache = (!case["cache"].is_null()).then(|| f32s(&case["cache"]));
        ConvCache {
            batch: size(&case["batch"]),
            frames: size(&case["frames"]),
            frame: size(&case["frame"]),
            keep: size(&case["keep"]),
            cache: cache.as_deref(),
            x: &f32s(&case["x"]),
            y: &mut y,
        }
        .run()
        .unwrap();
        close(&y, &expected, 0.0);
    }
}

/// Column blocks in the order of `axes`, with the dimensions of CogVideoX.
fn columns(dim: usize, axes: [GridAxis; 3], line: impl Fn(GridAxis) -> (f64, f64)) -> Vec<Axis> {
    let column = |axis| {
        let dim = if axis == GridAxis::T {
            dim / 4
        } else {
            dim / 8 * 3
        };
        let (start, step) = line(axis);
        Axis {
            axis,
            dim,
            start,
            step,
        }
    };
    axes.map(column).to_vec()
}

fn table(kind: PositionKind, columns: &[Axis], grid: &[usize], len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    let cells = 0..grid[1] * grid[2];
    let (t, grid_w) = (grid[0], grid[2]);
    PositionTable {
        kind,
        columns,
        t,
        grid_w,
        cells,
        zero_rows: 0,
        out: &mut out,
    }
    .run()
    .unwrap();
    out
}

#[test]
fn sin_cos_table_equals_diffusers() {
    for case in cases("sincos") {
        let (space, time) = (
            case["space"].as_f64().unwrap(),
            case["time"].as_f64().unwrap(),
        );
        let axes = [GridAxis::T, GridAxis::W, GridAxis::H];
        let columns = columns(size(&case["dim"]), axes, |axis| match axis {
            GridAxis::T => (0.0, 1.0 / time),
            GridAxis::H | GridAxis::W => (0.0, 1.0 / space),
        });
        let expected = f64s(&case["table"]);
        let found = table(
            PositionKind::SinCos,
            &columns,
            &sizes(&case["grid"]),
            expected.len(),
        );
        close(&found, &expected, 1e-7);
    }
}

/// `linspace(start, stop * (n - 1) / n, n)` as a start and a step.
fn linspace(start: f64, stop: f64, n: usize) -> (f64, f64) {
    let last = stop * (n - 1) as f64 / n as f64;
    (
        start,
        if n > 1 {
            (last - start) / (n - 1) as f64
        } else {
            0.0
        },
    )
}

#[test]
fn rotary_table_equals_diffusers() {
    for case in cases("rotary") {
        let grid = sizes(&case["grid"]);
        let (from, to) = (f64s(&case["crop"][0]), f64s(&case["crop"][1]));
        let axes = [GridAxis::T, GridAxis::H, GridAxis::W];
        let columns = columns(size(&case["dim"]), axes, |axis| match axis {
            GridAxis::T => (0.0, 1.0),
            GridAxis::H => linspace(from[0], to[0], grid[1]),
            GridAxis::W => linspace(from[1], to[1], grid[2]),
        });
        let expected = f64s(&case["table"]);
        let kind = PositionKind::Rotary { theta: 10_000.0 };
        let found = table(kind, &columns, &grid, expected.len());
        close(&found, &expected, 1e-6);
    }
}

#[test]
fn rotary_table_stays_close_at_the_far_end_of_the_largest_grids() {
    let axes = [GridAxis::T, GridAxis::H, GridAxis::W];
    let columns = columns(64, axes, |_| (0.0, 1.0));
    let kind = PositionKind::Rotary { theta: 10_000.0 };
    for (name, [t, h, w]) in [("slice", [11, 48, 85]), ("linspace", [13, 30, 45])] {
        let expected = f64s(&reference("far")[name]);
        let mut out = vec![f32::NAN; t * expected.len()];
        let cells = h * w - 2..h * w;
        PositionTable {
            kind,
            columns: &columns,
            t,
            grid_w: w,
            cells,
            zero_rows: 0,
            out: &mut out,
        }
        .run()
        .unwrap();
        close(&out[out.len() - expected.len()..], &expected, 1e-6);
    }
}

#[test]
fn timestep_embedding_equals_diffusers() {
    for case in cases("timestep") {
        let flip = case["flip"] == true;
        let expected = f64s(&case["y"]);
        let mut y = vec![f32::NAN; expected.len()];
        TimestepEmbedding {
            dim: size(&case["dim"]),
            order: if flip {
                SinCosOrder::CosSin
            } else {
                SinCosOrder::SinCos
            },
            downscale_freq_shift: case["shift"].as_f64().unwrap() as f32,
            max_period: 10_000.0,
            timesteps: &f32s(&case["t"]),
            y: &mut y,
        }
        .run()
        .unwrap();
        // torch's f32 exponential is now and then one unit off, which moves an angle of 999 by 6e-5.
        let tolerance = if size(&case["dim"]) < 64 {
            1e-6
        } else {
            6.1e-5
        };
        close(&y, &expected, tolerance);
    }
}

/// The table holds the bucket's number, so the bias is the bucket.
#[test]
fn relative_buckets_equal_transformers() {
    for case in cases("buckets") {
        let buckets = size(&case["buckets"]);
        let expected = f64s(&case["bucket"]);
        let n = expected.len() / 2 + 1;
        let table: Vec<f32> = (0..buckets).flat_map(|b| [b as f32, -(b as f32)]).collect();
        let mut y = vec![f32::NAN; 2 * n * n];
        RelativeBias {
            heads: 2,
            queries: n,
            keys: n,
            buckets,
            max_distance: size(&case["max_distance"]),
            table: &table,
            y: &mut y,
        }
        .run()
        .unwrap();
        for query in 0..n {
            let row: Vec<f64> = (0..n).map(|key| expected[key + n - 1 - query]).collect();
            close(&y[query * n..][..n], &row, 0.0);
            let negated: Vec<f64> = row.iter().map(|v| -v).collect();
            close(&y[(n + query) * n..][..n], &negated, 0.0);
        }
    }
}

#[test]
fn qk_norm_and_rotation_equal_diffusers() {
    let case = reference("qk_rope");
    let shape = sizes(&case["shape"]);
    let vector = |part: usize, name: &str| f32s(&case["norms"][part][name]);
    let vectors: Vec<_> = (0..2)
        .map(|part| (vector(part, "weight"), vector(part, "bias")))
        .collect();
    let norm = |part: usize| {
        let (weight, bias) = &vectors[part];
        Some(HeadNorm {
            eps: 1e-6,
            weight: Some(weight),
            bias: Some(bias),
        })
    };
    let mut qkv = f32s(&case["qkv"]);
    QkNormRope {
        batch: shape[0],
        rows: shape[1],
        text_rows: size(&case["text"]),
        parts: shape[2],
        heads: shape[3],
        dim: shape[4],
        q: norm(0),
        k: norm(1),
        table: Some(&f32s(&case["table"])),
        qkv: &mut qkv,
    }
    .run()
    .unwrap();
    close(&qkv, &f64s(&case["out"]), 2e-6);
}
