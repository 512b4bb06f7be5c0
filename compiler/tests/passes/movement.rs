//! Any mesh computes what one rank computes: bit for bit without a ring, to rounding with one.

use crate::machine;
use crate::{mesh, options, provenance};
use std::collections::BTreeMap;
use terrace_compiler::ir::{Dim, Graph, Segment, Type};
use terrace_compiler::ops::{
    Attention, Denoise, Guidance, Input, Op, Output, Packing, Presence, Take,
};
use terrace_compiler::{SliceGranularity, compile};
use terrace_plan::{DType, Mesh};

const TEXT: usize = 7;
const GRID: [(&str, usize); 3] = [("t", 2), ("h", 5), ("w", 3)];
const HEADS: usize = 5;

fn input(
    graph: &mut Graph,
    name: &str,
    dims: Vec<Dim>,
    host: Vec<Dim>,
) -> terrace_compiler::ir::NodeId {
    let input = Input {
        name: name.into(),
        ty: Type::f32(dims),
        host,
    };
    graph.add(Op::Input(input), &[], name).unwrap()
}

fn output(graph: &mut Graph, x: terrace_compiler::ir::NodeId, host: Vec<Dim>) {
    let output = Output {
        name: "y".into(),
        host,
    };
    graph.add(Op::Output(output), &[x], "y").unwrap();
}

fn joint_rows() -> Dim {
    Dim::sum(
        "seq",
        vec![Segment::new(&[("txt", TEXT)]), Segment::new(&GRID)],
    )
}

fn attention() -> Graph {
    let mut graph = Graph::new("attention");
    let batch = Dim::new("b", 2);
    let packed = Dim::product("c", &[("qkv", 3), ("n", HEADS), ("d", 2)]);
    let dims = vec![batch.clone(), joint_rows(), packed];
    let x = input(&mut graph, "x", dims.clone(), dims);
    let parts = [0, 1, 2].map(|start| {
        let take = Take {
            factor: "qkv".into(),
            start,
            count: 1,
        };
        graph.add(Op::Take(take), &[x], "part").unwrap()
    });
    let attention = Attention {
        packing: Packing::Separate,
        scale: 0.7,
        products: DType::F32,
        bias: Presence::Absent,
    };
    let y = graph
        .add(Op::Attention(attention), &parts, "attention")
        .unwrap();
    let dims = graph.node(y).ty.dims.clone();
    output(&mut graph, y, dims);
    graph
}

/// Attention as above, so that there is something to slice, and guidance on patches.
fn guidance() -> Graph {
    let mut graph = attention();
    let patch = [("c", 2), ("p", 2), ("q", 2)];
    let dims = |b| {
        vec![
            Dim::new("b", b),
            Dim::product("seq", &GRID),
            Dim::product("e", &patch),
        ]
    };
    let host = |b| {
        vec![
            Dim::new("b", b),
            Dim::product("f", &[("t", 2)]),
            Dim::new("c", 2),
            Dim::product("y", &[("h", 5), ("p", 2)]),
            Dim::product("x", &[("w", 3), ("q", 2)]),
        ]
    };
    let pred = input(&mut graph, "pred", dims(2), host(2));
    let latents = input(&mut graph, "latents", dims(1), host(1));
    let coefficients = input(
        &mut graph,
        "k",
        vec![Dim::new("k", 7)],
        vec![Dim::new("k", 7)],
    );
    let denoise = Op::Denoise(Denoise {
        guidance: Guidance::ClassifierFree,
    });
    let x0 = graph
        .add(denoise, &[pred, latents, coefficients], "denoise")
        .unwrap();
    let host = Output {
        name: "x0".into(),
        host: host(1),
    };
    graph.add(Op::Output(host), &[x0], "x0").unwrap();
    graph
}

fn results(graph: Graph, mesh: Mesh, granularity: SliceGranularity) -> BTreeMap<String, Vec<f64>> {
    let options = options(mesh, granularity);
    let plan = compile(graph, &options, &provenance(mesh), &mut |_, _| {}).unwrap();
    let filled = |elements: usize| {
        (0..elements)
            .map(|i| ((i * 37 % 101) as f64).sin())
            .collect()
    };
    let inputs = plan.inputs.iter();
    let inputs = inputs.map(|p| (p.name.as_str(), filled(p.shape.iter().product())));
    machine::run(&plan, &inputs.collect())
}

#[test]
fn without_a_ring_every_mesh_gives_the_same_bits() {
    let expected = results(guidance(), Mesh::ONE, SliceGranularity::Cell);
    assert!(expected.values().flatten().all(|x| x.is_finite()));
    for cfg in 1..=2 {
        for ulysses in 1..=5 {
            for granularity in [SliceGranularity::Row, SliceGranularity::Cell] {
                let mesh = mesh(cfg, 1, ulysses);
                let found = results(guidance(), mesh, granularity);
                assert_eq!(found, expected, "{mesh} {granularity:?}");
            }
        }
    }
}

#[test]
fn with_a_ring_every_mesh_agrees_to_rounding() {
    let expected = results(guidance(), Mesh::ONE, SliceGranularity::Cell);
    for (cfg, ring, ulysses) in [
        (1, 2, 1),
        (1, 3, 1),
        (2, 3, 2),
        (1, 5, 3),
        (2, 2, 5),
        (1, 11, 1),
    ] {
        let mesh = mesh(cfg, ring, ulysses);
        let found = results(guidance(), mesh, SliceGranularity::Cell);
        assert_eq!(found["x0"], expected["x0"], "{mesh}");
        for (a, b) in found["y"].iter().zip(&expected["y"]) {
            assert!((a - b).abs() < 1e-14, "{mesh}: {a} {b}");
        }
    }
}
