//! fuse-modulate: a norm and the modulation of its result become one.
//!
//! ```text
//! before  %2 = norm %0 kind=layer eps=1e-5 affine=none : f32[b=1, seq=(txt=2), c=8]
//!         %3 = modulate %2 %1 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]
//! after   %2 = norm %0 %1 kind=layer eps=1e-5 affine=none chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]
//! ```
//!
//! A norm that something else uses too is left alone.

use crate::ir::{Graph, NodeId};
use crate::ops::{Norm, Op};
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if let Some((op, operands, path)) = fused(graph, id) {
            graph.substitute(id, op, &operands, &path)?;
        }
    }
    Ok(())
}

fn fused(graph: &Graph, id: NodeId) -> Option<(Op, Vec<NodeId>, String)> {
    let Op::Modulate(chunks) = &graph.node(id).op else {
        return None;
    };
    let operands = graph.operands(id);
    let (norm, mods) = (operands[0], operands[1]);
    let Op::Norm(Norm {
        kind,
        modulate: None,
    }) = graph.node(norm).op
    else {
        return None;
    };
    if graph.uses(norm) != 1 {
        return None;
    }
    let op = Op::Norm(Norm {
        kind,
        modulate: Some(chunks.clone()),
    });
    let mut operands = graph.operands(norm);
    operands.push(mods);
    Some((op, operands, graph.node(norm).path.to_string()))
}
