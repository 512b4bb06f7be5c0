//! choose-precision: weights of matrix products and convolutions take the element type asked for.
//!
//! A weight in bf16 makes its product one of bf16 numbers with f32 sums: the kernel rounds the other
//! operand on its way in. Vectors and tables stay f32, as does everything between the products.
//!
//! ```text
//! before  %1 = weight layout=linear from=["w" [8, 4]] : f32[o=8, i=4]
//! after   %1 = weight layout=linear from=["w" [8, 4]] : bf16[o=8, i=4]
//! ```
//!
//! Refuses element types for which there are no products.

use crate::ir::{Graph, NodeId};
use crate::ops::{Op, Weight};
use crate::{CompileError, CompileOptions};
use terrace_plan::{DType, WeightLayout};

/// Runs the pass.
///
/// # Errors
/// No product has the element type of the options.
pub fn run(graph: &mut Graph, options: &CompileOptions) -> Result<(), CompileError> {
    match options.dtype {
        DType::F32 | DType::Bf16 => {}
        found @ (DType::F16 | DType::U32) => return Err(CompileError::Precision { found }),
    }
    for id in graph.order() {
        if let Some(weight) = product_weight(graph, id)
            && weight.dtype != options.dtype
        {
            let weight = Weight {
                dtype: options.dtype,
                ..weight.clone()
            };
            let path = graph.node(id).path.clone();
            graph.substitute(id, Op::Weight(weight), &[], &path)?;
        }
    }
    Ok(())
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
