//! choose-precision: matrix products, convolutions and attention take the element type asked for.
//!
//! A weight in 16 bits makes its product one of such numbers with f32 sums, one in 8 bits (i8, f8e4m3) a
//! product of such numbers with a scale for each row: a kernel whose other operand is wider rounds it on its
//! way in. Vectors and tables stay f32.
//!
//! Where 8 bits are asked for, they are taken by the products over the joint sequence, which is a dimension of
//! several segments: those of the transformer's blocks, nearly all of its work, each between a norm and a
//! sum that evens out what rounding does. All others take bf16: embeddings and the last projection see
//! the numbers of the model's ports, and those of the time step scale whole rows.
//!
//! Attention rounds to bf16 where bf16 or 8 bits are asked for, and else not at all. With a bias it never
//! does: such scores are not scaled, so that their rounding would move the softmax, and they are few.
//!
//! ```text
//! before  %1 = weight layout=linear from=["w" [8, 4]] : f32[o=8, i=4]
//!         %5 = attention %4 packed scale=0.5 : f32[...]
//! after   %1 = weight layout=linear from=["w" [8, 4]] : bf16[o=8, i=4]
//!         %5 = attention %4 packed scale=0.5 products=bf16 : f32[...]
//! ```
//!
//! Refuses element types for which there are no products.

use crate::ir::{Graph, NodeId};
use crate::ops::{Attention, Op, Presence, Weight};
use crate::{CompileError, CompileOptions};
use terrace_plan::{DType, WeightLayout};

/// Runs the pass.
///
/// # Errors
/// No product has the element type of the options.
pub fn run(graph: &mut Graph, options: &CompileOptions) -> Result<(), CompileError> {
    match options.dtype {
        DType::F32 | DType::F16 | DType::Bf16 | DType::I8 | DType::F8E4M3 => {}
        found @ DType::U32 => return Err(CompileError::Precision { found }),
    }
    for id in graph.order() {
        if let Some(op) = chosen(graph, id, options.dtype)
            && op != graph.node(id).op
        {
            let path = graph.node(id).path.clone();
            graph.substitute(id, op, &graph.operands(id), &path)?;
        }
    }
    Ok(())
}

/// What a node of products becomes.
fn chosen(graph: &Graph, id: NodeId, asked: DType) -> Option<Op> {
    if let Some(weight) = product_weight(graph, id) {
        let dtype = match asked {
            DType::I8 | DType::F8E4M3 if !joint(graph, id) => DType::Bf16,
            dtype => dtype,
        };
        let weight = weight.clone();
        return Some(Op::Weight(Weight { dtype, ..weight }));
    }
    let Op::Attention(attention) = &graph.node(id).op else {
        return None;
    };
    let products = match (asked, attention.bias) {
        (DType::Bf16 | DType::I8 | DType::F8E4M3, Presence::Absent) => DType::Bf16,
        (DType::Bf16 | DType::I8 | DType::F8E4M3, Presence::Present) => DType::F32,
        (DType::F32 | DType::F16 | DType::U32, _) => DType::F32,
    };
    Some(Op::Attention(Attention {
        products,
        ..attention.clone()
    }))
}

/// The node's weight when a product reads it.
fn product_weight(graph: &Graph, id: NodeId) -> Option<&Weight> {
    let Op::Weight(weight) = &graph.node(id).op else {
        return None;
    };
    match weight.layout {
        WeightLayout::Plain => None,
        WeightLayout::Linear | WeightLayout::Conv3d => Some(weight),
    }
}

/// Whether all users of a weight are products over rows of several segments.
fn joint(graph: &Graph, weight: NodeId) -> bool {
    graph.users(weight).into_iter().all(|user| {
        let node = graph.node(user);
        let mut rows = node.ty.dims.iter().rev().skip(1);
        matches!(node.op, Op::Linear(_)) && rows.any(|dim| dim.segments.len() > 1)
    })
}
