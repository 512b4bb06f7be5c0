//! Exchanges: what every rank sends to every other for each collective of the graph.
//!
//! Both cuts of the tensor are known, so the boxes that go from one member to another are the
//! intersection of what the sender holds with what the receiver needs. Equal changes of cut share
//! one table; collectives are numbered in the order in which all ranks issue them.

use crate::CompileError;
use crate::ir::{Graph, Node, NodeId, Phase, Sharding, Type};
use crate::layout::{Layout, copies};
use crate::ops::Op;
use std::collections::BTreeMap;
use terrace_plan::{
    Axis, BoxCopy, Collective, CollectiveId, CollectiveKind, Pattern, Rank, Transfer,
};

/// The collectives of a graph.
pub(super) struct Exchanges {
    pub(super) collectives: Vec<Collective>,
    changes: Vec<Change>,
    nodes: BTreeMap<NodeId, Issue>,
}

/// The movements of one change of cut.
struct Change {
    /// One per rank.
    patterns: Vec<Pattern>,
    /// Members and bytes of every group along the axis.
    groups: Vec<(Vec<Rank>, Vec<Vec<u64>>)>,
}

struct Issue {
    change: usize,
    /// The collective of each rank.
    ids: Vec<CollectiveId>,
}

/// Two nodes with equal keys move the same regions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: CollectiveKind,
    axis: Axis,
    source: (Type, Sharding),
    result: (Type, Sharding),
}

impl Exchanges {
    /// Collects the collectives of a scheduled graph.
    pub(super) fn of(graph: &Graph) -> Result<Self, CompileError> {
        let mut exchanges = Self {
            collectives: Vec::new(),
            changes: Vec::new(),
            nodes: BTreeMap::new(),
        };
        let mut known = BTreeMap::new();
        for phase in [Phase::Init, Phase::Step] {
            for id in graph.order() {
                let node = graph.node(id);
                if let Some((kind, axis)) = kind(&node.op).filter(|_| node.phase == phase) {
                    exchanges.add(graph, id, kind, axis, &mut known)?;
                }
            }
        }
        Ok(exchanges)
    }

    /// The collective that `rank` takes part in at node `id`, and what it moves.
    pub(super) fn at(&self, id: NodeId, rank: Rank) -> Option<(CollectiveId, &Pattern)> {
        let issue = self.nodes.get(&id)?;
        let pattern = &self.changes[issue.change].patterns[rank.0];
        Some((issue.ids[rank.0], pattern))
    }

    fn add(
        &mut self,
        graph: &Graph,
        id: NodeId,
        kind: CollectiveKind,
        axis: Axis,
        known: &mut BTreeMap<Key, usize>,
    ) -> Result<(), CompileError> {
        let node = graph.node(id);
        let source = graph.node(graph.operands(id)[0]);
        let key = Key {
            kind,
            axis,
            source: (source.ty.clone(), source.sharding.clone()),
            result: (node.ty.clone(), node.sharding.clone()),
        };
        let change = match known.get(&key) {
            Some(&change) => change,
            None => {
                self.changes.push(change(graph, source, node, axis)?);
                known.insert(key, self.changes.len() - 1);
                self.changes.len() - 1
            }
        };
        let mut ids = vec![CollectiveId(0); graph.mesh.ranks()];
        for (members, bytes) in &self.changes[change].groups {
            let collective = CollectiveId(self.collectives.len());
            for member in members {
                ids[member.0] = collective;
            }
            self.collectives.push(Collective {
                kind,
                axis,
                members: members.clone(),
                bytes: bytes.clone(),
            });
        }
        self.nodes.insert(id, Issue { change, ids });
        Ok(())
    }
}

fn kind(op: &Op) -> Option<(CollectiveKind, Axis)> {
    match op {
        Op::AllToAll(a) => Some((CollectiveKind::AllToAll, a.axis)),
        Op::AllGather(a) => Some((CollectiveKind::AllGather, a.axis)),
        Op::RingShift(a) => Some((CollectiveKind::RingShift, a.axis)),
        Op::Input(_)
        | Op::Output(_)
        | Op::Weight(_)
        | Op::Linear(_)
        | Op::Norm(_)
        | Op::Modulate(_)
        | Op::Residual(_)
        | Op::HeadNorm(_)
        | Op::Rope(_)
        | Op::QkNormRope(_)
        | Op::Attention(_)
        | Op::AttentionStep(_)
        | Op::AttentionFinish(_)
        | Op::Activate(_)
        | Op::Cast(_)
        | Op::GatedGelu
        | Op::Embedding(_)
        | Op::RelativeBias(_)
        | Op::TimestepEmbedding(_)
        | Op::PositionTable(_)
        | Op::Join(_)
        | Op::Segment(_)
        | Op::Take(_)
        | Op::Concat(_)
        | Op::Repeat(_)
        | Op::Conv3d(_)
        | Op::ConvCache(_)
        | Op::GroupNorm(_)
        | Op::Upsample(_)
        | Op::Denoise(_)
        | Op::Advance(_)
        | Op::Noise(_)
        | Op::Reshard(_) => None,
    }
}

fn change(graph: &Graph, source: &Node, node: &Node, axis: Axis) -> Result<Change, CompileError> {
    let mesh = &graph.mesh;
    let element = node.ty.dtype.bytes() as u64;
    let mut patterns = vec![Pattern::default(); mesh.ranks()];
    let mut groups = Vec::new();
    for first in (0..mesh.ranks()).map(Rank) {
        let members = mesh.group(first, axis);
        if members.first() != Some(&first) {
            continue;
        }
        let mut bytes = vec![vec![0; members.len()]; members.len()];
        for (row, &from) in members.iter().enumerate() {
            for (column, &to) in members.iter().enumerate() {
                let boxes = moved(graph, source, node, from, to)?;
                if from == to {
                    patterns[from.0].local = boxes;
                } else if !boxes.is_empty() {
                    bytes[row][column] = element * elements(&boxes);
                    patterns[from.0].sends.push(Transfer {
                        peer: to,
                        boxes: boxes.iter().map(BoxCopy::src).collect(),
                    });
                    patterns[to.0].receives.push(Transfer {
                        peer: from,
                        boxes: boxes.iter().map(BoxCopy::dst).collect(),
                    });
                }
            }
        }
        groups.push((members, bytes));
    }
    Ok(Change { patterns, groups })
}

fn elements(boxes: &[BoxCopy]) -> u64 {
    let size = |copy: &BoxCopy| copy.extents.iter().product::<usize>() as u64;
    boxes.iter().map(size).sum()
}

/// What `to` needs of what `from` holds.
fn moved(
    graph: &Graph,
    source: &Node,
    node: &Node,
    from: Rank,
    to: Rank,
) -> Result<Vec<BoxCopy>, CompileError> {
    let mesh = &graph.mesh;
    let held = Layout::part(&source.ty.dims, &source.sharding, mesh, mesh.coords(from));
    // A shift of packed qkv delivers keys and values: the packed tensor without its queries.
    let needed = if source.ty.factor("qkv").is_some() && node.ty.factor("kv").is_some() {
        Layout::part(&source.ty.dims, &node.sharding, mesh, mesh.coords(to))
            .taking(&"qkv".into(), 1..3)
    } else {
        Layout::part(&node.ty.dims, &node.sharding, mesh, mesh.coords(to))
    };
    copies(&held, &needed).ok_or_else(|| CompileError::Layout {
        path: node.path.to_string(),
        from: held.to_string(),
        to: needed.to_string(),
    })
}
