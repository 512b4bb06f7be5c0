//! Elementwise functions.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::values;

#[test]
fn activations_match_those_of_the_cpu() {
    type Reference = fn(cpu::Input<'_>, &mut [f32]) -> Result<(), terrace_kernels::KernelError>;
    let functions: [(Function, Reference); 3] = [
        (Function::Silu, cpu::silu),
        (Function::Gelu, cpu::gelu),
        (Function::GeluTanh, cpu::gelu_tanh),
    ];
    for element in FLOATS {
        for (len, skew) in [(1, 0), (7, 0), (4096, 0), (4096, 3), (70_001, 1)] {
            let x: Vec<f32> = values(len, 1).iter().map(|v| v * 30.0).collect();
            for (function, reference) in functions {
                let mut arena = Arena::new(skew);
                let (from, to) = (arena.put(element, &x), arena.poison(element, len));
                let on = arena.upload();
                let (x_at, y) = (on.at(from), on.at(to));
                let call = Activate {
                    function,
                    x: x_at.clone(),
                    y,
                };
                let found = on.run(call.calls(on.device()), to);
                let mut expected = vec![0.0; len];
                reference(cpu::Input::Apart(&rounded(element, &x)), &mut expected).unwrap();
                close(element, &found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn an_activation_may_be_in_place() {
    let x = values(1000, 2);
    for skew in [0, 2] {
        let mut arena = Arena::new(skew);
        let region = arena.put(Element::F32, &x);
        let on = arena.upload();
        let call = Activate {
            function: Function::Silu,
            x: on.at(region),
            y: on.at(region),
        };
        let found = on.run(call.calls(on.device()), region);
        let mut expected = vec![0.0; x.len()];
        cpu::silu(cpu::Input::Apart(&x), &mut expected).unwrap();
        close(Element::F32, &found, &expected, 2e-6);
    }
}

#[test]
fn gated_gelu_matches_that_of_the_cpu() {
    for element in FLOATS {
        for (rows, width, skew) in [(1, 1, 0), (5, 12, 0), (3, 7, 1), (40, 128, 0), (40, 128, 2)] {
            let x = values(rows * 2 * width, 3);
            let mut arena = Arena::new(skew);
            let (from, to) = (arena.put(element, &x), arena.poison(element, rows * width));
            let on = arena.upload();
            let (at, y) = (on.at(from), on.at(to));
            let call = GatedGelu {
                rows,
                width,
                x: at,
                y,
            };
            let found = on.run(call.calls(on.device()), to);
            let mut expected = vec![0.0; rows * width];
            let (x, y) = (&rounded(element, &x)[..], &mut expected[..]);
            cpu::GatedGelu { rows, width, x, y }.run().unwrap();
            close(element, &found, &expected, 2e-6);
        }
    }
}
