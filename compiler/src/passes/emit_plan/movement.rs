//! Movement within a rank and across its border: the boxes of copies and of ports.

use crate::CompileError;
use crate::ir::{Dim, Graph, Name, Node, NodeId};
use crate::layout::{Layout, copies};
use crate::ops::{Input, Op, Output};
use terrace_plan::{Axis, BoxCopy, Coords};

/// The copies that compute a node, one list per operand, or `None` when a kernel or an exchange
/// does.
///
/// # Errors
/// Operand and result have no common raster.
pub(super) fn local_copies(
    graph: &Graph,
    id: NodeId,
    coords: Coords,
) -> Result<Option<Vec<Vec<BoxCopy>>>, CompileError> {
    let node = graph.node(id);
    let operands: Vec<&Node> = graph.operands(id).iter().map(|&o| graph.node(o)).collect();
    let part = |node| part(graph, node, coords);
    let lists = match &node.op {
        Op::Segment(_) => vec![between(node, &part(operands[0]), &part(node))?],
        Op::Take(take) => {
            let range = take.start..take.start + take.count;
            let taken = part(operands[0]).taking(&take.factor, range);
            vec![between(node, &part(operands[0]), &taken)?]
        }
        Op::Repeat(repeat) => {
            let once = part(node).repeating(&repeat.factor);
            vec![between(node, &once, &part(node))?]
        }
        Op::Concat(dim) => concat(node, &operands, &part(node), dim)?,
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
        | Op::Conv3d(_)
        | Op::ConvCache(_)
        | Op::GroupNorm(_)
        | Op::Upsample(_)
        | Op::Denoise(_)
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => return Ok(None),
    };
    Ok(Some(lists))
}

/// Each operand to its range of the first factor of `dim`.
fn concat(
    node: &Node,
    operands: &[&Node],
    part: &Layout,
    dim: &Name,
) -> Result<Vec<Vec<BoxCopy>>, CompileError> {
    let factor = node.ty.dim(dim).and_then(|d| d.factors().next());
    let name = factor.map_or(dim, |f| &f.name);
    let mut start = 0;
    let mut lists = Vec::with_capacity(operands.len());
    for operand in operands {
        let count = operand.ty.dim(dim).map_or(0, Dim::size);
        let placed = part.clone().taking(name, start..start + count);
        lists.push(between(node, &placed, part)?);
        start += count;
    }
    Ok(lists)
}

/// From the caller's tensor to the rank's part.
///
/// # Errors
/// The host layout and the node have no common raster.
pub(super) fn input_boxes(
    graph: &Graph,
    node: &Node,
    input: &Input,
    coords: Coords,
) -> Result<Vec<BoxCopy>, CompileError> {
    between(
        node,
        &Layout::whole(&input.host),
        &part(graph, node, coords),
    )
}

/// From the rank's part to the caller's tensor. Of ranks that hold the same part the first on each
/// axis delivers it.
///
/// # Errors
/// The node and the host layout have no common raster.
pub(super) fn output_boxes(
    graph: &Graph,
    node: &Node,
    output: &Output,
    coords: Coords,
) -> Result<Vec<BoxCopy>, CompileError> {
    let cuts = |axis| node.sharding.0.values().any(|p| p.axes.contains(&axis));
    if Axis::ALL.iter().any(|&a| !cuts(a) && coords.on(a) != 0) {
        return Ok(Vec::new());
    }
    between(
        node,
        &part(graph, node, coords),
        &Layout::whole(&output.host),
    )
}

fn part<'a>(graph: &Graph, node: &'a Node, coords: Coords) -> Layout<'a> {
    Layout::part(&node.ty.dims, &node.sharding, &graph.mesh, coords)
}

fn between(node: &Node, src: &Layout<'_>, dst: &Layout<'_>) -> Result<Vec<BoxCopy>, CompileError> {
    copies(src, dst).ok_or_else(|| CompileError::Layout {
        path: node.path.to_string(),
        from: src.to_string(),
        to: dst.to_string(),
    })
}
