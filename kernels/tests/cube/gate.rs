//! Residual additions.

use terrace_kernels::cube::*;
use terrace_kernels::{GateSegment, cpu};

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::values;

const BATCH: usize = 2;

fn segments(width: usize) -> [GateSegment; 3] {
    [(3, width), (0, 0), (4, 3 * width)].map(|(rows, gate)| GateSegment { rows, gate })
}

#[test]
fn gates_match_those_of_the_cpu_apart_and_in_place() {
    for element in FLOATS {
        for (width, skew) in [(1, 0), (9, 0), (64, 0), (64, 1)] {
            let (n, stride) = (BATCH * 7 * width, 4 * width);
            let (r, x, m) = (values(n, 1), values(n, 2), values(BATCH * stride, 3));
            let segments = segments(width);
            let mut expected = vec![0.0; n];
            cpu::GateAdd {
                batch: BATCH,
                width,
                segments: &segments,
                mods: cpu::Mods {
                    data: &rounded(element, &m),
                    stride,
                },
                residual: cpu::Input::Apart(&rounded(element, &r)),
                x: cpu::Input::Apart(&rounded(element, &x)),
                y: &mut expected,
            }
            .run()
            .unwrap();
            for case in 0..3 {
                let mut arena = Arena::new(skew);
                let regions = [&r, &x].map(|values| arena.put(element, values));
                let data = arena.put(element, &m);
                let apart = arena.poison(element, n);
                let to = [regions[0], regions[1], apart][case];
                let on = arena.upload();
                let call = GateAdd {
                    batch: BATCH,
                    width,
                    segments: &segments,
                    mods: Mods {
                        data: on.at(data),
                        stride,
                    },
                    residual: on.at(regions[0]),
                    x: on.at(regions[1]),
                    y: on.at(to),
                };
                let found = on.run(call.calls(on.device()), to);
                close(element, &found, &expected, 1e-6);
            }
        }
    }
}

#[test]
fn sums_match_those_of_the_cpu_apart_and_in_place() {
    for element in FLOATS {
        for (n, skew) in [(1, 0), (1001, 0), (1024, 0), (1024, 3)] {
            let (a, b) = (values(n, 4), values(n, 5));
            let mut expected = vec![0.0; n];
            let (left, right) = (rounded(element, &a), rounded(element, &b));
            cpu::add(
                cpu::Input::Apart(&left),
                cpu::Input::Apart(&right),
                &mut expected,
            )
            .unwrap();
            for case in 0..3 {
                let mut arena = Arena::new(skew);
                let regions = [&a, &b].map(|values| arena.put(element, values));
                let apart = arena.poison(element, n);
                let to = [regions[0], regions[1], apart][case];
                let on = arena.upload();
                let call = Add {
                    a: on.at(regions[0]),
                    b: on.at(regions[1]),
                    y: on.at(to),
                };
                let found = on.run(call.calls(on.device()), to);
                close(element, &found, &expected, 0.0);
            }
        }
    }
}

#[test]
fn casts_round_to_nearest() {
    for (from, to, skew) in [(0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 3)] {
        let (from, to) = (FLOATS[from], FLOATS[to]);
        let x: Vec<f32> = values(4000, 6).iter().map(|v| v * 100.0).collect();
        let mut arena = Arena::new(skew);
        let (source, target) = (arena.put(from, &x), arena.poison(to, x.len()));
        let on = arena.upload();
        let call = Cast {
            x: on.at(source),
            y: on.at(target),
        };
        let found = on.run(call.calls(on.device()), target);
        assert_eq!(found, rounded(Element::F16, &x));
    }
}
