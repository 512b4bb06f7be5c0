//! lower-attention: attention over rows that the ring cuts becomes explicit steps.
//!
//! Every rank starts with its own block of keys and values, then works on the block of the
//! neighbour before it, and so on around the ring. Each `ring_shift` depends on the one before it
//! alone, so it travels while the step before it computes.
//!
//! ```text
//! before  %1 = attention %0 packed scale=0.5 : f32[...] @{h.w: ring[0 4 8]}
//! after   %1 = attention_step %0 %0 first scale=0.5 : f32[.., c=(n=2 state=10)] @{h.w: ring[0 4 8]}
//!         %2 = ring_shift %0 axis=ring : f32[.., c=(kv=2 n=2 d=8)] @{h.w: ring[0 4 8]>>1}
//!         %3 = attention_step %0 %2 %1 next scale=0.5 : f32[...] @{h.w: ring[0 4 8]}
//!         %4 = attention_finish %3 : f32[...] @{h.w: ring[0 4 8]}
//! ```
//!
//! The running state is f32, whatever the activations are.
//!
//! Refuses attention whose queries, keys and values are not packed, or that has a bias.

use crate::ir::{Graph, NodeId, Sharding};
use crate::ops::{Attention, AttentionStep, Op, Packing, Presence, RingShift};
use crate::{CompileError, CompileOptions};
use terrace_plan::{Axis, Stage};

/// Runs the pass.
///
/// # Errors
/// An attention cannot be cut into ring steps.
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if let Op::Attention(attention) = graph.node(id).op.clone()
            && on_ring(&graph.node(id).sharding)
        {
            lower(graph, id, &attention)?;
        }
    }
    Ok(())
}

fn on_ring(sharding: &Sharding) -> bool {
    sharding.0.values().any(|p| p.axes.contains(&Axis::Ring))
}

fn lower(graph: &mut Graph, id: NodeId, attention: &Attention) -> Result<(), CompileError> {
    let node = graph.node(id).clone();
    if attention.packing != Packing::Packed || attention.bias == Presence::Present {
        return Err(CompileError::Unshardable {
            op: node.op.name(),
            path: node.path.to_string(),
            sharding: node.sharding.to_string(),
        });
    }
    let qkv = graph.operands(id)[0];
    let cut = graph.node(qkv).sharding.clone();
    let &Attention {
        scale, products, ..
    } = attention;
    let mut kv = qkv;
    let mut state = None;
    for turn in 0..graph.mesh.ring {
        if turn > 0 {
            let shift = Op::RingShift(RingShift { axis: Axis::Ring });
            kv = graph.add(shift, &[kv], &node.path)?;
            graph.set_sharding(kv, travelled(&cut, turn));
        }
        let (stage, operands) = match state {
            None => (Stage::First, vec![qkv, kv]),
            Some(state) => (Stage::Next, vec![qkv, kv, state]),
        };
        let step = graph.add(
            Op::AttentionStep(AttentionStep {
                scale,
                products,
                stage,
            }),
            &operands,
            &node.path,
        )?;
        graph.set_sharding(step, node.sharding.clone());
        state = Some(step);
    }
    if let Some(state) = state {
        let finish = Op::AttentionFinish(node.ty.dtype);
        let finish = graph.add(finish, &[state], &node.path)?;
        graph.set_sharding(finish, node.sharding);
        graph.replace_uses(id, finish);
        graph.erase(id)?;
    }
    Ok(())
}

/// The cut of blocks that have moved `turns` positions along the ring.
fn travelled(cut: &Sharding, turns: usize) -> Sharding {
    let mut cut = cut.clone();
    for partition in cut.0.values_mut() {
        if partition.axes.contains(&Axis::Ring) {
            partition.shift = turns;
        }
    }
    cut
}
