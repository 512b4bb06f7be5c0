//! elide-reshards: removes reshards that change nothing and joins those in a row.
//!
//! ```text
//! before  %2 = reshard %1 : f32[...] @{n: ulysses[0 3 6]}
//!         %3 = reshard %2 : f32[...] @{h.w: ulysses[0 4 8]}
//! after   (users of %3 use %1, which is cut like %3)
//! ```

use crate::ir::{Graph, NodeId};
use crate::ops::Op;
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::erase`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if !is_reshard(graph, id) {
            continue;
        }
        let mut source = graph.operands(id)[0];
        while is_reshard(graph, source) {
            source = graph.operands(source)[0];
        }
        graph.replace_operand(id, 0, source);
        if graph.node(source).sharding == graph.node(id).sharding {
            graph.replace_uses(id, source);
        }
    }
    for id in graph.order().into_iter().rev() {
        if is_reshard(graph, id) && graph.users(id).is_empty() {
            graph.erase(id)?;
        }
    }
    Ok(())
}

fn is_reshard(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.node(id).op, Op::Reshard(_))
}
