//! propagate-sharding: gives every node the cut that its op's rule derives from the slices.
//!
//! ```text
//! before  %1 = norm %0 kind=layer eps=1e-5 : f32[b=1, seq=(txt=4 | t=1 h=2 w=4), c=8]
//! after   %1 = norm %0 kind=layer eps=1e-5 : f32[b=1, seq=(txt=4 | t=1 h=2 w=4), c=8] @{h.w: ulysses[0 4 8], txt: ulysses[0 2 4]}
//! ```
//!
//! Refuses ops that would need the neighbours of a part (convolutions, statistics over pixels) on
//! a cut tensor, and takes and concatenations along a cut factor.

use crate::ir::{Graph, Node, Type};
use crate::ops::{self, Op, Rule};
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// An op cannot work on the parts that the slices give it.
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        let node = graph.node(id);
        let operands = graph.operands(id);
        let types: Vec<&Type> = operands.iter().map(|&o| &graph.node(o).ty).collect();
        let rule = ops::rule(&node.op, &types, &node.ty, &graph.slices);
        check(node, &rule)?;
        graph.set_sharding(id, rule.result);
    }
    Ok(())
}

fn check(node: &Node, rule: &Rule) -> Result<(), CompileError> {
    let cuts = || rule.operands.iter().chain([&rule.result]);
    let illegal = match &node.op {
        Op::GroupNorm(_) | Op::Conv3d(_) | Op::ConvCache(_) | Op::Upsample(_) => {
            cuts().find(|cut| !cut.is_replicated())
        }
        Op::Take(take) => cuts().find(|cut| cut.cutting(&take.factor).is_some()),
        Op::Concat(dim) => cuts().find(|cut| cut.cutting(dim).is_some()),
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
        | Op::Repeat(_)
        | Op::Denoise(_)
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_)
        | Op::AllToAll(_)
        | Op::AllGather(_)
        | Op::RingShift(_) => None,
    };
    match illegal {
        None => Ok(()),
        Some(cut) => Err(CompileError::Unshardable {
            op: node.op.name(),
            path: node.path.to_string(),
            sharding: cut.to_string(),
        }),
    }
}
