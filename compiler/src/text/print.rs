//! Printing. Every graph has a text, broken ones included: nodes on a cycle or missing in the
//! schedule come last, by id.

use super::lex::{escape, is_word};
use super::ops;
use super::value::Value;
use crate::ir::{Graph, NodeId, Phase};
use std::collections::BTreeMap;
use std::fmt;

/// The text of a graph.
pub fn print(graph: &Graph) -> String {
    let mut out = String::from("mesh ");
    graph.mesh.write(&mut out);
    out.push_str("\ngraph ");
    if is_word(graph.name()) {
        out.push_str(graph.name());
    } else {
        graph.name().to_owned().write(&mut out);
    }
    out.push_str(" stage=");
    graph.stage.write(&mut out);
    if graph.is_scheduled() {
        out.push_str(" order=fixed");
    }
    out.push_str(" {\n");
    graph.slices.write(&mut out);
    let lines = Lines::of(graph);
    for &id in &lines.order {
        out.push_str("  ");
        lines.write(id, &mut out);
        out.push('\n');
    }
    out.push_str("}\n");
    out
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

/// The lines of a graph and the numbers of its nodes.
pub(crate) struct Lines<'a> {
    graph: &'a Graph,
    order: Vec<NodeId>,
    numbers: BTreeMap<NodeId, usize>,
}

impl<'a> Lines<'a> {
    pub fn of(graph: &'a Graph) -> Self {
        let mut lines = Self {
            graph,
            order: Vec::with_capacity(graph.len()),
            numbers: BTreeMap::new(),
        };
        for id in graph.order().into_iter().chain(graph.ids()) {
            if graph.contains(id) && !lines.numbers.contains_key(&id) {
                lines.numbers.insert(id, lines.order.len());
                lines.order.push(id);
            }
        }
        lines
    }

    /// The number of a node of the graph.
    pub fn number(&self, id: NodeId) -> usize {
        self.numbers.get(&id).copied().unwrap_or(self.order.len())
    }

    /// The line of a node, without indentation.
    pub fn line(&self, id: NodeId) -> String {
        let mut out = String::new();
        self.write(id, &mut out);
        out
    }

    fn write(&self, id: NodeId, out: &mut String) {
        let node = self.graph.node(id);
        out.push('%');
        self.number(id).write(out);
        out.push_str(" = ");
        out.push_str(node.op.name());
        for operand in self.graph.operands(id) {
            out.push_str(" %");
            self.number(operand).write(out);
        }
        ops::write(node, out);
        out.push_str(" : ");
        node.ty.write(out);
        out.push(' ');
        node.sharding.write(out);
        match node.phase {
            Phase::Init => out.push_str(" init"),
            Phase::Step => {}
        }
        if !node.path.is_empty() {
            out.push_str("   ; ");
            escape(&node.path, out);
        }
    }
}
