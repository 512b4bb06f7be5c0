//! lower-reshards: every reshard becomes one collective, or the compilation fails.
//!
//! ```text
//! before  %1 = reshard %0 : f32[...] @{n: ulysses[0 3 6]}
//! after   %1 = all_to_all %0 axis=ulysses gather=seq split=c : f32[...] @{n: ulysses[0 3 6]}
//! ```
//!
//! An axis that leaves some factors and enters others is an all-to-all. An axis that only leaves is
//! an all-gather, legal for cfg alone, where it collects the two predictions of a video. Anything
//! else would gather a whole activation on a rank and is refused.

use crate::ir::{Graph, Name, NodeId, Sharding, Type};
use crate::ops::{AllGather, AllToAll, Op};
use crate::{CompileError, CompileOptions};
use std::collections::BTreeSet;
use terrace_plan::Axis;

/// Runs the pass.
///
/// # Errors
/// A change of cut is no legal collective.
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if matches!(graph.node(id).op, Op::Reshard(_)) {
            let op = collective(graph, id)?;
            let node = graph.node(id).clone();
            let new = graph.add(op, &graph.operands(id), &node.path)?;
            graph.set_sharding(new, node.sharding);
            graph.set_phase(new, node.phase);
            graph.replace_uses(id, new);
            graph.erase(id)?;
        }
    }
    Ok(())
}

fn collective(graph: &Graph, id: NodeId) -> Result<Op, CompileError> {
    let node = graph.node(id);
    let source = graph.node(graph.operands(id)[0]);
    let left = cut_dims(&node.ty, &source.sharding, &node.sharding);
    let entered = cut_dims(&node.ty, &node.sharding, &source.sharding);
    let axes: BTreeSet<Axis> = left.iter().chain(&entered).map(|(axis, _)| *axis).collect();
    let refused = || CompileError::Gather {
        path: node.path.to_string(),
        from: source.sharding.to_string(),
        to: node.sharding.to_string(),
    };
    let (1, Some(&axis)) = (axes.len(), axes.first()) else {
        return Err(refused());
    };
    match (left.first(), entered.first()) {
        (Some((_, gather)), Some((_, split))) => Ok(Op::AllToAll(AllToAll {
            axis,
            gather: gather.clone(),
            split: split.clone(),
        })),
        (Some((_, gather)), None) if axis == Axis::Cfg => Ok(Op::AllGather(AllGather {
            axis,
            gather: gather.clone(),
        })),
        _ => Err(refused()),
    }
}

/// Axes that cut a dimension in `cut` but not in `other`, with the dimension's name.
fn cut_dims(ty: &Type, cut: &Sharding, other: &Sharding) -> Vec<(Axis, Name)> {
    let mut found = Vec::new();
    for (group, partition) in &cut.0 {
        let elsewhere: &[Axis] = other.0.get(group).map_or(&[], |p| &p.axes);
        let dim = ty
            .dims
            .iter()
            .find(|d| d.factors().any(|f| group.0.contains(&f.name)));
        for axis in partition.axes.iter().filter(|a| !elsewhere.contains(a)) {
            if let Some(dim) = dim {
                found.push((*axis, dim.name.clone()));
            }
        }
    }
    found
}
