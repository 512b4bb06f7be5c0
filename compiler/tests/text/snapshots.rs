//! Minimal graphs in full.

use insta::assert_snapshot;
use terrace_compiler::ir::{Dim, Graph, Group, Partition, Phase, Segment, Sharding, Stage, Type};
use terrace_compiler::ops::{Affine, Input, Norm, NormKind, Op, Output, Weight};
use terrace_compiler::passes::localize;
use terrace_compiler::text::parse;
use terrace_plan::{Axis, DType, Mesh, Rank, WeightLayout, WeightSource};

fn seq() -> Dim {
    let text = Segment::new(&[("txt", 4)]);
    let video = Segment::new(&[("t", 2), ("h", 3), ("w", 5)]);
    Dim::sum("seq", vec![text, video])
}

fn tokens() -> Op {
    let (b, c) = (Dim::new("b", 2), Dim::new("c", 8));
    Op::Input(Input {
        name: "tokens".into(),
        ty: Type::f32(vec![b.clone(), seq(), c.clone()]),
        host: vec![b, c, seq()],
    })
}

fn norm() -> Graph {
    let mut graph = Graph::new("norm");
    let x = graph.add(tokens(), &[], "tokens").unwrap();
    let weight = Op::Weight(Weight {
        sources: vec![WeightSource {
            name: "norm.weight".into(),
            aliases: vec!["norm.gamma".into()],
            shape: vec![8],
        }],
        dims: vec![Dim::new("o", 8)],
        layout: WeightLayout::Plain,
        dtype: DType::F32,
    });
    let weight = graph.add(weight, &[], "norm.weight").unwrap();
    let norm = Op::Norm(Norm {
        kind: NormKind::Layer {
            eps: 1e-5,
            affine: Affine::Weight,
        },
        modulate: None,
    });
    let normed = graph.add(norm, &[x, weight], "norm").unwrap();
    let output = Op::Output(Output {
        name: "normed".into(),
        host: vec![Dim::new("b", 2), seq(), Dim::new("c", 8)],
    });
    graph.add(output, &[normed], "").unwrap();
    graph
}

/// The same graph on two ranks, scheduled.
fn cut() -> Graph {
    let mut graph = norm();
    graph.mesh = Mesh {
        cfg: 1,
        ring: 1,
        ulysses: 2,
    };
    graph.stage = Stage::Scheduled;
    let ulysses = |offsets: &[usize]| Partition::new(vec![Axis::Ulysses], offsets.to_vec());
    let order = graph.order();
    let plane = seq().segments[1].factors[1..].to_vec();
    graph.slices.rows.push((plane, ulysses(&[0, 7, 15])));
    let sharding = Sharding(
        [
            (Group::new(&["h", "w"]), ulysses(&[0, 7, 15])),
            (Group::new(&["txt"]), ulysses(&[0, 3, 4])),
        ]
        .into(),
    );
    for (at, &id) in order.iter().enumerate() {
        if at == 1 {
            graph.set_phase(id, Phase::Init);
        } else {
            graph.set_sharding(id, sharding.clone());
        }
    }
    graph.set_schedule(vec![order[1], order[0], order[2], order[3]]);
    graph
}

#[test]
fn a_model_graph() {
    assert_snapshot!(norm(), @r#"
    mesh <cfg=1 ring=1 ulysses=1>
    graph norm stage=model {
      %0 = input "tokens" host=[b=2, c=8, seq=(txt=4 | t=2 h=3 w=5)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] @{}   ; tokens
      %1 = weight layout=plain from=["norm.weight" or "norm.gamma" [8]] : f32[o=8] @{}   ; norm.weight
      %2 = norm %0 %1 kind=layer eps=1e-5 affine=weight : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] @{}   ; norm
      %3 = output %2 "normed" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] @{}
    }
    "#);
}

#[test]
fn a_scheduled_graph() {
    assert_snapshot!(cut(), @r#"
    mesh <cfg=1 ring=1 ulysses=2>
    graph norm stage=scheduled order=fixed {
      slices rows {h=3 w=5: ulysses[0 7 15]}
      %0 = weight layout=plain from=["norm.weight" or "norm.gamma" [8]] : f32[o=8] @{} init   ; norm.weight
      %1 = input "tokens" host=[b=2, c=8, seq=(txt=4 | t=2 h=3 w=5)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] @{h.w: ulysses[0 7 15], txt: ulysses[0 3 4]}   ; tokens
      %2 = norm %1 %0 kind=layer eps=1e-5 affine=weight : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] @{h.w: ulysses[0 7 15], txt: ulysses[0 3 4]}   ; norm
      %3 = output %2 "normed" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] @{h.w: ulysses[0 7 15], txt: ulysses[0 3 4]}
    }
    "#);
}

#[test]
fn the_graph_of_one_rank_has_types_of_parts() {
    let local = localize::run(&cut(), Rank(1));
    assert_snapshot!(local, @r#"
    mesh <cfg=1 ring=1 ulysses=2>
    graph norm stage=local order=fixed {
      slices rows {h=3 w=5: ulysses[0 7 15]}
      %0 = weight layout=plain from=["norm.weight" or "norm.gamma" [8]] : f32[o=8] @{} init   ; norm.weight
      %1 = input "tokens" host=[b=2, c=8, seq=(txt=4 | t=2 h=3 w=5)] whole=f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] : f32[b=2, seq=(txt=1 | t=2 h.w=8), c=8] @{}   ; tokens
      %2 = norm %1 %0 kind=layer eps=1e-5 affine=weight : f32[b=2, seq=(txt=1 | t=2 h.w=8), c=8] @{}   ; norm
      %3 = output %2 "normed" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=8] : f32[b=2, seq=(txt=1 | t=2 h.w=8), c=8] @{}
    }
    "#);
    assert!(parse(&local.to_string()).unwrap() == local);
}

#[test]
fn names_that_are_no_words_are_quoted() {
    let graph = Graph::new("a \"graph\"\n");
    assert_snapshot!(graph, @r#"
    mesh <cfg=1 ring=1 ulysses=1>
    graph "a \"graph\"\u{a}" stage=model {
    }
    "#);
    assert!(parse(&graph.to_string()).unwrap() == graph);
}

#[test]
fn numbers_of_nodes_do_not_matter() {
    let graph = norm();
    let mut other = Graph::new("norm");
    let spare = other.add(tokens(), &[], "spare").unwrap();
    let x = other.add(tokens(), &[], "tokens").unwrap();
    let mut ids = vec![x];
    for &id in &graph.order()[1..] {
        let operands: Vec<_> = graph
            .operands(id)
            .iter()
            .map(|o| ids[graph.order().iter().position(|n| n == o).unwrap()])
            .collect();
        let node = graph.node(id);
        ids.push(other.add(node.op.clone(), &operands, &node.path).unwrap());
    }
    other.erase(spare).unwrap();
    assert_ne!(graph.order(), other.order());
    assert!(other == graph);
    assert!(parse(&other.to_string()).unwrap() == other);
}
