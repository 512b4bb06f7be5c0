//! Row-wise and elementwise kernels against f64 arithmetic written here, in pools of 1, 2 and 3 threads.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, same_in_all_pools, values};
use terrace_kernels::cpu::*;

/// Widths with and without a rest behind the vector lanes.
const WIDTHS: [usize; 4] = [1, 7, 64, 333];

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

fn layer(x: &[f64], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    x.iter()
        .map(|v| (v - mean) / (variance + eps).sqrt())
        .collect()
}

#[test]
fn norm_modulate_matches_f64() {
    for width in WIDTHS {
        let (batch, rows) = (2, [60, 0, 83]);
        let total: usize = rows.iter().sum();
        let x: Vec<f32> = values(batch * total * width, 1)
            .iter()
            .map(|v| v * 3.0 + 5.0)
            .collect();
        let (weight, bias) = (values(width, 2), values(width, 3));
        let stride = 7 * width;
        let data = values(batch * stride, 4);
        let segments = [(0, 1), (2, 3), (4, 6)].map(|(a, b)| (a * width, b * width));
        let segments: Vec<ModSegment> = std::iter::zip(rows, segments)
            .map(|(rows, (shift, scale))| ModSegment { rows, shift, scale })
            .collect();
        let norms = norms(&weight, &bias);
        for (norm, mods) in norms.iter().flat_map(|n| [(n, true), (n, false)]) {
            let y = same_in_all_pools(|| {
                let mut y = vec![f32::NAN; x.len()];
                let mods = mods.then_some(Mods {
                    data: &data,
                    stride,
                });
                NormModulate {
                    batch,
                    width,
                    segments: &segments,
                    norm: *norm,
                    mods,
                    x: Input::Apart(&x),
                    y: &mut y,
                }
                .run()
                .unwrap();
                y
            });
            let mut expected = Vec::new();
            for (row, x) in x.chunks_exact(width).enumerate() {
                let mut out = naive_norm(&wide(x), norm);
                let segment = if row % total < rows[0] {
                    segments[0]
                } else {
                    segments[2]
                };
                for (i, v) in out.iter_mut().enumerate().filter(|_| mods) {
                    let vector = &data[row / total * stride..];
                    let scale = f64::from(vector[segment.scale + i]);
                    *v = *v * (1.0 + scale) + f64::from(vector[segment.shift + i]);
                }
                expected.extend(out);
            }
            close(&y, &expected, 3e-5);
        }
    }
}

/// Every norm with every choice of weight and bias that occurs.
fn norms<'a>(weight: &'a [f32], bias: &'a [f32]) -> [Norm<'a>; 6] {
    let (weight, bias) = (Some(weight), Some(bias));
    let layer = |weight, bias| Norm::Layer {
        eps: 1e-5,
        weight,
        bias,
    };
    let rms = |weight| Norm::Rms { eps: 1e-6, weight };
    [
        Norm::None,
        layer(None, None),
        layer(weight, bias),
        layer(None, bias),
        rms(weight),
        rms(None),
    ]
}

fn naive_norm(x: &[f64], norm: &Norm<'_>) -> Vec<f64> {
    let at = |v: &Option<&[f32]>, i: usize, absent| v.map_or(absent, |v| f64::from(v[i]));
    match norm {
        Norm::None => x.to_vec(),
        Norm::Layer { eps, weight, bias } => {
            let normal = layer(x, f64::from(*eps)).into_iter().enumerate();
            normal
                .map(|(i, v)| v * at(weight, i, 1.0) + at(bias, i, 0.0))
                .collect()
        }
        Norm::Rms { eps, weight } => {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            let root = (mean + f64::from(*eps)).sqrt();
            x.iter()
                .enumerate()
                .map(|(i, v)| v / root * at(weight, i, 1.0))
                .collect()
        }
    }
}

/// A row of a long sequence has the bits that it has alone.
#[test]
fn norm_of_a_row_does_not_depend_on_the_others() {
    let (rows, width) = (400, 129);
    let x = values(rows * width, 5);
    let norm = Norm::Layer {
        eps: 1e-5,
        weight: None,
        bias: None,
    };
    let run = |x: &[f32]| {
        let segments = [ModSegment {
            rows: x.len() / width,
            shift: 0,
            scale: 0,
        }];
        let mut y = vec![0.0; x.len()];
        NormModulate {
            batch: 1,
            width,
            segments: &segments,
            norm,
            mods: None,
            x: Input::Apart(x),
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    };
    let all = run(&x);
    for row in [0, 1, 126, 127, 399] {
        let range = row * width..(row + 1) * width;
        assert_eq!(bits(&run(&x[range.clone()])), bits(&all[range]));
    }
}

#[test]
fn qk_norm_rope_matches_f64_and_leaves_the_rest() {
    let (batch, rows, text_rows, heads) = (2, 45, 13, 3);
    for (dim, parts) in [(6, 3), (64, 3), (20, 2)] {
        let start = values(batch * rows * parts * heads * dim, 6);
        let table = values((rows - text_rows) * 2 * dim, 7);
        let weight = values(dim, 8);
        let norm = HeadNorm {
            eps: 1e-6,
            weight: Some(&weight),
            bias: None,
        };
        let found = same_in_all_pools(|| {
            let mut qkv = start.clone();
            let (q, k, table) = (Some(norm), None, Some(&table[..]));
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
            .unwrap();
            qkv
        });
        let mut expected = Vec::new();
        for (index, head) in start.chunks_exact(dim).enumerate() {
            let (part, row) = (index / heads % parts, index / (heads * parts) % rows);
            let mut v = wide(head);
            if part == 0 {
                v = layer(&v, 1e-6);
                v.iter_mut()
                    .zip(&weight)
                    .for_each(|(v, &w)| *v *= f64::from(w));
            }
            if part < 2 && row >= text_rows {
                let angles = wide(&table[(row - text_rows) * 2 * dim..][..2 * dim]);
                let turned = |i: usize| {
                    if i.is_multiple_of(2) {
                        -v[i + 1]
                    } else {
                        v[i - 1]
                    }
                };
                v = (0..dim)
                    .map(|i| v[i] * angles[i] + turned(i) * angles[dim + i])
                    .collect();
            }
            expected.extend(v);
        }
        close(&found, &expected, 1e-5);
    }
}

#[test]
fn gates_and_sums_match() {
    let (batch, width, stride) = (2, 333, 700);
    let rows = 90;
    let n = batch * rows * width;
    let (residual, x, data) = (values(n, 9), values(n, 10), values(batch * stride, 11));
    let segments = [
        GateSegment { rows: 40, gate: 5 },
        GateSegment {
            rows: 50,
            gate: 367,
        },
    ];
    let y = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; n];
        let mods = Mods {
            data: &data,
            stride,
        };
        GateAdd {
            batch,
            width,
            segments: &segments,
            mods,
            residual: Input::Apart(&residual),
            x: Input::Apart(&x),
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    });
    let expected = |i: usize| {
        let (row, column) = (i / width, i % width);
        let offset = if row % rows < 40 { 5 } else { 367 };
        let gate = f64::from(data[row / rows * stride + offset + column]);
        f64::from(residual[i]) + gate * f64::from(x[i])
    };
    close(&y, &(0..n).map(expected).collect::<Vec<_>>(), 2e-7);

    let sum = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; n];
        add(Input::Apart(&residual), Input::Apart(&x), &mut y).unwrap();
        y
    });
    assert!((0..n).all(|i| sum[i] == residual[i] + x[i]));
}

#[test]
fn activations_match_f64_over_their_whole_range() {
    let x: Vec<f32> = (-60_000..60_000).map(|i| i as f32 / 500.0).collect();
    let run = |f: fn(Input<'_>, &mut [f32]) -> Result<(), terrace_kernels::KernelError>| {
        same_in_all_pools(|| {
            let mut y = vec![f32::NAN; x.len()];
            f(Input::Apart(&x), &mut y).unwrap();
            y
        })
    };
    let exact = |v: f64| v / (1.0 + (-v).exp());
    let by_error_function = |v: f64| 0.5 * v * libm::erfc(-v * std::f64::consts::FRAC_1_SQRT_2);
    let by_tanh = |v: f64| {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        0.5 * v * (1.0 + (root * (v + 0.044715 * v.powi(3))).tanh())
    };
    let expected = |f: &dyn Fn(f64) -> f64| wide(&x).into_iter().map(f).collect::<Vec<_>>();
    close(&run(silu), &expected(&exact), 4e-7);
    close(&run(gelu), &expected(&by_error_function), 4e-7);
    close(&run(gelu_tanh), &expected(&by_tanh), 4e-7);

    let mut y = [0.0; 5];
    let x = [f32::NAN, f32::INFINITY, 1e30, -1e30, 0.0];
    silu(Input::Apart(&x), &mut y).unwrap();
    assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == 1e30 && y[3].abs() < 1e-6);
    assert_eq!(y[4], 0.0);

    let (rows, width) = (301, 77);
    let x = values(rows * 2 * width, 12);
    let y = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; rows * width];
        GatedGelu {
            rows,
            width,
            x: &x,
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    });
    let expected: Vec<f64> = (0..rows * width)
        .map(|i| {
            let at = i / width * 2 * width + i % width;
            by_tanh(f64::from(x[at])) * f64::from(x[at + width])
        })
        .collect();
    close(&y, &expected, 4e-7);
}

#[test]
fn lookup_and_join_place_rows() {
    let (vocabulary, width) = (11, 33);
    let table = values(vocabulary * width, 13);
    let ids: Vec<u32> = (0..700).map(|i| i * 7 % 11).collect();
    let text = same_in_all_pools(|| {
        let mut y = vec![f32::NAN; ids.len() * width];
        TokenEmbedding {
            vocabulary,
            width,
            ids: &ids,
            table: &table,
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    });
    for (row, &id) in text.chunks_exact(width).zip(&ids) {
        assert_eq!(row, &table[id as usize * width..][..width]);
    }

    let (batch, text_rows, video_rows) = (2, 350, 120);
    let video = values(batch * video_rows * width, 14);
    let rows = text_rows + video_rows;
    let positions = values(rows * width, 15);
    for positions in [None, Some(&positions[..])] {
        let y = same_in_all_pools(|| {
            let mut y = vec![f32::NAN; batch * rows * width];
            let (text, video) = (&text[..], &video[..]);
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
            y
        });
        for (i, &found) in y.iter().enumerate() {
            let (b, row, column) = (i / width / rows, i / width % rows, i % width);
            let value = if row < text_rows {
                text[(b * text_rows + row) * width + column]
            } else {
                video[(b * video_rows + row - text_rows) * width + column]
            };
            let position = positions.map_or(0.0, |table| table[row * width + column]);
            assert_eq!(found, value + position);
        }
    }
}

#[test]
fn sampler_follows_its_formulas() {
    let n = 70_001;
    let [x, u, t, old, noise] = [16, 17, 18, 19, 20].map(|salt| values(n, salt));
    for text in [None, Some(&t[..])] {
        let x0 = same_in_all_pools(|| {
            let mut x0 = vec![f32::NAN; n];
            let (c0, c1, guidance) = (0.75, -1.25, 6.0);
            let (pred_uncond, pred_text, latents) = (&u[..], text, &x[..]);
            Denoise {
                pred_uncond,
                pred_text,
                guidance,
                latents,
                c0,
                c1,
                x0: &mut x0,
            }
            .run()
            .unwrap();
            x0
        });
        for i in 0..n {
            let v = text.map_or(u[i], |t| u[i] + 6.0 * (t[i] - u[i]));
            assert_eq!(x0[i], 0.75 * x[i] + -1.25 * v);
        }
    }
    for (x0_old, fresh) in [
        (None, None),
        (Some(&old[..]), None),
        (Some(&old[..]), Some(&noise[..])),
    ] {
        let y = same_in_all_pools(|| {
            let mut y = vec![f32::NAN; n];
            let [c2, c3, c4, c5] = [0.5, 0.3, -0.2, 0.9];
            let (latents, x0, noise) = (&x[..], &u[..], fresh);
            Advance {
                latents,
                x0,
                x0_old,
                noise,
                c2,
                c3,
                c4,
                c5,
                y: &mut y,
            }
            .run()
            .unwrap();
            y
        });
        for i in 0..n {
            let mut expected = 0.5 * x[i] + 0.3 * u[i];
            expected += x0_old.map_or(0.0, |v| -0.2 * v[i]);
            expected += fresh.map_or(0.0, |v| 0.9 * v[i]);
            assert_eq!(y[i], expected);
        }
    }
}
