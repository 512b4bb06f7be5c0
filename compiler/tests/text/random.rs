//! `parse(print(g)) == g` over random graphs of all families of ops.
//!
//! A graph is made from a list of numbers, one per node: each number seeds the choice of an op, of
//! its attributes and of operands that fit, so that a failing graph shrinks node by node.

use crate::dice::Dice;
use crate::families;
use proptest::prelude::*;
use terrace_compiler::ir::{Graph, Group, NodeId, Partition, Phase, Sharding, Slices, Stage};
use terrace_compiler::ops::Op;
use terrace_compiler::text::{parse, print};
use terrace_plan::{Axis, Mesh};

/// Stages whose types are inferred.
const STAGES: [Stage; 5] = [
    Stage::Model,
    Stage::Fused,
    Stage::Sharded,
    Stage::Comm,
    Stage::Scheduled,
];

fn graph(seeds: &[u64]) -> Graph {
    let (frame, seeds) = seeds.split_first().unwrap();
    let mut dice = Dice(*frame);
    let name = dice.text();
    let mut graph = Graph::new(&name);
    graph.mesh = Mesh {
        cfg: dice.from(1, 2),
        ring: dice.from(1, 4),
        ulysses: dice.from(1, 8),
    };
    graph.stage = dice.pick(&STAGES);
    for &seed in seeds {
        let mut dice = Dice(seed);
        let node = families::add(&mut graph, &mut dice);
        annotate(&mut graph, node, &mut dice);
    }
    graph.slices = slices(&graph, &mut dice);
    if dice.coin() {
        let order = any_order(&graph, &mut dice);
        graph.set_schedule(order);
    }
    graph
}

/// Any cut and phase: the text form does not ask whether they are legal.
fn annotate(graph: &mut Graph, node: NodeId, dice: &mut Dice) {
    if dice.coin() {
        graph.set_phase(node, Phase::Init);
    }
    if let Op::Reshard(made) = &graph.node(node).op {
        let made = made.clone();
        graph.set_sharding(node, made);
    } else if dice.coin() {
        let cut = sharding(dice);
        graph.set_sharding(node, cut);
    }
}

pub fn sharding(dice: &mut Dice) -> Sharding {
    let mut sharding = Sharding::replicated();
    for _ in 0..dice.from(0, 3) {
        let names = dice.some(1, 3, Dice::word);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        sharding.0.insert(Group::new(&names), partition(dice));
    }
    sharding
}

fn partition(dice: &mut Dice) -> Partition {
    let axes = dice.some(1, 3, |dice| dice.pick(&Axis::ALL));
    let offsets = dice.some(0, 5, |dice| dice.from(0, 5000));
    Partition {
        shift: dice.from(0, 3),
        ..Partition::new(axes, offsets)
    }
}

fn slices(graph: &Graph, dice: &mut Dice) -> Slices {
    let factors: Vec<_> = graph
        .ids()
        .flat_map(|id| graph.node(id).ty.factors().cloned().collect::<Vec<_>>())
        .collect();
    let mut cuts = || {
        let count = dice.from(0, factors.len().min(3));
        (0..count)
            .map(|_| (dice.some(1, 2, |dice| dice.pick(&factors)), partition(dice)))
            .collect()
    };
    Slices {
        rows: cuts(),
        heads: cuts(),
    }
}

/// A random topological order.
fn any_order(graph: &Graph, dice: &mut Dice) -> Vec<NodeId> {
    let mut rest: Vec<NodeId> = graph.ids().collect();
    let mut order = Vec::new();
    while !rest.is_empty() {
        let ready: Vec<NodeId> = rest
            .iter()
            .copied()
            .filter(|&id| graph.operands(id).iter().all(|o| order.contains(o)))
            .collect();
        let next = dice.pick(&ready);
        rest.retain(|&id| id != next);
        order.push(next);
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn graphs_come_back(seeds in prop::collection::vec(any::<u64>(), 1..24)) {
        let graph = graph(&seeds);
        let text = print(&graph);
        let back = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert!(back == graph, "{text}\ncame back as\n{back}");
        prop_assert_eq!(print(&back), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(mesh <cfg=1 ring=1 ulysses=1>\ngraph g stage=model \\{\n)?[%0-9a-z_=\\[\\](){}<>:;@|\",.\\\\ \n]{0,80}") {
        let _ = parse(&text);
    }
}

/// Every family is drawn, so the property above speaks of all of them.
#[test]
fn all_families_are_drawn() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..2000 {
        let mut graph = Graph::new("one");
        let node = families::add(&mut graph, &mut Dice(seed));
        seen.insert(graph.node(node).op.name());
    }
    assert_eq!(seen.len(), 36, "{seen:?}");
}
