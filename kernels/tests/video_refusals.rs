//! Video kernels and position tables refuse what does not fit; shapes without elements run.

#![allow(clippy::unwrap_used)]

#[path = "common/refusal.rs"]
mod refusal;

use refusal::{argument, refuses, zeros};
use terrace_kernels::cpu::*;

#[test]
fn position_table() {
    let axis = Axis {
        axis: GridAxis::W,
        dim: 4,
        start: 0.0,
        step: 1.0,
    };
    let run = |kind, dim, grid_w, cells: (usize, usize), t, zero_rows, out: &mut [f32]| {
        let columns = &[Axis { dim, ..axis }, axis][..];
        let cells = cells.0..cells.1;
        PositionTable {
            kind,
            columns,
            t,
            grid_w,
            cells,
            zero_rows,
            out,
        }
        .run()
    };
    let (plain, theta) = (PositionKind::SinCos, PositionKind::Rotary { theta: -1.0 });
    refuses(&[("out", 56)], |_, out| run(plain, 4, 5, (3, 6), 2, 1, out));
    let mut out = [0.0; 56];
    argument(run(plain, 3, 5, (3, 6), 2, 1, &mut out), "columns.dim");
    argument(run(plain, 4, 0, (3, 6), 2, 1, &mut out), "grid_w");
    argument(run(plain, 4, 5, (6, 3), 2, 1, &mut out), "cells");
    argument(run(theta, 4, 5, (3, 6), 2, 1, &mut out), "theta");
    argument(
        run(plain, 4, 5, (0, usize::MAX), 2, 1, &mut out),
        "t, cells",
    );
    argument(
        run(plain, 4, 5, (3, 6), 2, usize::MAX, &mut out),
        "zero_rows",
    );
    // A grid and cells far away cost no more than the rows that are asked for.
    run(
        plain,
        4,
        usize::MAX,
        (usize::MAX - 3, usize::MAX),
        2,
        1,
        &mut out,
    )
    .unwrap();
}

#[test]
fn group_norm() {
    let run = |n: &[usize], y: &mut [f32], groups, latent: [usize; 3]| {
        let [frames, height, width] = latent;
        GroupNorm {
            batch: 2,
            frames: 3,
            height: 2,
            width: 2,
            channels: 4,
            groups,
            eps: 1e-6,
            weight: zeros(n[1]),
            bias: zeros(n[2]),
            spatial: Some(Spatial {
                yb: zeros(n[3]),
                frames,
                height,
                width,
            }),
            activation: GroupActivation::Silu,
            x: Input::Apart(zeros(n[0])),
            y,
        }
        .run()
    };
    let sizes = [
        ("x", 96),
        ("weight", 4),
        ("bias", 4),
        ("spatial.yb", 32),
        ("y", 96),
    ];
    refuses(&sizes, |n, y| run(n, y, 2, [2, 1, 1]));
    let mut y = [0.0; 96];
    argument(run(&[96, 4, 4, 32], &mut y, 3, [2, 1, 1]), "groups");
    argument(run(&[96, 4, 4, 32], &mut y, 0, [2, 1, 1]), "groups");
    argument(run(&[96, 4, 4, 16], &mut y, 2, [1, 1, 1]), "spatial");
    argument(run(&[96, 4, 4, 0], &mut y, 2, [2, 0, 1]), "spatial");
}

#[test]
fn upsample() {
    refuses(&[("x", 48), ("y", 320)], |n, y| {
        let (batch, frames, height, width, channels) = (1, 3, 2, 2, 4);
        let (time, x) = (TimeMode::Double, zeros(n[0]));
        Upsample {
            batch,
            frames,
            height,
            width,
            channels,
            time,
            x,
            y,
        }
        .run()
    });
}

#[test]
fn conv_cache() {
    refuses(&[("x", 24), ("cache", 16), ("y", 16)], |n, y| {
        let (batch, frames, frame, keep) = (2, 3, 4, 2);
        ConvCache {
            batch,
            frames,
            frame,
            keep,
            cache: Some(zeros(n[1])),
            x: zeros(n[0]),
            y,
        }
        .run()
    });
    let mut y = [0.0; 8];
    let (batch, frames, frame, keep, x) = (1, 0, 4, 2, zeros(0));
    argument(
        ConvCache {
            batch,
            frames,
            frame,
            keep,
            cache: None,
            x,
            y: &mut y,
        }
        .run(),
        "frames",
    );
}

#[test]
fn join() {
    refuses(
        &[("text", 16), ("video", 24), ("positions", 20), ("y", 40)],
        |n, y| {
            let (batch, text_rows, video_rows, width) = (2, 2, 3, 4);
            let (text, video, positions) = (zeros(n[0]), zeros(n[1]), Some(zeros(n[2])));
            Join {
                batch,
                text_rows,
                video_rows,
                width,
                text,
                video,
                positions,
                y,
            }
            .run()
        },
    );
}

/// Shapes without elements are legal and touch nothing: a rank may have no text rows.
#[test]
fn rows_without_elements_run() {
    let mut none: [f32; 0] = [];
    let segments = &[ModSegment {
        rows: 0,
        shift: 0,
        scale: 0,
    }][..];
    let norm = Norm::Rms {
        eps: 1e-6,
        weight: None,
    };
    for (batch, width) in [(0, 4), (2, 4), (usize::MAX, 0)] {
        NormModulate {
            batch,
            width,
            segments,
            norm,
            mods: None,
            x: Input::Apart(&[]),
            y: &mut none,
        }
        .run()
        .unwrap();
    }
    let (q, k, table) = (None, None, None);
    for (rows, heads, dim) in [(0, 2, 4), (3, 0, 4), (3, 2, 0)] {
        let (batch, text_rows, parts) = (2, 0, 3);
        QkNormRope {
            batch,
            rows,
            text_rows,
            parts,
            heads,
            dim,
            q,
            k,
            table,
            qkv: &mut none,
        }
        .run()
        .unwrap();
    }
}

#[test]
fn joints_without_text_run() {
    let (text, video) = (&[][..], zeros(6));
    let mut y = [1.0; 6];
    let (batch, text_rows, video_rows, width, positions) = (1, 0, 2, 3, None);
    Join {
        batch,
        text_rows,
        video_rows,
        width,
        text,
        video,
        positions,
        y: &mut y,
    }
    .run()
    .unwrap();
    assert_eq!(y, [0.0; 6]);
}

#[test]
fn videos_without_frames_run() {
    let mut none: [f32; 0] = [];
    add(Input::Apart(&[]), Input::Apart(&[]), &mut none).unwrap();
    for channels in [0, 4] {
        GroupNorm {
            batch: 1,
            frames: 0,
            height: 2,
            width: 2,
            channels,
            groups: 2,
            eps: 1e-6,
            weight: zeros(channels),
            bias: zeros(channels),
            spatial: None,
            activation: GroupActivation::Identity,
            x: Input::Apart(&[]),
            y: &mut none,
        }
        .run()
        .unwrap();
    }
}
