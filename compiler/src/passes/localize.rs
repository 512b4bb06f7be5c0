//! localize: what one rank holds, every type cut down to its part.
//!
//! ```text
//! before  %1 = activate %0 silu : f32[b=2, seq=(txt=4 | t=1 h=2 w=4), c=8] @{h.w: ulysses[0 4 8], txt: ulysses[0 2 4]}
//! after   %1 = activate %0 silu : f32[b=2, seq=(txt=2 | t=1 h.w=4), c=8] @{}
//! ```
//!
//! Node ids and the schedule are those of the global graph, so positions and collectives can be
//! compared between ranks. Few pairs of type and cut occur, however many nodes there are, so
//! [`Parts`] cuts each pair once per rank; [`run`] makes a graph of it for those who want to see.

use crate::ir::{Graph, NodeId, Sharding, Stage, Type};
use std::collections::BTreeMap;
use terrace_plan::Rank;

/// The distinct pairs of type and cut in a graph.
pub struct Parts<'a> {
    graph: &'a Graph,
    distinct: Vec<(&'a Type, &'a Sharding)>,
    pairs: BTreeMap<NodeId, usize>,
}

/// The types that one rank holds.
pub struct Local<'a> {
    parts: &'a Parts<'a>,
    types: Vec<Type>,
}

/// The graph of `rank`.
pub fn run(graph: &Graph, rank: Rank) -> Graph {
    let parts = Parts::of(graph);
    let types = parts.at(rank);
    let mut local = graph.clone();
    local.stage = Stage::Local;
    for id in graph.ids() {
        local.set_type(id, types.ty(id).clone());
        local.set_sharding(id, Sharding::replicated());
    }
    local
}

impl<'a> Parts<'a> {
    /// Collects the pairs of a graph.
    pub fn of(graph: &'a Graph) -> Self {
        let mut known = BTreeMap::new();
        let mut distinct = Vec::new();
        let mut pairs = BTreeMap::new();
        for id in graph.ids() {
            let node = graph.node(id);
            let pair = (&node.ty, &node.sharding);
            let index = *known.entry(pair).or_insert_with(|| {
                distinct.push(pair);
                distinct.len() - 1
            });
            pairs.insert(id, index);
        }
        Self {
            graph,
            distinct,
            pairs,
        }
    }

    /// What `rank` holds.
    pub fn at(&self, rank: Rank) -> Local<'_> {
        let mesh = &self.graph.mesh;
        let coords = mesh.coords(rank);
        let cut = |(ty, sharding): &(&Type, &Sharding)| sharding.localize(ty, mesh, coords);
        Local {
            parts: self,
            types: self.distinct.iter().map(cut).collect(),
        }
    }
}

impl Local<'_> {
    /// Type of the part of a node of the graph that the rank holds.
    pub fn ty(&self, id: NodeId) -> &Type {
        &self.types[self.parts.pairs[&id]]
    }
}
