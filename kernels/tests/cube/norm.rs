//! Norms of rows with scale and shift.

use terrace_kernels::cube::*;
use terrace_kernels::{ModSegment, cpu};

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::{bits, values};

const ROWS: [usize; 3] = [3, 0, 5];

/// Rows of both kinds, each with its own place in vectors of `7 * width` elements.
fn segments(width: usize) -> Vec<ModSegment> {
    let places = [(0, 1), (2, 3), (4, 6)];
    std::iter::zip(ROWS, places)
        .map(|(rows, (shift, scale))| ModSegment {
            rows,
            shift: shift * width,
            scale: scale * width,
        })
        .collect()
}

#[test]
fn norm_modulate_matches_that_of_the_cpu() {
    let batch = 2;
    for element in FLOATS {
        for (width, skew) in [(7, 0), (64, 0), (1500, 1)] {
            let segments = segments(width);
            let all = batch * ROWS.iter().sum::<usize>() * width;
            let x: Vec<f32> = values(all, 1).iter().map(|v| v * 3.0 + 1.0).collect();
            let (w, b, m) = (
                values(width, 2),
                values(width, 3),
                values(batch * 7 * width, 4),
            );
            let (x_cpu, m_cpu) = (rounded(element, &x), rounded(element, &m));
            for case in 0..8 {
                let (modulated, kind) = (case % 2 == 1, case / 2);
                let mut arena = Arena::new(skew);
                let from = arena.put(element, &x);
                let (w_at, b_at) = (arena.put(Element::F32, &w), arena.put(Element::F32, &b));
                let mods = arena.put(element, &m);
                let to = arena.poison(element, all);
                let on = arena.upload();
                let (norm, reference) = match kind {
                    0 => (Norm::None, cpu::Norm::None),
                    1 => layer(1e-5, None, None),
                    2 => layer(1e-6, Some((on.at(w_at), &w)), Some((on.at(b_at), &b))),
                    _ => rms(1e-6, on.at(w_at), &w),
                };
                let call = NormModulate {
                    batch,
                    width,
                    segments: &segments,
                    norm,
                    mods: modulated.then(|| Mods {
                        data: on.at(mods),
                        stride: 7 * width,
                    }),
                    x: on.at(from),
                    y: on.at(to),
                };
                let found = on.run(call.calls(on.device()), to);
                let mut expected = vec![0.0; all];
                cpu::NormModulate {
                    batch,
                    width,
                    segments: &segments,
                    norm: reference,
                    mods: modulated.then_some(cpu::Mods {
                        data: &m_cpu,
                        stride: 7 * width,
                    }),
                    x: cpu::Input::Apart(&x_cpu),
                    y: &mut expected,
                }
                .run()
                .unwrap();
                close(element, &found, &expected, 1e-5);
            }
        }
    }
}

fn layer<'a, B>(
    eps: f32,
    weight: Option<(Operand<B>, &'a Vec<f32>)>,
    bias: Option<(Operand<B>, &'a Vec<f32>)>,
) -> (Norm<B>, cpu::Norm<'a>) {
    let (weight, weight_cpu) = weight.unzip();
    let (bias, bias_cpu) = bias.unzip();
    (
        Norm::Layer { eps, weight, bias },
        cpu::Norm::Layer {
            eps,
            weight: weight_cpu.map(|v| &v[..]),
            bias: bias_cpu.map(|v| &v[..]),
        },
    )
}

fn rms<B>(eps: f32, weight: Operand<B>, values: &[f32]) -> (Norm<B>, cpu::Norm<'_>) {
    let (weight, values) = (Some(weight), Some(values));
    (
        Norm::Rms { eps, weight },
        cpu::Norm::Rms {
            eps,
            weight: values,
        },
    )
}

/// A row has the same bits alone, among others, in place and wherever its operands begin.
#[test]
fn norm_of_a_row_depends_on_that_row_alone() {
    let (rows, width) = (40, 132);
    let x = values(rows * width, 5);
    let run = |x: &[f32], skew, in_place: bool| {
        let mut arena = Arena::new(skew);
        let from = arena.put(Element::F32, x);
        let to = if in_place {
            from
        } else {
            arena.poison(Element::F32, x.len())
        };
        let on = arena.upload();
        let segment = ModSegment {
            rows: x.len() / width,
            shift: 0,
            scale: 0,
        };
        let call = NormModulate {
            batch: 1,
            width,
            segments: &[segment],
            norm: layer(1e-5, None, None).0,
            mods: None,
            x: on.at(from),
            y: on.at(to),
        };
        bits(&on.run(call.calls(on.device()), to))
    };
    let all = run(&x, 0, false);
    assert_eq!(run(&x, 0, true), all);
    assert_eq!(run(&x, 1, false), all);
    for row in [0, 17, 39] {
        let range = row * width..(row + 1) * width;
        assert_eq!(run(&x[range.clone()], 0, false), all[range]);
    }
}
