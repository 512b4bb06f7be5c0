//! Matrix products and their epilogues.

use terrace_kernels::cube::*;
use terrace_kernels::{GateSegment, cpu};

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::{bits, values};

/// The product on the CPU, of the values that the device sees.
fn product(n: usize, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let k = weight.len() / n;
    let rows = x.len() / k;
    let mut y = vec![0.0; rows * n];
    cpu::Linear {
        rows,
        x,
        weight: &cpu::PackedLinear::pack(n, k, weight).unwrap(),
        bias,
        epilogue: cpu::LinearEpilogue::None,
        y: &mut y,
    }
    .run()
    .unwrap();
    y
}

#[test]
fn products_of_many_shapes_match_those_of_the_cpu() {
    let types = FLOATS.map(|e| FLOATS.map(|w| (e, w)));
    let shapes = [
        (1, 1, 1, 0),
        (3, 5, 7, 0),
        (33, 70, 40, 0),
        (100, 64, 129, 0),
        (65, 132, 64, 0),
        (40, 68, 68, 1),
        (2, 200, 300, 2),
    ];
    for (element, weight) in types.into_iter().flatten() {
        for (case, (rows, n, k, skew)) in shapes.into_iter().enumerate() {
            let (x, w, b) = (values(rows * k, 1), values(n * k, 2), values(n, 3));
            let mut arena = Arena::new(skew);
            let (x_at, w_at) = (arena.put(element, &x), arena.put(weight, &w));
            let b_at = arena.put(Element::F32, &b);
            let to = arena.poison(element, rows * n);
            let on = arena.upload();
            let bias = (case % 2 == 1).then_some(&b[..]);
            let call = Linear {
                rows,
                n,
                k,
                x: on.at(x_at),
                weight: on.at(w_at),
                bias: bias.map(|_| on.at(b_at)),
                epilogue: LinearEpilogue::Function(Function::Identity),
                y: on.at(to),
            };
            let found = on.run(call.calls(on.device()), to);
            let expected = product(n, &rounded(element, &x), &rounded(weight, &w), bias);
            close(element, &found, &expected, 2e-5);
        }
    }
}

#[test]
fn functions_are_applied_to_the_sums() {
    type Reference = fn(cpu::Input<'_>, &mut [f32]) -> Result<(), terrace_kernels::KernelError>;
    let functions: [(Function, Reference); 3] = [
        (Function::Silu, cpu::silu),
        (Function::Gelu, cpu::gelu),
        (Function::GeluTanh, cpu::gelu_tanh),
    ];
    let (rows, n, k) = (37, 50, 40);
    let (x, w) = (values(rows * k, 1), values(n * k, 2));
    for element in FLOATS {
        let sums = product(n, &rounded(element, &x), &rounded(element, &w), None);
        for (function, reference) in functions {
            let mut arena = Arena::new(0);
            let (x_at, w_at) = (arena.put(element, &x), arena.put(element, &w));
            let to = arena.poison(element, rows * n);
            let on = arena.upload();
            let call = Linear {
                rows,
                n,
                k,
                x: on.at(x_at),
                weight: on.at(w_at),
                bias: None,
                epilogue: LinearEpilogue::Function(function),
                y: on.at(to),
            };
            let found = on.run(call.calls(on.device()), to);
            let mut expected = vec![0.0; rows * n];
            reference(cpu::Input::Apart(&sums), &mut expected).unwrap();
            close(element, &found, &expected, 1e-5);
        }
    }
}

/// The sum on the CPU, of three batch items.
fn sum(
    width: usize,
    segments: &[GateSegment],
    mods: Option<cpu::Mods<'_>>,
    residual: &[f32],
    x: &[f32],
) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let (residual, x) = (cpu::Input::Apart(residual), cpu::Input::Apart(x));
    let Some(mods) = mods else {
        cpu::add(residual, x, &mut y).unwrap();
        return y;
    };
    cpu::GateAdd {
        batch: 3,
        width,
        segments,
        mods,
        residual,
        x,
        y: &mut y,
    }
    .run()
    .unwrap();
    y
}

#[test]
fn residuals_and_gates_match_those_of_the_cpu() {
    let (batch, n, k) = (3, 68, 36);
    let segments = [(2, 40), (0, 0), (5, 4)].map(|(rows, gate)| GateSegment { rows, gate });
    let (rows, stride) = (batch * 7, 120);
    let (x, w, b) = (values(rows * k, 1), values(n * k, 2), values(n, 3));
    let (r, m) = (values(rows * n, 4), values(batch * stride, 5));
    for element in FLOATS {
        let sums = product(n, &rounded(element, &x), &rounded(element, &w), Some(&b));
        let residual = rounded(element, &r);
        for case in 0..8 {
            let (gated, in_place, skew) = (case % 2 == 1, case / 2 % 2 == 1, case / 4);
            let data = rounded(element, &m);
            let mods = gated.then_some(cpu::Mods {
                data: &data,
                stride,
            });
            let expected = sum(n, &segments, mods, &residual, &sums);
            let mut arena = Arena::new(skew);
            let [x_at, w_at, r_at, m_at] = [&x, &w, &r, &m].map(|v| arena.put(element, v));
            let b_at = arena.put(Element::F32, &b);
            let to = if in_place {
                r_at
            } else {
                arena.poison(element, rows * n)
            };
            let on = arena.upload();
            let gate = LinearGate {
                mods: Mods {
                    data: on.at(m_at),
                    stride,
                },
                batch,
                segments: &segments,
            };
            let call = Linear {
                rows,
                n,
                k,
                x: on.at(x_at),
                weight: on.at(w_at),
                bias: Some(on.at(b_at)),
                epilogue: LinearEpilogue::Residual {
                    residual: on.at(r_at),
                    gate: gated.then_some(gate),
                },
                y: on.at(to),
            };
            let found = on.run(call.calls(on.device()), to);
            close(element, &found, &expected, 1e-5);
        }
    }
}

/// A row has the same bits alone, in a low tile, in a high one, and wherever its operands begin.
#[test]
fn a_row_of_a_product_depends_on_that_row_alone() {
    let (rows, n, k) = (101, 72, 100);
    let (x, w) = (values(rows * k, 1), values(n * k, 2));
    let run = |x: &[f32], skew| {
        let rows = x.len() / k;
        let mut arena = Arena::new(skew);
        let (x_at, w_at) = (arena.put(Element::F32, x), arena.put(Element::F32, &w));
        let to = arena.poison(Element::F32, rows * n);
        let on = arena.upload();
        let call = Linear {
            rows,
            n,
            k,
            x: on.at(x_at),
            weight: on.at(w_at),
            bias: None,
            epilogue: LinearEpilogue::Function(Function::GeluTanh),
            y: on.at(to),
        };
        bits(&on.run(call.calls(on.device()), to))
    };
    let all = run(&x, 0);
    assert_eq!(run(&x, 1), all);
    for (first, count) in [(0, 1), (17, 3), (60, 40), (100, 1)] {
        let part = run(&x[first * k..(first + count) * k], 0);
        assert_eq!(part, all[first * n..(first + count) * n]);
    }
}
