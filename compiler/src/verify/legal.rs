//! The ops of each stage, and the forms in which they are legal.

use super::{Fault, Found};
use crate::ir::{Graph, NodeId, Stage};
use crate::ops::{Attention, LinearEpilogue, Op, Packing};
use terrace_plan::Axis;

pub(super) fn check(graph: &Graph, stage: Stage, found: &mut Found) {
    for id in graph.ids() {
        if let Err(reason) = legal(graph, id, stage) {
            found.at(id, Fault::Illegal { reason });
        }
    }
}

fn legal(graph: &Graph, id: NodeId, stage: Stage) -> Result<(), &'static str> {
    let node = graph.node(id);
    match &node.op {
        Op::QkNormRope(_) => from(Stage::Fused, stage, "qk_norm_rope is a fused op"),
        Op::Norm(norm) if norm.modulate.is_some() => {
            from(Stage::Fused, stage, "a modulated norm is a fused op")
        }
        Op::Linear(linear) if linear.epilogue != LinearEpilogue::None => from(
            Stage::Fused,
            stage,
            "a linear with an epilogue is a fused op",
        ),
        Op::Attention(attention) => legal_attention(graph, id, attention, stage),
        Op::AttentionStep(_) | Op::AttentionFinish(_) | Op::RingShift(_) => {
            from(Stage::Sharded, stage, "the steps of a ring need cuts")
        }
        Op::Reshard(_) if stage > Stage::Sharded => Err("reshards are lowered to collectives"),
        Op::Reshard(_) => from(Stage::Sharded, stage, "reshards need cuts"),
        Op::AllToAll(_) | Op::AllGather(_) => {
            from(Stage::Comm, stage, "reshards stand for collectives")
        }
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Linear(_)
        | Op::Norm(_)
        | Op::Modulate(_)
        | Op::Residual(_)
        | Op::HeadNorm(_)
        | Op::Rope(_)
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
        | Op::Noise(_) => Ok(()),
    }
}

fn from(first: Stage, stage: Stage, reason: &'static str) -> Result<(), &'static str> {
    if stage >= first { Ok(()) } else { Err(reason) }
}

/// Attention over rows cut by the ring is lowered to steps, which only packed attention can be.
fn legal_attention(
    graph: &Graph,
    id: NodeId,
    attention: &Attention,
    stage: Stage,
) -> Result<(), &'static str> {
    if attention.packing == Packing::Packed && stage < Stage::Fused {
        return Err("packed attention is a fused op");
    }
    let cut_by_ring = |node: NodeId| {
        let cuts = &graph.node(node).sharding.0;
        cuts.values().any(|p| p.axes.contains(&Axis::Ring))
    };
    if stage >= Stage::Comm && (cut_by_ring(id) || graph.operands(id).into_iter().any(cut_by_ring))
    {
        return Err("attention over rows cut by the ring is lowered to steps");
    }
    Ok(())
}
