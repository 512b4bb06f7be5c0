//! The schedule and the phases.

use crate::{line, message, single};
use insta::assert_snapshot;
use terrace_compiler::ir::{Graph, NodeId, Phase};
use terrace_compiler::verify::verify;

fn scheduled(numbers: &[usize]) -> Graph {
    let mut graph = single(
        "scheduled",
        r#"%0 = input "x" host=[b=2, c=8] : f32[b=2, c=8]
        %1 = weight layout=plain from=["w" [8]] : f32[o=8] init
        %2 = norm %0 %1 kind=rms eps=1e-6 : f32[b=2, c=8]   ; norm
        %3 = output %2 "y" host=[b=2, c=8] : f32[b=2, c=8]"#,
    );
    let ids: Vec<NodeId> = graph.ids().collect();
    let order = numbers
        .iter()
        .map(|&n| ids.get(n).copied().unwrap_or(NodeId(99)));
    graph.set_schedule(order.collect());
    graph
}

#[test]
fn a_good_one() {
    let graph = scheduled(&[1, 0, 2, 3]);
    verify(&graph, graph.stage).unwrap();
}

#[test]
fn there_is_one() {
    let mut graph = scheduled(&[0, 1, 2, 3]);
    let (norm, input) = (line(&graph, 2), line(&graph, 0));
    graph.replace_operand(norm, 0, input);
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 1 violation at stage scheduled:
      the graph has no schedule
    ");
}

#[test]
fn every_node_is_in_it_once() {
    assert_snapshot!(message(&scheduled(&[0, 1, 1, 2])), @r#"
    internal error: graph g is broken, 2 violations at stage scheduled:
      is in the schedule twice
        in %1 = weight layout=plain from=["w" [8]] : f32[o=8] @{} init
      is not in the schedule
        in %3 = output %2 "y" host=[b=2, c=8] : f32[b=2, c=8] @{}
    "#);
    assert_snapshot!(message(&scheduled(&[0, 1, 2, 3, 4])), @"
    internal error: graph g is broken, 1 violation at stage scheduled:
      the schedule has nodes that the graph does not have: 1
    ");
}

#[test]
fn operands_come_first() {
    assert_snapshot!(message(&scheduled(&[0, 2, 1, 3])), @"
    internal error: graph g is broken, 1 violation at stage scheduled:
      is scheduled before its operand 1
        in %1 = norm %0 %2 kind=rms eps=1e-6 : f32[b=2, c=8] @{}   ; norm
    ");
}

#[test]
fn init_needs_init_alone() {
    let mut graph = scheduled(&[0, 1, 2, 3]);
    for number in [0, 3] {
        let port = line(&graph, number);
        graph.set_phase(port, Phase::Init);
    }
    let weight = line(&graph, 1);
    graph.set_phase(weight, Phase::Step);
    let norm = line(&graph, 2);
    graph.set_phase(norm, Phase::Init);
    assert_snapshot!(message(&graph), @r#"
    internal error: graph g is broken, 3 violations at stage scheduled:
      runs at init, but ports are bound at every step
        in %0 = input "x" host=[b=2, c=8] : f32[b=2, c=8] @{} init
      runs at init, but needs what runs at every step
        in %2 = norm %0 %1 kind=rms eps=1e-6 : f32[b=2, c=8] @{} init   ; norm
      runs at init, but ports are bound at every step
        in %3 = output %2 "y" host=[b=2, c=8] : f32[b=2, c=8] @{} init
    "#);
}
