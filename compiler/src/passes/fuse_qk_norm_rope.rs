//! fuse-qk-norm-rope: norms of heads and rotary positions of queries and keys work on the packed
//! tensor, in one go.
//!
//! ```text
//! before  %2 = take %0 qkv start=0 count=1 : f32[.., c=(n=2 d=4)]
//!         %3 = head_norm %2 kind=layer eps=1e-6 affine=none : f32[.., c=(n=2 d=4)]
//!         %4 = rope %3 %1 : f32[.., c=(n=2 d=4)]
//!         ... keys alike; values are only taken
//!         %9 = attention %4 %7 %8 separate scale=0.5 : f32[.., c=(n=2 d=4)]
//! after   %2 = qk_norm_rope %0 %1 kind=layer eps=1e-6 affine=none rope : f32[.., c=(qkv=3 n=2 d=4)]
//!         %3 = attention %2 packed scale=0.5 : f32[.., c=(n=2 d=4)]
//! ```
//!
//! With nothing in between, attention reads the packed tensor as it is. Queries and keys must be
//! prepared alike: the same norm or none, the same table or none. RMS
//! norms of heads have no fused kernel and are left alone.

use crate::ir::{Graph, NodeId};
use crate::ops::{Attention, NormKind, Op, Packing, Presence, QkNormRope};
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if let Op::Attention(attention) = graph.node(id).op.clone()
            && attention.packing == Packing::Separate
            && let Some(prepared) = prepared(graph, id)
        {
            fuse(graph, id, attention, prepared)?;
        }
    }
    Ok(())
}

fn fuse(
    graph: &mut Graph,
    id: NodeId,
    attention: Attention,
    prepared: Prepared,
) -> Result<(), CompileError> {
    let path = graph.node(id).path.clone();
    let qkv = match prepared {
        Prepared::Whole(packed) => packed,
        Prepared::Fused(op, operands) => graph.add(Op::QkNormRope(op), &operands, &path)?,
    };
    let bias = graph.operands(id).into_iter().skip(3);
    let operands: Vec<NodeId> = std::iter::once(qkv).chain(bias).collect();
    let attention = Op::Attention(Attention {
        packing: Packing::Packed,
        ..attention
    });
    graph.substitute(id, attention, &operands, &path)?;
    Ok(())
}

/// What packed attention reads.
enum Prepared {
    /// The packed tensor as it is.
    Whole(NodeId),
    /// An op on the packed tensor, its first operand.
    Fused(QkNormRope, Vec<NodeId>),
}

/// How queries or keys are made of a part of the packed tensor.
struct Chain {
    norm: Option<NormKind>,
    table: Option<NodeId>,
    packed: NodeId,
    /// Operands of the norm; those of queries and keys differ.
    weights: Vec<NodeId>,
}

fn prepared(graph: &Graph, attention: NodeId) -> Option<Prepared> {
    let operands = graph.operands(attention);
    let queries = chain(graph, operands[0], 0)?;
    let keys = chain(graph, operands[1], 1)?;
    let packed = part(graph, operands[2], 2)?;
    let alike = queries.norm == keys.norm
        && queries.table == keys.table
        && queries.packed == packed
        && keys.packed == packed;
    if !alike || matches!(queries.norm, Some(NormKind::Rms { .. })) {
        return None;
    }
    if queries.norm.is_none() && queries.table.is_none() {
        return Some(Prepared::Whole(packed));
    }
    let op = QkNormRope {
        norm: queries.norm,
        rope: queries
            .table
            .map_or(Presence::Absent, |_| Presence::Present),
    };
    let mut fused = vec![packed];
    fused.extend(queries.weights);
    fused.extend(keys.weights);
    fused.extend(queries.table);
    Some(Prepared::Fused(op, fused))
}

/// Follows `take -> head_norm? -> rope?` backwards; what stands between has no other user.
fn chain(graph: &Graph, end: NodeId, index: usize) -> Option<Chain> {
    let mut at = end;
    let mut table = None;
    if matches!(graph.node(at).op, Op::Rope(_)) && graph.uses(at) == 1 {
        let operands = graph.operands(at);
        table = Some(operands[1]);
        at = operands[0];
    }
    let mut norm = None;
    let mut weights = Vec::new();
    if let Op::HeadNorm(kind) = &graph.node(at).op
        && graph.uses(at) == 1
    {
        norm = Some(*kind);
        weights = graph.operands(at).split_off(1);
        at = graph.operands(at)[0];
    }
    Some(Chain {
        norm,
        table,
        packed: part(graph, at, index)?,
        weights,
    })
}

/// The packed tensor of which `id` is the part `index`.
fn part(graph: &Graph, id: NodeId, index: usize) -> Option<NodeId> {
    let Op::Take(take) = &graph.node(id).op else {
        return None;
    };
    let whole = &*take.factor == "qkv" && (take.start, take.count) == (index, 1);
    whole.then(|| graph.operands(id)[0])
}
