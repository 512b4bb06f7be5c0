//! Kernels over channels-last video and position tables of ranks' cells.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, same_in_all_pools, values};
use terrace_kernels::cpu::*;

fn norm(shape: [usize; 5], groups: usize, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let [batch, frames, height, width, channels] = shape;
    let mut y = vec![f32::NAN; x.len()];
    GroupNorm {
        batch,
        frames,
        height,
        width,
        channels,
        groups,
        eps: 1e-6,
        weight,
        bias,
        spatial: None,
        activation: GroupActivation::Identity,
        x: Input::Apart(x),
        y: &mut y,
    }
    .run()
    .unwrap();
    y
}

#[test]
fn plain_group_norm_matches_f64_in_every_pool() {
    for (shape, groups) in [
        ([2, 3, 17, 19, 12], 4),
        ([1, 1, 1, 1, 8], 2),
        ([1, 5, 70, 60, 6], 6),
    ] {
        let [batch, frames, height, width, channels] = shape;
        let pixels = frames * height * width;
        let x: Vec<f32> = values(batch * pixels * channels, 1)
            .iter()
            .map(|v| v + 40.0)
            .collect();
        let (weight, bias) = (values(channels, 2), values(channels, 3));
        let y = same_in_all_pools(|| norm(shape, groups, &x, &weight, &bias));
        let size = channels / groups;
        let mut expected = vec![0.0; x.len()];
        for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
            let at = |i: usize| (b * pixels + i / size) * channels + g * size + i % size;
            let n = pixels * size;
            let mean = (0..n).map(|i| f64::from(x[at(i)])).sum::<f64>() / n as f64;
            let square = |i: usize| (f64::from(x[at(i)]) - mean).powi(2);
            let variance = (0..n).map(square).sum::<f64>() / n as f64;
            for i in 0..n {
                let c = g * size + i % size;
                let normal = (f64::from(x[at(i)]) - mean) / (variance + 1e-6).sqrt();
                expected[at(i)] = normal * f64::from(weight[c]) + f64::from(bias[c]);
            }
        }
        // The mean of 40 is taken off as one f32 product and sum per element.
        close(&y, &expected, 3e-5);
    }
}

/// One batch item has the bits that it has beside another.
#[test]
fn group_norm_of_a_batch_item_stands_alone() {
    let shape = [2, 2, 31, 33, 8];
    let x = values(2 * 2 * 31 * 33 * 8, 4);
    let (weight, bias) = (values(8, 5), values(8, 6));
    let both = norm(shape, 2, &x, &weight, &bias);
    let half = x.len() / 2;
    let second = norm([1, 2, 31, 33, 8], 2, &x[half..], &weight, &bias);
    assert_eq!(bits(&both[half..]), bits(&second));
}

#[test]
fn upsampling_and_caches_do_not_depend_on_the_pool() {
    let (batch, frames, height, width, channels) = (2, 3, 13, 11, 16);
    let x = values(batch * frames * height * width * channels, 7);
    let y = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; x.len() / 3 * 5 * 4];
        let (time, y_out) = (TimeMode::Double, &mut y[..]);
        Upsample {
            batch,
            frames,
            height,
            width,
            channels,
            time,
            x: &x,
            y: y_out,
        }
        .run()
        .unwrap();
        y
    });
    for (i, &found) in y.iter().enumerate() {
        let (c, pixel) = (i % channels, i / channels);
        let (column, line) = (pixel % (2 * width), pixel / (2 * width) % (2 * height));
        let image = pixel / (4 * width * height);
        let (b, frame) = (image / 5, (image % 5).div_ceil(2));
        let from = ((b * frames + frame) * height + line / 2) * width + column / 2;
        assert_eq!(found, x[from * channels + c]);
    }
    let frame = height * width * channels;
    let kept = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; batch * 2 * frame];
        ConvCache {
            batch,
            frames,
            frame,
            keep: 2,
            cache: None,
            x: &x,
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    });
    assert_eq!(kept[..2 * frame], x[frame..3 * frame]);
    assert_eq!(kept[2 * frame..], x[4 * frame..]);
}

/// Every ragged cut of the raster gives the rows that the whole table has.
#[test]
fn position_rows_do_not_depend_on_the_cut() {
    let (t, h, grid_w) = (3, 7, 6);
    let axes = [GridAxis::T, GridAxis::W, GridAxis::H];
    let columns = axes.map(|axis| Axis {
        axis,
        dim: 8,
        start: 0.5,
        step: 1.0 / 1.875,
    });
    for (kind, halves) in [
        (PositionKind::SinCos, 1),
        (PositionKind::Rotary { theta: 500.0 }, 2),
    ] {
        let width = 24 * halves;
        let run = |cells: std::ops::Range<usize>, zero_rows: usize| {
            let mut out = vec![f32::NAN; (zero_rows + t * cells.len()) * width];
            PositionTable {
                kind,
                columns: &columns,
                t,
                grid_w,
                cells,
                zero_rows,
                out: &mut out,
            }
            .run()
            .unwrap();
            out
        };
        let whole = same_in_all_pools(|| run(0..h * grid_w, 0));
        for (start, end) in (0..h * grid_w).flat_map(|s| (s..=h * grid_w).map(move |e| (s, e))) {
            let part = run(start..end, 2);
            assert!(part[..2 * width].iter().all(|&v| v == 0.0));
            for (row, found) in part[2 * width..].chunks_exact(width).enumerate() {
                let (time, cell) = (row / (end - start), start + row % (end - start));
                let at = (time * h * grid_w + cell) * width;
                assert_eq!(bits(found), bits(&whole[at..][..width]));
            }
        }
    }
}
