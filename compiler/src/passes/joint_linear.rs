//! One product in the place of several with the same input: their weights joined along the rows.
//!
//! Each result is a range of the joint one. Every element is computed from the same numbers in
//! the same order as before.

use crate::CompileError;
use crate::ir::{Dim, Graph, NodeId, common_path};
use crate::ops::{Linear, LinearEpilogue, Op, Weight};

/// Adds the joint product of `members`, which have one input and no epilogue, all or none of them
/// a bias. `None` when their weights cannot be joined.
///
/// # Errors
/// Those of [`Graph::add`].
pub(super) fn add(
    graph: &mut Graph,
    members: &[NodeId],
    out: Dim,
) -> Result<Option<NodeId>, CompileError> {
    let Some((&first, linear)) = members.first().zip(plain(graph, members)) else {
        return Ok(None);
    };
    let input = graph.operands(first)[0];
    let mut joined = Vec::new();
    for port in 1..=1 + linear.bias.count() {
        let parts: Vec<NodeId> = members.iter().map(|&m| graph.operands(m)[port]).collect();
        match join(graph, &parts) {
            Some(weight) => joined.push((weight, path_of(graph, &parts, input))),
            None => return Ok(None),
        }
    }
    let mut operands = vec![input];
    for (weight, path) in joined {
        operands.push(graph.add(Op::Weight(weight), &[], &path)?);
    }
    let path = path_of(graph, members, input);
    let op = Op::Linear(Linear { out, ..linear });
    graph.add(op, &operands, &path).map(Some)
}

/// The attributes that all members share, `out` excepted.
fn plain(graph: &Graph, members: &[NodeId]) -> Option<Linear> {
    let linears: Option<Vec<&Linear>> = members.iter().map(|&m| linear(graph, m)).collect();
    let linears = linears?;
    let first = *linears.first()?;
    let same = |l: &&Linear| l.bias == first.bias && l.epilogue == LinearEpilogue::None;
    linears.iter().all(same).then(|| first.clone())
}

/// The attributes of a product.
pub(super) fn linear(graph: &Graph, id: NodeId) -> Option<&Linear> {
    if let Op::Linear(linear) = &graph.node(id).op {
        return Some(linear);
    }
    None
}

fn join(graph: &Graph, parts: &[NodeId]) -> Option<Weight> {
    let mut weights = Vec::with_capacity(parts.len());
    for &part in parts {
        let Op::Weight(weight) = &graph.node(part).op else {
            return None;
        };
        weights.push(weight);
    }
    Weight::joined(&weights)
}

/// What the paths have in common, or where their input comes from when they have nothing.
fn path_of(graph: &Graph, ids: &[NodeId], input: NodeId) -> String {
    let paths: Vec<&str> = ids.iter().map(|&id| &*graph.node(id).path).collect();
    common_path(&paths, &graph.node(input).path)
}
