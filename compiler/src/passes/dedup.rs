//! dedup: equal ops of equal operands are computed once.
//!
//! Weights, position tables and noise are numbered like everything else; the caller's ports alone
//! are never merged.
//!
//! ```text
//! before  %1 = activate %0 silu : f32[b=1, c=8]
//!         %2 = activate %0 silu : f32[b=1, c=8]
//! after   %1 = activate %0 silu : f32[b=1, c=8]   (users of %2 use it)
//! ```
//!
//! The first of the equal nodes keeps its path.

use crate::ir::{Graph, NodeId};
use crate::ops::Op;
use crate::{CompileError, CompileOptions};
use std::collections::BTreeMap;

/// What nodes that may be equal have in common; the attributes are compared after that.
type Key = (&'static str, Vec<NodeId>, String);

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::erase`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    let mut known: BTreeMap<Key, Vec<NodeId>> = BTreeMap::new();
    for id in graph.order() {
        let Some(key) = key(graph, id) else { continue };
        let alike = known.entry(key).or_default();
        let op = &graph.node(id).op;
        match alike.iter().find(|&&other| graph.node(other).op == *op) {
            Some(&first) => {
                graph.replace_uses(id, first);
                graph.erase(id)?;
            }
            None => alike.push(id),
        }
    }
    Ok(())
}

fn key(graph: &Graph, id: NodeId) -> Option<Key> {
    let op = &graph.node(id).op;
    if matches!(op, Op::Input(_) | Op::Output(_)) {
        return None;
    }
    // Without its name every weight would be compared with every other.
    let mut stored = String::new();
    if let Op::Weight(weight) = op
        && let Some(source) = weight.sources.first()
    {
        stored.clone_from(&source.name);
    }
    Some((op.name(), graph.operands(id), stored))
}
