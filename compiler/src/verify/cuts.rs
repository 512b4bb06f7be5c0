//! From stage comm on, every operand and every result is cut as the op needs, and every collective
//! leads from the cut of its operand to its own.

use super::{Fault, Found};
use crate::ir::{Dim, Graph, Name, NodeId, Sharding, Type};
use crate::ops::{self, Op};
use std::collections::BTreeSet;
use terrace_plan::Axis;

pub(super) fn check(graph: &Graph, found: &mut Found) {
    for id in graph.ids() {
        let leads = match &graph.node(id).op {
            Op::AllToAll(a) => moves(graph, id, a.axis, Some(&a.gather), Some(&a.split)),
            Op::AllGather(a) => moves(graph, id, a.axis, Some(&a.gather), None),
            Op::RingShift(a) => travels(graph, id, a.axis),
            Op::Reshard(_) => true,
            Op::Input(_)
            | Op::Output(_)
            | Op::Weight(_)
            | Op::Linear(_)
            | Op::Norm(_)
            | Op::Modulate(_)
            | Op::Residual(_)
            | Op::HeadNorm(_)
            | Op::Rope(_)
            | Op::QkNormRope(_)
            | Op::Attention(_)
            | Op::AttentionStep(_)
            | Op::AttentionFinish(_)
            | Op::Activate(_)
            | Op::Cast(_)
            | Op::GatedGelu
            | Op::Embedding(_)
            | Op::RelativeBias(_)
            | Op::TimestepEmbedding(_)
            | Op::PositionTable(_)
            | Op::Join(_)
            | Op::Segment(_)
            | Op::Take(_)
            | Op::Concat(_)
            | Op::Repeat(_)
            | Op::Conv3d(_)
            | Op::ConvCache(_)
            | Op::GroupNorm(_)
            | Op::Upsample(_)
            | Op::Denoise(_)
            | Op::Advance(_)
            | Op::Noise(_) => {
                check_rule(graph, id, found);
                true
            }
        };
        if !leads {
            let from = operand_cut(graph, id).to_string();
            found.at(id, Fault::Collective { from });
        }
    }
}

fn check_rule(graph: &Graph, id: NodeId, found: &mut Found) {
    let node = graph.node(id);
    let operands = graph.operands(id);
    let types: Vec<&Type> = operands.iter().map(|&o| &graph.node(o).ty).collect();
    let rule = ops::rule(&node.op, &types, &node.ty, &graph.slices);
    for (port, (&operand, needed)) in operands.iter().zip(&rule.operands).enumerate() {
        let cut = &graph.node(operand).sharding;
        // Keys and values may come from any position of the ring.
        let blocks = matches!(node.op, Op::AttentionStep(_)) && port == 1;
        if cut != needed && !(blocks && home(cut) == *needed) {
            found.at(
                id,
                Fault::OperandCut {
                    port,
                    needed: needed.to_string(),
                    found: cut.to_string(),
                },
            );
        }
    }
    if node.sharding != rule.result {
        let given = rule.result.to_string();
        found.at(id, Fault::ResultCut { given });
    }
}

/// The cut of a block before it travelled.
fn home(cut: &Sharding) -> Sharding {
    let mut cut = cut.clone();
    cut.0.values_mut().for_each(|p| p.shift = 0);
    cut
}

fn operand_cut(graph: &Graph, id: NodeId) -> Sharding {
    let operand = graph.operands(id).first().copied();
    operand.map_or_else(Sharding::replicated, |o| graph.node(o).sharding.clone())
}

/// Whether the axis, and no other, leaves the dimension `gather` and enters the dimension `split`.
fn moves(
    graph: &Graph,
    id: NodeId,
    axis: Axis,
    gather: Option<&Name>,
    split: Option<&Name>,
) -> bool {
    let node = graph.node(id);
    let before = cut_dims(&node.ty, &operand_cut(graph, id));
    let after = cut_dims(&node.ty, &node.sharding);
    let only = |dims: Vec<&(Axis, Name)>, name: Option<&Name>| {
        let named = name.map(|name| dim_of(&node.ty, name));
        dims.iter()
            .all(|(a, dim)| *a == axis && named == Some(Some(dim)))
            && dims.is_empty() == name.is_none()
    };
    only(before.difference(&after).collect(), gather)
        && only(after.difference(&before).collect(), split)
}

/// The dimension of this name, or that of the factor of this name.
fn dim_of<'a>(ty: &'a Type, name: &Name) -> Option<&'a Name> {
    let holds = |d: &&Dim| d.factors().any(|f| f.name == *name);
    let dim = ty.dim(name).or_else(|| ty.dims.iter().find(holds));
    dim.map(|d| &d.name)
}

/// The axes that cut a tensor, each with the dimension that it cuts.
fn cut_dims(ty: &Type, cut: &Sharding) -> BTreeSet<(Axis, Name)> {
    let mut dims = BTreeSet::new();
    for (group, partition) in &cut.0 {
        let holds = |d: &&Dim| d.factors().any(|f| group.0.contains(&f.name));
        if let Some(dim) = ty.dims.iter().find(holds) {
            dims.extend(partition.axes.iter().map(|&axis| (axis, dim.name.clone())));
        }
    }
    dims
}

/// Whether every group that the axis cuts is one position further than in the operand.
fn travels(graph: &Graph, id: NodeId, axis: Axis) -> bool {
    let mut cut = operand_cut(graph, id);
    for partition in cut.0.values_mut().filter(|p| p.axes.contains(&axis)) {
        partition.shift += 1;
    }
    axis == Axis::Ring && cut == graph.node(id).sharding
}
