//! Plans of a small transformer block on many meshes: every one passes `Plan::check`.

use terrace_compiler::ir::{Dim, Graph, NodeId, Segment, Type};
use terrace_compiler::ops::{
    Affine, Attention, Input, Linear, LinearEpilogue, Norm, NormKind, Op, Output, Packing,
    PositionTable, Presence, QkNormRope, Weight,
};
use terrace_compiler::{CompileError, CompileOptions, Provenance, SliceGranularity, compile};
use terrace_plan::{
    Action, DType, Fingerprint, GridAxis, Mesh, Plan, PositionColumns, PositionKind, Region,
    WeightLayout, WeightSource,
};

const HEADS: usize = 5;
const HEAD_DIM: usize = 8;
const TEXT: usize = 7;
const GRID: [usize; 3] = [2, 9, 5];

fn weight(graph: &mut Graph, name: &str, shape: &[usize]) -> NodeId {
    let layout = match shape.len() {
        2 => WeightLayout::Linear,
        _ => WeightLayout::Plain,
    };
    let names = ["o", "i"];
    let dims = shape
        .iter()
        .zip(names)
        .map(|(&size, dim)| Dim::new(dim, size))
        .collect();
    let sources = vec![WeightSource {
        name: name.into(),
        aliases: Vec::new(),
        shape: shape.to_vec(),
    }];
    let op = Op::Weight(Weight {
        sources,
        dims,
        layout,
    });
    graph.add(op, &[], name).unwrap()
}

fn linear(graph: &mut Graph, x: NodeId, out: Dim, path: &str) -> NodeId {
    let inner = graph.node(x).ty.dims.last().unwrap().size();
    let w = weight(graph, &format!("{path}.weight"), &[out.size(), inner]);
    let op = Op::Linear(Linear {
        out,
        bias: Presence::Absent,
        epilogue: LinearEpilogue::None,
    });
    graph.add(op, &[x, w], path).unwrap()
}

fn block(batch: usize) -> Graph {
    let width = HEADS * HEAD_DIM;
    let [t, h, w] = GRID;
    let grid = [("t", t), ("h", h), ("w", w)];
    let mut graph = Graph::new("block");
    let video = Op::Input(Input {
        name: "video".into(),
        ty: Type::f32(vec![
            Dim::new("b", batch),
            Dim::product("seq", &grid),
            Dim::product("e", &[("c", 3), ("p", 2), ("q", 2)]),
        ]),
        host: vec![
            Dim::new("b", batch),
            Dim::product("f", &[("t", t)]),
            Dim::new("c", 3),
            Dim::product("y", &[("h", h), ("p", 2)]),
            Dim::product("x", &[("w", w), ("q", 2)]),
        ],
    });
    let video = graph.add(video, &[], "video").unwrap();
    let text_dims = vec![
        Dim::new("b", batch),
        Dim::product("seq", &[("txt", TEXT)]),
        Dim::new("c", width),
    ];
    let text = Op::Input(Input {
        name: "text".into(),
        ty: Type::f32(text_dims.clone()),
        host: text_dims,
    });
    let text = graph.add(text, &[], "text").unwrap();
    let embedded = linear(&mut graph, video, Dim::new("c", width), "embed");
    let joint = graph
        .add(Op::Join(Presence::Absent), &[text, embedded], "join")
        .unwrap();
    let norm = Op::Norm(Norm {
        kind: NormKind::Layer {
            eps: 1e-5,
            affine: Affine::None,
        },
        modulate: None,
    });
    let normed = graph.add(norm, &[joint], "norm").unwrap();
    let packed = Dim::product("c", &[("qkv", 3), ("n", HEADS), ("d", HEAD_DIM)]);
    let qkv = linear(&mut graph, normed, packed, "to_qkv");
    let table = Op::PositionTable(PositionTable {
        kind: PositionKind::Rotary { theta: 1e4 },
        columns: [(GridAxis::T, 4), (GridAxis::H, 2), (GridAxis::W, 2)]
            .map(|(axis, dim)| PositionColumns {
                axis,
                dim,
                start: 0.0,
                step: 1.0,
            })
            .to_vec(),
        rows: Dim::product("v", &grid),
        out: Dim::product("r", &[("cs", 2), ("d", HEAD_DIM)]),
    });
    let table = graph.add(table, &[], "rope").unwrap();
    let rope = Op::QkNormRope(QkNormRope {
        norm: None,
        rope: Presence::Present,
    });
    let qkv = graph.add(rope, &[qkv, table], "rope").unwrap();
    let attention = Op::Attention(Attention {
        packing: Packing::Packed,
        scale: 0.3,
        bias: Presence::Absent,
    });
    let attended = graph.add(attention, &[qkv], "attention").unwrap();
    let out = linear(&mut graph, attended, Dim::new("c", width), "to_out");
    let sum = graph.add(Op::Residual(None), &[joint, out], "sum").unwrap();
    let rows = graph.add(Op::Segment(1), &[sum], "take").unwrap();
    let channels = Dim::product("e", &[("c", 3), ("p", 2), ("q", 2)]);
    let result = linear(&mut graph, rows, channels, "proj");
    let output = Op::Output(Output {
        name: "video".into(),
        host: vec![
            Dim::new("b", batch),
            Dim::product("f", &[("t", t)]),
            Dim::new("c", 3),
            Dim::product("y", &[("h", h), ("p", 2)]),
            Dim::product("x", &[("w", w), ("q", 2)]),
        ],
    });
    graph.add(output, &[result], "out").unwrap();
    assert_eq!(
        graph.node(sum).ty.dims[1],
        Dim::sum(
            "seq",
            vec![Segment::new(&[("txt", TEXT)]), Segment::new(&grid)]
        )
    );
    graph
}

fn plan(mesh: Mesh, granularity: SliceGranularity) -> Result<Plan, CompileError> {
    let options = CompileOptions { mesh, granularity };
    let provenance = Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: "block".into(),
            shape: "small".into(),
            dtype: DType::F32,
            mesh: mesh.to_string(),
            kernels: "none".into(),
        },
        request: "{}".into(),
    };
    compile(block(mesh.cfg), &options, &provenance, &mut |_, _| {})
}

fn meshes() -> Vec<Mesh> {
    let mut meshes = Vec::new();
    for cfg in 1..=2 {
        for ring in 1..=4 {
            for ulysses in 1..=5 {
                meshes.push(Mesh { cfg, ring, ulysses });
            }
        }
    }
    meshes
}

#[test]
fn every_mesh_gives_a_plan_that_passes_its_check() {
    for mesh in meshes() {
        for granularity in [SliceGranularity::Row, SliceGranularity::Cell] {
            let plan = match plan(mesh, granularity) {
                Ok(plan) => plan,
                Err(CompileError::TooManyRanks { .. }) if mesh.ring * mesh.ulysses > GRID[1] => {
                    continue;
                }
                Err(error) => panic!("{mesh} {granularity:?}: {error}"),
            };
            assert_eq!(plan.ranks.len(), mesh.ranks());
        }
    }
}

#[test]
fn equal_graphs_give_equal_bytes() {
    let mesh = Mesh {
        cfg: 2,
        ring: 2,
        ulysses: 3,
    };
    let [a, b] = [0; 2].map(|_| {
        plan(mesh, SliceGranularity::Cell)
            .unwrap()
            .to_json()
            .unwrap()
    });
    assert!(a == b);
}

#[test]
fn the_latents_carry_over() {
    let plan = plan(Mesh::ONE, SliceGranularity::Cell).unwrap();
    assert_eq!(plan.carries.len(), 1);
    assert_eq!(plan.outputs[plan.carries[0].output].name, "video");
    assert_eq!(plan.inputs[plan.carries[0].input].name, "video");
}

#[test]
fn tables_of_positions_are_computed_once() {
    let plan = plan(Mesh::ONE, SliceGranularity::Cell).unwrap();
    let launches = |steps: &[terrace_plan::Step]| -> Vec<&'static str> {
        steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Launch(call) => Some(call.name()),
                Action::Exchange { .. }
                | Action::Wait { .. }
                | Action::Copy { .. }
                | Action::Free { .. } => None,
            })
            .collect()
    };
    assert_eq!(launches(&plan.ranks[0].init), ["position_table"]);
    assert!(!launches(&plan.ranks[0].steps).contains(&"position_table"));
}

#[test]
fn a_ring_shift_travels_during_an_attention_step() {
    let mesh = Mesh {
        cfg: 1,
        ring: 3,
        ulysses: 1,
    };
    let plan = plan(mesh, SliceGranularity::Cell).unwrap();
    let steps = &plan.ranks[1].steps;
    let kinds: Vec<&str> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Launch(call) if call.name().starts_with("attention") => Some(call.name()),
            Action::Exchange { .. } => Some("exchange"),
            Action::Wait { .. } => Some("wait"),
            Action::Launch(_) | Action::Copy { .. } | Action::Free { .. } => None,
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "exchange",
            "attention_step",
            "wait",
            "exchange",
            "attention_step",
            "wait",
            "attention_step",
            "attention_finish",
        ]
    );
}

#[test]
fn buffers_of_the_arena_are_reused() {
    let plan = plan(Mesh::ONE, SliceGranularity::Cell).unwrap();
    let rank = &plan.ranks[0];
    let stacked: usize = rank
        .buffers
        .iter()
        .filter(|b| b.region == Region::Arena)
        .filter_map(terrace_plan::Buffer::bytes)
        .sum();
    assert!(
        rank.arena_bytes < stacked,
        "{} < {stacked}",
        rank.arena_bytes
    );
}
