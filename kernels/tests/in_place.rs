//! Kernels whose input is their result's own memory give the bits that they give with one apart, in pools
//! of 1, 2 and 3 threads.

#![allow(clippy::unwrap_used)]

mod common;

use common::{bits, same_in_all_pools, values};
use terrace_kernels::KernelError;
use terrace_kernels::cpu::*;

/// Asserts that `run` gives the same from `x` apart and from a result that holds `x`.
fn same_in_place(x: &[f32], run: impl Fn(Input<'_>, &mut [f32]) -> Result<(), KernelError> + Sync) {
    let apart = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; x.len()];
        run(Input::Apart(x), &mut y).unwrap();
        bits(&y)
    });
    let in_place = same_in_all_pools(|| {
        let mut y = x.to_vec();
        run(Input::InPlace, &mut y).unwrap();
        bits(&y)
    });
    assert!(apart == in_place);
    assert!(apart != bits(x));
}

#[test]
fn activations_and_sums() {
    let (x, other) = (values(70_001, 1), values(70_001, 2));
    same_in_place(&x, silu);
    same_in_place(&x, gelu);
    same_in_place(&x, gelu_tanh);
    same_in_place(&x, |x, y| add(x, Input::Apart(&other), y));
    same_in_place(&x, |x, y| add(Input::Apart(&other), x, y));
    same_in_place(&x, |x, y| add(x, x, y));
}

#[test]
fn gates() {
    let (batch, width) = (2, 131);
    let segments = [(90, 7), (110, 300)].map(|(rows, gate)| GateSegment { rows, gate });
    let n = batch * 200 * width;
    let (x, other, data) = (values(n, 1), values(n, 2), values(batch * 500, 3));
    let gated = |residual: Input<'_>, x: Input<'_>, y: &mut [f32]| {
        GateAdd {
            batch,
            width,
            segments: &segments,
            mods: Mods {
                data: &data,
                stride: 500,
            },
            residual,
            x,
            y,
        }
        .run()
    };
    same_in_place(&x, |x, y| gated(x, Input::Apart(&other), y));
    same_in_place(&x, |x, y| gated(Input::Apart(&other), x, y));
    same_in_place(&x, |x, y| gated(x, x, y));
}

#[test]
fn norms_of_rows() {
    let (rows, width) = (300, 77);
    let (x, weight, bias) = (
        values(rows * width, 1),
        values(width, 2),
        values(2 * width, 3),
    );
    let segments = [ModSegment {
        rows,
        shift: 0,
        scale: width,
    }];
    let (weight, mods) = (
        Some(&weight[..]),
        Mods {
            data: &bias,
            stride: 0,
        },
    );
    let layer = Norm::Layer {
        eps: 1e-5,
        weight,
        bias: weight,
    };
    for norm in [Norm::None, layer, Norm::Rms { eps: 1e-5, weight }] {
        same_in_place(&x, |x, y| {
            NormModulate {
                batch: 1,
                width,
                segments: &segments,
                norm,
                mods: Some(mods),
                x,
                y,
            }
            .run()
        });
    }
}

#[test]
fn group_norms() {
    let (frames, height, width, channels) = (3, 20, 31, 12);
    let x = values(2 * frames * height * width * channels, 1);
    let (weight, bias, yb) = (
        values(channels, 2),
        values(channels, 3),
        values(2 * 2 * 24, 4),
    );
    for modulated in [false, true] {
        let spatial = modulated.then_some(Spatial {
            yb: &yb,
            frames: 2,
            height: 1,
            width: 1,
        });
        same_in_place(&x, |x, y| {
            GroupNorm {
                batch: 2,
                frames,
                height,
                width,
                channels,
                groups: 4,
                eps: 1e-6,
                weight: &weight,
                bias: &bias,
                spatial,
                activation: GroupActivation::Silu,
                x,
                y,
            }
            .run()
        });
    }
}
