//! Invariants of every graph: no cycles, inferred types, names, ports, no dead code.

use super::{Fault, Found};
use crate::ir::{Graph, NodeId, Stage, Type};
use crate::ops::{self, Op};
use crate::text::is_word;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(graph: &Graph, stage: Stage, found: &mut Found) {
    check_cycles(graph, found);
    for id in graph.ids() {
        if stage != Stage::Local {
            check_type(graph, id, found);
        }
        check_names(&graph.node(id).ty, id, stage, found);
    }
    check_ports(graph, found);
    if stage >= Stage::Fused {
        check_dead(graph, found);
    }
}

/// Takes away nodes without operands, then nodes without users; what is left lies on a cycle or
/// between two.
fn check_cycles(graph: &Graph, found: &mut Found) {
    let behind = without(graph.ids().collect(), |id| graph.operands(id));
    for id in without(behind, |id| graph.users(id)) {
        found.at(id, Fault::Cycle);
    }
}

/// The nodes that remain when those that need none of the remaining ones are taken away.
fn without(nodes: BTreeSet<NodeId>, needs: impl Fn(NodeId) -> Vec<NodeId>) -> BTreeSet<NodeId> {
    let mut needed_by: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let mut missing: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut ready = Vec::new();
    for &id in &nodes {
        let needs: Vec<NodeId> = needs(id)
            .into_iter()
            .filter(|n| nodes.contains(n))
            .collect();
        if needs.is_empty() {
            ready.push(id);
        }
        missing.insert(id, needs.len());
        for need in needs {
            needed_by.entry(need).or_default().push(id);
        }
    }
    while let Some(id) = ready.pop() {
        missing.remove(&id);
        for user in needed_by.remove(&id).unwrap_or_default() {
            if let Some(count) = missing.get_mut(&user) {
                *count -= 1;
                if *count == 0 {
                    ready.push(user);
                }
            }
        }
    }
    missing.into_keys().collect()
}

fn check_type(graph: &Graph, id: NodeId, found: &mut Found) {
    let node = graph.node(id);
    let operands = graph.operands(id);
    let types: Vec<&Type> = operands.iter().map(|&o| &graph.node(o).ty).collect();
    match ops::infer(&node.op, &types) {
        Ok(ty) if ty == node.ty => {}
        Ok(ty) => found.at(
            id,
            Fault::Type {
                inferred: ty.to_string(),
            },
        ),
        Err(error) => found.at(
            id,
            Fault::Operands {
                expected: error.expected,
                found: error.found,
            },
        ),
    }
}

/// Names find factors, so they are unique; they are words, so the text form can write them.
/// Only the parts of a rank have factors named after groups, `h.w`.
fn check_names(ty: &Type, id: NodeId, stage: Stage, found: &mut Found) {
    for dim in &ty.dims {
        if dim.segments.is_empty() || dim.segments.iter().any(|s| s.factors.is_empty()) {
            found.at(
                id,
                Fault::EmptyDim {
                    dim: dim.name.to_string(),
                },
            );
        }
        let factors = dim.factors().map(|f| &f.name).filter(|n| **n != dim.name);
        for name in std::iter::once(&dim.name).chain(factors) {
            if !is_word(name) || (stage != Stage::Local && name.contains('.')) {
                found.at(
                    id,
                    Fault::Name {
                        name: name.to_string(),
                    },
                );
            }
        }
    }
    for (at, factor) in ty.factors().enumerate() {
        if ty.factors().take(at).any(|f| f.name == factor.name) {
            found.at(
                id,
                Fault::SameFactor {
                    name: factor.name.to_string(),
                },
            );
        }
    }
}

fn check_ports(graph: &Graph, found: &mut Found) {
    let mut names = BTreeSet::new();
    for id in graph.ids() {
        let (port, name) = if let Op::Input(input) = &graph.node(id).op {
            ("input", &input.name)
        } else if let Op::Output(output) = &graph.node(id).op {
            if !graph.users(id).is_empty() {
                found.at(id, Fault::UsedOutput);
            }
            ("output", &output.name)
        } else {
            continue;
        };
        if !names.insert((port, name)) {
            let name = name.clone();
            found.at(id, Fault::SamePort { port, name });
        }
    }
}

/// Inputs are exempt: the caller may bind them whether or not a model needs them.
fn check_dead(graph: &Graph, found: &mut Found) {
    let mut stack: Vec<NodeId> = graph
        .ids()
        .filter(|&id| matches!(graph.node(id).op, Op::Output(_)))
        .collect();
    let mut live: BTreeSet<NodeId> = stack.iter().copied().collect();
    while let Some(id) = stack.pop() {
        for operand in graph.operands(id) {
            if live.insert(operand) {
                stack.push(operand);
            }
        }
    }
    let needed = |id: &NodeId| live.contains(id) || matches!(graph.node(*id).op, Op::Input(_));
    for id in graph.ids().filter(|id| !needed(id)) {
        found.at(id, Fault::Dead);
    }
}
