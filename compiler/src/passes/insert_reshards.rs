//! insert-reshards: where an op needs another cut of an operand than the operand has, a `reshard`
//! node goes between them.
//!
//! ```text
//! before  %2 = attention %1 packed scale=0.5 : f32[...] @{h.w: ring[..], n: ulysses[0 3 6]}
//! after   %2 = reshard %1 : f32[...] @{h.w: ring[..], n: ulysses[0 3 6]}
//!         %3 = attention %2 packed scale=0.5 : f32[...] @{h.w: ring[..], n: ulysses[0 3 6]}
//! ```
//!
//! Correctness only: equal cuts get no node, everything else is left to elide-reshards.

use crate::ir::{Graph, NodeId, Sharding, Type};
use crate::ops::{self, Op};
use crate::{CompileError, CompileOptions};
use std::collections::BTreeMap;

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    let mut made: BTreeMap<(NodeId, Sharding), NodeId> = BTreeMap::new();
    for id in graph.order() {
        if matches!(graph.node(id).op, Op::Reshard(_)) {
            continue;
        }
        for (port, operand, needed) in mismatches(graph, id) {
            let key = (operand, needed.clone());
            let reshard = match made.get(&key) {
                Some(&node) => node,
                None => {
                    let path = graph.node(operand).path.clone();
                    let node = graph.add(Op::Reshard(needed.clone()), &[operand], &path)?;
                    graph.set_sharding(node, needed);
                    made.insert(key, node);
                    node
                }
            };
            graph.replace_operand(id, port, reshard);
        }
    }
    Ok(())
}

/// Operands whose cut is not the one that the op needs.
fn mismatches(graph: &Graph, id: NodeId) -> Vec<(usize, NodeId, Sharding)> {
    let node = graph.node(id);
    let operands = graph.operands(id);
    let types: Vec<&Type> = operands.iter().map(|&o| &graph.node(o).ty).collect();
    let rule = ops::rule(&node.op, &types, &node.ty, &graph.slices);
    operands
        .iter()
        .zip(rule.operands)
        .enumerate()
        .filter(|(_, (operand, needed))| graph.node(**operand).sharding != *needed)
        .map(|(port, (&operand, needed))| (port, operand, needed))
        .collect()
}
