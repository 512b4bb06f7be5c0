//! cast-activations: the tensors between products take the element type asked for.
//!
//! Every activation that an op reads is cast where it is made in another type: the caller's tensors,
//! embeddings and tables are f32 and stay so. What the caller gets and what the scheduler computes is
//! cast back. Weights keep the types that choose-precision gave them.
//!
//! ```text
//! before  %1 = linear %0 %2 out=[c=8] : f32[b=1, c=8]
//!         %3 = output %1 "y" host=[b=1, c=8] : f32[b=1, c=8]
//! after   %1 = cast %0 to=bf16 : bf16[b=1, c=4]
//!         %3 = linear %1 %2 out=[c=8] : bf16[b=1, c=8]
//!         %4 = cast %3 to=f32 : f32[b=1, c=8]
//!         %5 = output %4 "y" host=[b=1, c=8] : f32[b=1, c=8]
//! ```
//!
//! Refuses element types that are not floating.

use crate::ir::{Graph, NodeId};
use crate::ops::{Op, Presence, infer};
use crate::{CompileError, CompileOptions};
use std::collections::BTreeMap;
use terrace_plan::DType;

/// Runs the pass.
///
/// # Errors
/// The element type is not floating.
pub fn run(graph: &mut Graph, options: &CompileOptions) -> Result<(), CompileError> {
    let activations = options.activations;
    if !activations.is_floating() {
        return Err(CompileError::Activations { found: activations });
    }
    let mut casts = BTreeMap::new();
    for id in graph.order() {
        let op = graph.node(id).op.clone();
        let mut operands = graph.operands(id);
        for port in 0..operands.len() {
            let wanted = match takes(&op, port, port + 1 == operands.len()) {
                Takes::Activation => activations,
                Takes::Single => DType::F32,
                Takes::Any => continue,
            };
            operands[port] = cast(graph, &mut casts, operands[port], wanted)?;
            graph.replace_operand(id, port, operands[port]);
        }
        retype(graph, id, op, &operands)?;
    }
    Ok(())
}

/// Makes the node again when its operands give it another type.
fn retype(graph: &mut Graph, id: NodeId, op: Op, operands: &[NodeId]) -> Result<(), CompileError> {
    let types: Vec<_> = operands.iter().map(|&o| &graph.node(o).ty).collect();
    let path = graph.node(id).path.clone();
    let ty = infer(&op, &types).map_err(|error| error.at(&op, &path))?;
    if ty != graph.node(id).ty {
        graph.substitute(id, op, operands, &path)?;
    }
    Ok(())
}

/// The node itself, or its cast, made once.
fn cast(
    graph: &mut Graph,
    casts: &mut BTreeMap<(NodeId, DType), NodeId>,
    id: NodeId,
    wanted: DType,
) -> Result<NodeId, CompileError> {
    let node = graph.node(id);
    let weight = matches!(node.op, Op::Weight(_));
    if weight || node.ty.dtype == wanted || !node.ty.dtype.is_floating() {
        return Ok(id);
    }
    if let Some(&cast) = casts.get(&(id, wanted)) {
        return Ok(cast);
    }
    let path = node.path.clone();
    let cast = graph.add(Op::Cast(wanted), &[id], &path)?;
    casts.insert((id, wanted), cast);
    Ok(cast)
}

/// What an op takes at a port that is not a weight.
enum Takes {
    /// An activation.
    Activation,
    /// f32.
    Single,
    /// Whatever the operand is.
    Any,
}

/// `last`: whether the op has no operand after this one.
fn takes(op: &Op, port: usize, last: bool) -> Takes {
    match op {
        Op::Output(_) | Op::Denoise(_) | Op::Advance(_) => Takes::Single,
        // Tables of positions.
        Op::Rope(_) | Op::QkNormRope(_) if port > 0 => Takes::Single,
        Op::Join(_) if port > 1 => Takes::Single,
        // Added to scores, which are sums.
        Op::Attention(a) if a.bias == Presence::Present && last => Takes::Single,
        Op::Linear(_)
        | Op::Norm(_)
        | Op::Modulate(_)
        | Op::Residual(_)
        | Op::HeadNorm(_)
        | Op::Rope(_)
        | Op::QkNormRope(_)
        | Op::Attention(_)
        | Op::Activate(_)
        | Op::GatedGelu
        | Op::Join(_)
        | Op::Concat(_)
        | Op::Conv3d(_)
        | Op::ConvCache(_)
        | Op::GroupNorm(_) => Takes::Activation,
        Op::Input(_)
        | Op::Weight(_)
        | Op::AttentionStep(_)
        | Op::AttentionFinish(_)
        | Op::Cast(_)
        | Op::Embedding(_)
        | Op::RelativeBias(_)
        | Op::TimestepEmbedding(_)
        | Op::PositionTable(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Repeat(_)
        | Op::Upsample(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => Takes::Any,
    }
}
