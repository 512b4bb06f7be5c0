//! fuse-qkv: the three products that make queries, keys and values become one.
//!
//! ```text
//! before  %2 = linear %0 %1 out=[c=(n=2 d=4)] : f32[.., c=(n=2 d=4)]   ; attn1.to_q
//!         %4 = linear %0 %3 out=[c=(n=2 d=4)] : f32[.., c=(n=2 d=4)]   ; attn1.to_k
//!         %6 = linear %0 %5 out=[c=(n=2 d=4)] : f32[.., c=(n=2 d=4)]   ; attn1.to_v
//!         %7 = attention %2 %4 %6 separate scale=0.5 : f32[.., c=(n=2 d=4)]
//! after   %1 = weight layout=linear from=["to_q" [8, 8], "to_k" [8, 8], "to_v" [8, 8]] : f32[o=24, i=8]
//!         %2 = linear %0 %1 out=[c=(qkv=3 n=2 d=4)] : f32[.., c=(qkv=3 n=2 d=4)]   ; attn1
//!         %3 = take %2 qkv start=0 count=1 : f32[.., c=(n=2 d=4)]   ; attn1.to_q
//!         ... keys and values alike
//!         %6 = attention %3 %4 %5 separate scale=0.5 : f32[.., c=(n=2 d=4)]
//! ```
//!
//! The takes go when fuse-qk-norm-rope has what stands between them and attention work on the
//! packed tensor. Products of different inputs or head counts, or of which some have a bias and
//! others not, are left alone.

use super::joint_linear;
use crate::ir::{Dim, Factor, Graph, NodeId, Segment};
use crate::ops::{LinearEpilogue, Op, Packing, Take};
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if let Op::Attention(attention) = &graph.node(id).op
            && attention.packing == Packing::Separate
            && let Some(products) = products(graph, id)
        {
            fuse(graph, products)?;
        }
    }
    Ok(())
}

/// The products that queries, keys and values come from, when one product can make all three.
fn products(graph: &Graph, attention: NodeId) -> Option<[NodeId; 3]> {
    let operands = graph.operands(attention);
    let ids: Vec<NodeId> = operands.iter().take(3).map(|&o| origin(graph, o)).collect();
    let ids: [NodeId; 3] = ids.try_into().ok()?;
    let first = joint_linear::linear(graph, ids[0])?;
    let input = graph.operands(ids[0])[0];
    let alike = ids.iter().all(|&id| {
        joint_linear::linear(graph, id) == Some(first) && graph.operands(id)[0] == input
    });
    let distinct = ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2];
    (alike
        && distinct
        && first.epilogue == LinearEpilogue::None
        && packed_heads(&first.out).is_some())
    .then_some(ids)
}

/// What is normalised and turned before it reaches attention.
fn origin(graph: &Graph, mut id: NodeId) -> NodeId {
    while matches!(graph.node(id).op, Op::HeadNorm(_) | Op::Rope(_)) {
        id = graph.operands(id)[0];
    }
    id
}

/// `c=(qkv=3 n d)` of `c=(n d)`.
fn packed_heads(out: &Dim) -> Option<Dim> {
    let [Segment { factors }] = out.segments.as_slice() else {
        return None;
    };
    let [n, d] = factors.as_slice() else {
        return None;
    };
    let factors = vec![Factor::new("qkv", 3), n.clone(), d.clone()];
    Some(Dim::sum("c", vec![Segment { factors }]))
}

fn fuse(graph: &mut Graph, products: [NodeId; 3]) -> Result<(), CompileError> {
    let out = joint_linear::linear(graph, products[0]).and_then(|l| packed_heads(&l.out));
    let Some(out) = out else { return Ok(()) };
    let Some(packed) = joint_linear::add(graph, &products, out)? else {
        return Ok(());
    };
    for (part, product) in products.into_iter().enumerate() {
        let take = Op::Take(Take {
            factor: "qkv".into(),
            start: part,
            count: 1,
        });
        let path = graph.node(product).path.clone();
        graph.substitute(product, take, &[packed], &path)?;
    }
    Ok(())
}
