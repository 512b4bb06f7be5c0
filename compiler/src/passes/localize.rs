//! localize: the graph of one rank, every type cut down to the part that the rank holds.
//!
//! ```text
//! before  %1 = activate %0 silu : f32[b=2, seq=(txt=4 | t=1 h=2 w=4), c=8] @{h.w: ulysses[0 4 8], txt: ulysses[0 2 4]}
//! after   %1 = activate %0 silu : f32[b=2, seq=(txt=2 | t=1 h.w=4), c=8]
//! ```
//!
//! Node ids and the schedule are those of the global graph, so positions and collectives can be
//! compared between ranks.

use crate::ir::{Graph, Sharding, Stage};
use terrace_plan::Rank;

/// The graph of `rank`.
pub fn run(graph: &Graph, rank: Rank) -> Graph {
    let coords = graph.mesh.coords(rank);
    let mut local = graph.clone();
    local.stage = Stage::Local;
    for id in graph.order() {
        let node = graph.node(id);
        if !node.sharding.is_replicated() {
            local.set_type(id, node.sharding.localize(&node.ty, &graph.mesh, coords));
            local.set_sharding(id, Sharding::replicated());
        }
    }
    local
}
