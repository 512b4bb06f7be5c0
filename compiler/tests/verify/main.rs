//! The verifier: every rule broken once, with its whole message, and whole models that keep all.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../transformer/mod.rs"]
mod transformer;

mod cuts;
mod legal;
mod schedule;
mod shardings;
mod structure;
mod whole;

use terrace_compiler::ir::{Graph, NodeId};
use terrace_compiler::text::parse;
use terrace_compiler::verify::verify;

/// The graph of these lines on a mesh at a stage.
#[track_caller]
fn graph(mesh: &str, stage: &str, lines: &str) -> Graph {
    let text = format!("mesh <{mesh}>\ngraph g stage={stage} {{\n{lines}\n}}\n");
    parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// A graph on one rank.
#[track_caller]
fn single(stage: &str, lines: &str) -> Graph {
    graph("cfg=1 ring=1 ulysses=1", stage, lines)
}

/// What the verifier says about a graph at its stage.
#[track_caller]
fn message(graph: &Graph) -> String {
    match verify(graph, graph.stage) {
        Ok(()) => panic!("no violation in\n{graph}"),
        Err(error) => error.to_string(),
    }
}

/// The node of a line.
fn line(graph: &Graph, number: usize) -> NodeId {
    graph.order()[number]
}
