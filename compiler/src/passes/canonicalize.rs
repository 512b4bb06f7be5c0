//! canonicalize: movements that move nothing go, takes of takes become one.
//!
//! ```text
//! before  %1 = take %0 c start=2 count=4 : f32[b=1, c=4]
//!         %2 = take %1 c start=1 count=2 : f32[b=1, c=2]
//!         %3 = repeat %2 b count=1 : f32[b=1, c=2]
//! after   %1 = take %0 c start=3 count=2 : f32[b=1, c=2]
//! ```
//!
//! Every later pass may rely on it: a take, repeat, segment or concatenation that is left changes
//! the type.

use crate::ir::{Graph, NodeId};
use crate::ops::{Op, Take};
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        let operands = graph.operands(id);
        if let Some((op, source)) = joined_take(graph, id) {
            let path = graph.node(id).path.clone();
            graph.substitute(id, op, &[source], &path)?;
        } else if moves_nothing(graph, id, &operands) {
            graph.replace_uses(id, operands[0]);
            graph.erase_unused(id);
        }
    }
    Ok(())
}

/// A take of a take of the same factor, as a take of what the first one takes from.
fn joined_take(graph: &Graph, id: NodeId) -> Option<(Op, NodeId)> {
    let Op::Take(outer) = &graph.node(id).op else {
        return None;
    };
    let between = *graph.operands(id).first()?;
    let Op::Take(inner) = &graph.node(between).op else {
        return None;
    };
    let take = Take {
        factor: outer.factor.clone(),
        start: inner.start + outer.start,
        count: outer.count,
    };
    let source = *graph.operands(between).first()?;
    (inner.factor == outer.factor).then_some((Op::Take(take), source))
}

fn moves_nothing(graph: &Graph, id: NodeId, operands: &[NodeId]) -> bool {
    let node = graph.node(id);
    let moves = matches!(
        node.op,
        Op::Segment(_) | Op::Take(_) | Op::Concat(_) | Op::Repeat(_)
    );
    moves && operands.len() == 1 && graph.node(operands[0]).ty == node.ty
}
