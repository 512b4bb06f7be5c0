//! The graph: typed nodes, operands ordered by port, deterministic iteration.
//!
//! Nodes change only through `add`, `replace_uses`, `erase` and the setters of annotations, so a
//! node's type always is what its op infers. The id of an erased node may be given out again.

use super::{Sharding, Slices, Stage, Type};
use crate::CompileError;
use crate::ops::{self, Op};
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use terrace_plan::Mesh;

/// Identity of a node within its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Model path of a node, e.g. `blocks.3.attn1.to_q`.
pub type Path = Arc<str>;

/// The path of what several nodes do together: their common part, `fallback` when they have none.
pub fn common_path(paths: &[&str], fallback: &str) -> String {
    let Some((first, rest)) = paths.split_first() else {
        return fallback.into();
    };
    let mut common: Vec<&str> = first.split('.').collect();
    for path in rest {
        let same = common
            .iter()
            .zip(path.split('.'))
            .take_while(|(a, b)| **a == *b);
        common.truncate(same.count());
    }
    if common.is_empty() {
        fallback.into()
    } else {
        common.join(".")
    }
}

/// When a node is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Once per session, before the first call.
    Init,
    /// At every call.
    #[default]
    Step,
}

/// A node: an op, its type and annotations.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The op with its attributes.
    pub op: Op,
    /// Global type.
    pub ty: Type,
    /// Cut of the result.
    pub sharding: Sharding,
    /// Model path.
    pub path: Path,
    /// When it runs.
    pub phase: Phase,
}

/// Port of an operand.
#[derive(Clone, Copy, Debug)]
struct Use(usize);

/// A graph of typed nodes on a mesh.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    /// Mesh that shardings refer to.
    pub mesh: Mesh,
    /// How far the passes have come.
    pub stage: Stage,
    /// Cuts decided by assign-slices.
    pub slices: Slices,
    nodes: StableDiGraph<Node, Use>,
    schedule: Option<Vec<NodeId>>,
}

impl Graph {
    /// An empty graph on a mesh of one rank.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            mesh: Mesh::ONE,
            stage: Stage::Model,
            slices: Slices::default(),
            nodes: StableDiGraph::new(),
            schedule: None,
        }
    }

    /// Name of the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a node; its type is inferred from the op and its operands.
    ///
    /// # Errors
    /// The operands do not fit the op.
    pub fn add(&mut self, op: Op, operands: &[NodeId], path: &str) -> Result<NodeId, CompileError> {
        let types: Vec<&Type> = operands.iter().map(|&o| &self.node(o).ty).collect();
        let ty = ops::infer(&op, &types).map_err(|e| e.at(&op, path))?;
        let node = Node {
            op,
            ty,
            sharding: Sharding::replicated(),
            path: path.into(),
            phase: Phase::Step,
        };
        Ok(self.insert(node, operands))
    }

    /// Adds a node as it is; for those who have inferred its type.
    pub(crate) fn insert(&mut self, node: Node, operands: &[NodeId]) -> NodeId {
        self.schedule = None;
        let index = self.nodes.add_node(node);
        for (port, operand) in operands.iter().enumerate() {
            self.nodes.add_edge(index_of(*operand), index, Use(port));
        }
        id_of(index)
    }

    /// The node behind an id of this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[index_of(id)]
    }

    /// Whether the node still exists.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.contains_node(index_of(id))
    }

    /// Operands in port order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut ports: Vec<(usize, NodeId)> = self
            .nodes
            .edges_directed(index_of(id), Direction::Incoming)
            .map(|e| (e.weight().0, id_of(e.source())))
            .collect();
        ports.sort_unstable();
        ports.into_iter().map(|(_, operand)| operand).collect()
    }

    /// Users in order of id, each once.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let mut users: Vec<NodeId> = self
            .nodes
            .edges_directed(index_of(id), Direction::Outgoing)
            .map(|e| id_of(e.target()))
            .collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Number of operand ports that a node feeds.
    pub fn uses(&self, id: NodeId) -> usize {
        self.nodes
            .edges_directed(index_of(id), Direction::Outgoing)
            .count()
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether the graph has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.node_count() == 0
    }

    /// All nodes by rising id.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.node_indices().map(id_of)
    }

    /// All nodes, operands before users: the schedule when there is one, else the topological
    /// order that takes the smallest id first. Nodes on or behind a cycle are left out.
    pub fn order(&self) -> Vec<NodeId> {
        if let Some(schedule) = &self.schedule {
            return schedule.clone();
        }
        let mut missing: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut ready = BinaryHeap::new();
        for index in self.nodes.node_indices() {
            let operands = self
                .nodes
                .edges_directed(index, Direction::Incoming)
                .count();
            missing.insert(id_of(index), operands);
            if operands == 0 {
                ready.push(Reverse(id_of(index)));
            }
        }
        let mut order = Vec::with_capacity(missing.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for edge in self.nodes.edges_directed(index_of(id), Direction::Outgoing) {
                let user = id_of(edge.target());
                if let Some(count) = missing.get_mut(&user) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(Reverse(user));
                    }
                }
            }
        }
        order
    }

    /// Whether a schedule is set.
    pub fn is_scheduled(&self) -> bool {
        self.schedule.is_some()
    }

    /// Fixes the order of execution; any later change of the graph clears it.
    pub fn set_schedule(&mut self, order: Vec<NodeId>) {
        self.schedule = Some(order);
    }

    /// Makes every user of `old` use `new` instead, `new` itself excepted.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) {
        self.schedule = None;
        let edges: Vec<_> = self
            .nodes
            .edges_directed(index_of(old), Direction::Outgoing)
            .filter(|e| e.target() != index_of(new))
            .map(|e| (e.id(), e.target(), e.weight().0))
            .collect();
        for (edge, user, port) in edges {
            self.nodes.remove_edge(edge);
            self.nodes.add_edge(index_of(new), user, Use(port));
        }
    }

    /// Makes one operand of `user` another node.
    pub fn replace_operand(&mut self, user: NodeId, port: usize, new: NodeId) {
        self.schedule = None;
        let edge = self
            .nodes
            .edges_directed(index_of(user), Direction::Incoming)
            .find(|e| e.weight().0 == port)
            .map(|e| e.id());
        if let Some(edge) = edge {
            self.nodes.remove_edge(edge);
            self.nodes
                .add_edge(index_of(new), index_of(user), Use(port));
        }
    }

    /// Removes a node without users.
    ///
    /// # Errors
    /// The node still has users.
    pub fn erase(&mut self, id: NodeId) -> Result<(), CompileError> {
        let uses = self.users(id).len();
        if uses > 0 {
            return Err(CompileError::InUse {
                node: id.0 as usize,
                path: self.node(id).path.to_string(),
                uses,
            });
        }
        self.schedule = None;
        self.nodes.remove_node(index_of(id));
        Ok(())
    }

    /// Puts a new node in the place of `old`, whose users, cut and phase it takes over. `old` and
    /// everything that only it needed go.
    ///
    /// # Errors
    /// The operands do not fit the op.
    pub fn substitute(
        &mut self,
        old: NodeId,
        op: Op,
        operands: &[NodeId],
        path: &str,
    ) -> Result<NodeId, CompileError> {
        let new = self.add(op, operands, path)?;
        self.set_sharding(new, self.node(old).sharding.clone());
        self.set_phase(new, self.node(old).phase);
        self.replace_uses(old, new);
        self.erase_unused(old);
        Ok(new)
    }

    /// Removes a node that has no users, then those of its operands that have none left, and so
    /// on. Inputs and outputs stay: the caller names them.
    pub fn erase_unused(&mut self, id: NodeId) {
        let mut candidates = vec![id];
        while let Some(id) = candidates.pop() {
            let port =
                !self.contains(id) || matches!(self.node(id).op, Op::Input(_) | Op::Output(_));
            if port || self.uses(id) > 0 {
                continue;
            }
            candidates.extend(self.operands(id));
            self.schedule = None;
            self.nodes.remove_node(index_of(id));
        }
    }

    /// Sets the cut of a node's result.
    pub fn set_sharding(&mut self, id: NodeId, sharding: Sharding) {
        self.nodes[index_of(id)].sharding = sharding;
    }

    /// Sets when a node runs.
    pub fn set_phase(&mut self, id: NodeId, phase: Phase) {
        self.nodes[index_of(id)].phase = phase;
    }

    /// Replaces a node's type by that of one rank's part; for localize alone.
    pub(crate) fn set_type(&mut self, id: NodeId, ty: Type) {
        self.nodes[index_of(id)].ty = ty;
    }
}

/// Equal up to the numbers of nodes: the same nodes in the same order with the same operands.
impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        let (here, there) = (self.order(), other.order());
        let same_frame = self.name == other.name
            && self.mesh == other.mesh
            && self.stage == other.stage
            && self.slices == other.slices
            && self.is_scheduled() == other.is_scheduled()
            && self.len() == other.len()
            && here.len() == there.len();
        let pairs: BTreeMap<NodeId, NodeId> =
            here.iter().copied().zip(there.iter().copied()).collect();
        same_frame
            && pairs.iter().all(|(&a, &b)| {
                let operands = self.operands(a);
                self.node(a) == other.node(b)
                    && operands
                        .iter()
                        .map(|o| pairs.get(o).copied())
                        .eq(other.operands(b).into_iter().map(Some))
            })
    }
}

fn index_of(id: NodeId) -> NodeIndex {
    NodeIndex::new(id.0 as usize)
}

fn id_of(index: NodeIndex) -> NodeId {
    NodeId(index.index() as u32)
}
