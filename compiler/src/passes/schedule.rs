//! schedule: fixes one order of execution, the same on every rank.
//!
//! Operands come right before their users, the running state of an attention before the block
//! that joins it, and a collective is issued before the computation that does not need it: a ring
//! shift travels during the attention step before it. Only one computation is overtaken, so at
//! most two blocks of keys and values are alive. The frames that a convolution keeps for the next
//! batch are copied as soon as they are there, so that the whole batch need not stay. What depends on
//! no input is computed once per session, before the first call.
//!
//! ```text
//! before  attention_step 0, ring_shift 1, attention_step 1, ring_shift 2, attention_step 2
//! after   ring_shift 1, attention_step 0, ring_shift 2, attention_step 1, attention_step 2
//! ```

use crate::ir::{Graph, NodeId, Phase};
use crate::ops::Op;
use crate::{CompileError, CompileOptions};
use std::collections::BTreeSet;

/// Runs the pass.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    let mut order = depth_first(graph);
    issue_early(graph, &mut order);
    assign_phases(graph, &order);
    graph.set_schedule(order);
    Ok(())
}

/// Operands come before users in `order`, so one walk finds everything that an input reaches.
fn assign_phases(graph: &mut Graph, order: &[NodeId]) {
    for &id in order {
        let operands = graph.operands(id);
        let constant = !matches!(graph.node(id).op, Op::Input(_) | Op::Output(_))
            && operands.iter().all(|&o| graph.node(o).phase == Phase::Init);
        graph.set_phase(id, if constant { Phase::Init } else { Phase::Step });
    }
}

/// Post-order from the outputs; nodes that reach no output follow, in order of id.
fn depth_first(graph: &Graph) -> Vec<NodeId> {
    let all = {
        let mut ids = graph.order();
        ids.sort_unstable();
        ids
    };
    let (outputs, rest): (Vec<NodeId>, Vec<NodeId>) = all
        .into_iter()
        .partition(|&id| matches!(graph.node(id).op, Op::Output(_)));
    let mut done = BTreeSet::new();
    let mut order = Vec::new();
    for root in outputs.into_iter().chain(rest) {
        let mut stack = vec![(root, false)];
        while let Some((id, expanded)) = stack.pop() {
            if expanded {
                if done.insert(id) {
                    order.push(id);
                    keep_frames(graph, id, &mut done, &mut order);
                }
            } else if !done.contains(&id) {
                stack.push((id, true));
                stack.extend(
                    visiting_order(graph, id)
                        .into_iter()
                        .rev()
                        .map(|o| (o, false)),
                );
            }
        }
    }
    order
}

/// Schedules the conv caches of `id` whose other operands are there.
fn keep_frames(graph: &Graph, id: NodeId, done: &mut BTreeSet<NodeId>, order: &mut Vec<NodeId>) {
    for user in graph.users(id) {
        let ready = matches!(graph.node(user).op, Op::ConvCache(_))
            && graph.operands(user).iter().all(|o| done.contains(o));
        if ready && done.insert(user) {
            order.push(user);
        }
    }
}

/// Operands in the order in which they are computed.
fn visiting_order(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    let mut operands = graph.operands(id);
    if matches!(graph.node(id).op, Op::AttentionStep(_)) {
        operands.reverse();
    }
    operands
}

fn issue_early(graph: &Graph, order: &mut [NodeId]) {
    for at in 1..order.len() {
        let (before, id) = (order[at - 1], order[at]);
        let overtakes = graph.node(id).op.is_collective()
            && matches!(graph.node(before).op, Op::AttentionStep(_))
            && !graph.operands(id).contains(&before);
        if overtakes {
            order.swap(at - 1, at);
        }
    }
}
