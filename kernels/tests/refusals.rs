//! Row-wise and elementwise kernels refuse what does not fit, name it, and write nothing.

#![allow(clippy::unwrap_used)]

#[path = "common/refusal.rs"]
mod refusal;

use refusal::{argument, refuses, zeros};
use terrace_kernels::KernelError;
use terrace_kernels::cpu::*;

/// A segment whose shift and scale lie one after the other.
const SEGMENT: ModSegment = ModSegment {
    rows: 2,
    shift: 0,
    scale: 4,
};

#[test]
fn norm_modulate() {
    let segments = [SEGMENT];
    let run = |n: &[usize], y: &mut [f32]| {
        let norm = Norm::Layer {
            eps: 1e-5,
            weight: Some(zeros(n[1])),
            bias: Some(zeros(n[2])),
        };
        let (batch, width, segments) = (3, 4, &segments[..]);
        NormModulate {
            batch,
            width,
            segments,
            norm,
            mods: None,
            x: Input::Apart(zeros(n[0])),
            y,
        }
        .run()
    };
    refuses(
        &[("x", 24), ("norm.weight", 4), ("norm.bias", 4), ("y", 24)],
        run,
    );
}

#[test]
fn modulation_of_norms() {
    let modulated = |data: usize, stride: usize, segment: ModSegment| {
        let mods = Some(Mods {
            data: zeros(data),
            stride,
        });
        let (norm, mut y) = (Norm::None, vec![0.0; 24]);
        let (batch, width, segments) = (3, 4, &[segment][..]);
        NormModulate {
            batch,
            width,
            segments,
            norm,
            mods,
            x: Input::Apart(zeros(24)),
            y: &mut y,
        }
        .run()
    };
    modulated(24, 8, SEGMENT).unwrap();
    assert!(matches!(
        modulated(23, 8, SEGMENT),
        Err(KernelError::Length {
            operand: "mods.data",
            expected: 24,
            found: 23,
            ..
        })
    ));
    argument(modulated(24, usize::MAX, SEGMENT), "mods.stride");
    argument(
        modulated(
            24,
            8,
            ModSegment {
                rows: 2,
                shift: usize::MAX,
                scale: 0,
            },
        ),
        "segments",
    );
    argument(
        modulated(
            24,
            8,
            ModSegment {
                rows: usize::MAX,
                ..SEGMENT
            },
        ),
        "batch, rows, width",
    );
}

#[test]
fn qk_norm_rope() {
    let run = |n: &[usize], qkv: &mut [f32]| {
        let norm = HeadNorm {
            eps: 1e-6,
            weight: Some(zeros(n[1])),
            bias: Some(zeros(n[2])),
        };
        let (q, k, table) = (Some(norm), Some(norm), Some(zeros(n[0])));
        let (batch, rows, text_rows, parts, heads, dim) = (2, 5, 2, 3, 2, 4);
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
            qkv,
        }
        .run()
    };
    refuses(
        &[
            ("table", 24),
            ("norm.weight", 4),
            ("norm.bias", 4),
            ("qkv", 240),
        ],
        run,
    );

    let odd = |text_rows, parts, dim| {
        let (batch, rows, heads, q, k, table) = (1, 2, 1, None, None, Some(zeros(0)));
        let mut qkv = vec![0.0; 2 * parts * dim];
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
            qkv: &mut qkv,
        }
        .run()
    };
    odd(2, 3, 4).unwrap();
    argument(odd(3, 3, 4), "text_rows");
    argument(odd(2, 1, 4), "parts");
    argument(odd(2, 3, 5), "dim");
}

#[test]
fn gates() {
    refuses(&[("residual", 24), ("x", 24), ("y", 24)], |n, y| {
        let mods = Mods {
            data: zeros(12),
            stride: 4,
        };
        let segments = &[GateSegment { rows: 2, gate: 0 }][..];
        let (batch, width, residual, x) = (3, 4, zeros(n[0]), zeros(n[1]));
        GateAdd {
            batch,
            width,
            segments,
            mods,
            residual: Input::Apart(residual),
            x: Input::Apart(x),
            y,
        }
        .run()
    });
}

#[test]
fn activations() {
    refuses(&[("b", 7), ("y", 7)], |n, y| {
        add(Input::Apart(zeros(7)), Input::Apart(zeros(n[0])), y)
    });
    refuses(&[("y", 7)], |_, y| silu(Input::Apart(zeros(7)), y));
    refuses(&[("y", 7)], |_, y| gelu(Input::Apart(zeros(7)), y));
    refuses(&[("y", 7)], |_, y| gelu_tanh(Input::Apart(zeros(7)), y));
    refuses(&[("x", 24), ("y", 12)], |n, y| {
        GatedGelu {
            rows: 3,
            width: 4,
            x: zeros(n[0]),
            y,
        }
        .run()
    });
    let mut y = [0.0; 4];
    let huge = GatedGelu {
        rows: usize::MAX,
        width: 2,
        x: zeros(0),
        y: &mut y,
    }
    .run();
    argument(huge, "rows, 2, width");
}

#[test]
fn sampler() {
    refuses(
        &[("pred_uncond", 7), ("pred_text", 7), ("x0", 7)],
        |n, x0| {
            let (pred_uncond, pred_text, latents) = (zeros(n[0]), Some(zeros(n[1])), zeros(7));
            Denoise {
                pred_uncond,
                pred_text,
                guidance: 1.0,
                latents,
                c0: 1.0,
                c1: 1.0,
                x0,
            }
            .run()
        },
    );
    refuses(
        &[("x0", 7), ("x0_old", 7), ("noise", 7), ("y", 7)],
        |n, y| {
            let (x0, x0_old, noise) = (zeros(n[0]), Some(zeros(n[1])), Some(zeros(n[2])));
            Advance {
                latents: zeros(7),
                x0,
                x0_old,
                noise,
                c2: 1.0,
                c3: 1.0,
                c4: 1.0,
                c5: 1.0,
                y,
            }
            .run()
        },
    );
}

#[test]
fn token_embedding() {
    let ids = [0, 2, 1];
    refuses(&[("table", 12), ("y", 12)], |n, y| {
        TokenEmbedding {
            vocabulary: 3,
            width: 4,
            ids: &ids,
            table: zeros(n[0]),
            y,
        }
        .run()
    });
    let mut y = [0.0; 12];
    let (vocabulary, width, table) = (3, 4, zeros(12));
    let bad = TokenEmbedding {
        vocabulary,
        width,
        ids: &[0, 3, 1],
        table,
        y: &mut y,
    }
    .run();
    assert_eq!(
        bad.unwrap_err().to_string(),
        "kernel token_embedding: argument `ids` must be below the vocabulary of 3, found 3 at index 1"
    );
}

#[test]
fn relative_bias() {
    let bias = |buckets, max_distance, table, y: &mut [f32]| {
        let (heads, queries, keys) = (2, 3, 4);
        RelativeBias {
            heads,
            queries,
            keys,
            buckets,
            max_distance,
            table,
            y,
        }
        .run()
    };
    refuses(&[("table", 64), ("y", 24)], |n, y| {
        bias(32, 128, zeros(n[0]), y)
    });
    let mut y = [0.0; 24];
    argument(bias(3, 128, zeros(6), &mut y), "buckets");
    argument(bias(32, 8, zeros(64), &mut y), "max_distance");
}

#[test]
fn timestep_embedding() {
    let mut y = [0.0; 24];
    let time = |dim, downscale_freq_shift, max_period, y: &mut [f32]| {
        let (order, timesteps) = (SinCosOrder::SinCos, zeros(3));
        TimestepEmbedding {
            dim,
            order,
            downscale_freq_shift,
            max_period,
            timesteps,
            y,
        }
        .run()
    };
    refuses(&[("y", 24)], |_, y| time(8, 0.0, 1e4, y));
    argument(time(8, 4.0, 1e4, &mut y), "downscale_freq_shift");
    argument(time(8, f32::NAN, 1e4, &mut y), "downscale_freq_shift");
    argument(time(8, 0.0, 0.0, &mut y), "max_period");
}
