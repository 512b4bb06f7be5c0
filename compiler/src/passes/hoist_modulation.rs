//! hoist-modulation: the modulation vectors of all blocks are made by one product.
//!
//! They depend on the time step alone, so what would be many matrix-vector products becomes one
//! wide one before the first block. Users find their chunks in the wide vector; nothing is copied.
//!
//! ```text
//! before  %3 = linear %0 %1 out=[m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)]   ; blocks.0.norm1.linear
//!         %4 = linear %0 %2 out=[m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)]   ; blocks.1.norm1.linear
//!         ...
//!         %9 = modulate %8 %4 chunks=[shift=0 scale=1] : f32[b=1, seq=4, c=8]
//! after   %2 = linear %0 %1 out=[m=(k=4 c=8)] : f32[b=1, m=(k=4 c=8)]   ; blocks
//!         ...
//!         %7 = modulate %6 %2 chunks=[shift=2 scale=3] : f32[b=1, seq=4, c=8]
//! ```
//!
//! Only products of one input whose every use is as modulation of rows of one width are joined.

use super::joint_linear;
use crate::ir::{Dim, Graph, NodeId};
use crate::ops::{Linear, LinearEpilogue, ModChunks, Norm, Op, Presence};
use crate::{CompileError, CompileOptions};
use std::collections::BTreeMap;

/// What the members of a group have in common: their input, whether they have a bias, and the
/// width of the rows that they modulate.
type Key = (NodeId, Presence, usize);

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    let mut groups: BTreeMap<Key, Vec<NodeId>> = BTreeMap::new();
    for id in graph.order() {
        if let Some(key) = key(graph, id) {
            groups.entry(key).or_default().push(id);
        }
    }
    for ((_, _, width), members) in groups {
        if members.len() > 1 {
            hoist(graph, width, &members)?;
        }
    }
    Ok(())
}

fn key(graph: &Graph, id: NodeId) -> Option<Key> {
    let Op::Linear(linear) = &graph.node(id).op else {
        return None;
    };
    let users = graph.users(id);
    let widths: Option<Vec<usize>> = users.iter().map(|&u| modulated(graph, u, id)).collect();
    let width = *widths?.first()?;
    let alike = users
        .iter()
        .all(|&u| modulated(graph, u, id) == Some(width));
    let plain = linear.epilogue == LinearEpilogue::None;
    let chunked = width > 0 && linear.out.size() % width == 0;
    (alike && plain && chunked).then(|| (graph.operands(id)[0], linear.bias, width))
}

/// The width of the rows that `user` modulates with `mods`, when it uses them for nothing else.
fn modulated(graph: &Graph, user: NodeId, mods: NodeId) -> Option<usize> {
    let operands = graph.operands(user);
    shifted(&graph.node(user).op, 0)?;
    let (last, others) = operands.split_last()?;
    let once = *last == mods && !others.contains(&mods);
    let width = graph.node(user).ty.dims.last()?.size();
    once.then_some(width)
}

/// The op with its chunks found `by` chunks later, `None` when it has no modulation.
fn shifted(op: &Op, by: usize) -> Option<Op> {
    let shift_all = |chunks: &[ModChunks]| {
        let shift_one = |c: &ModChunks| ModChunks {
            shift: c.shift + by,
            scale: c.scale + by,
        };
        chunks.iter().map(shift_one).collect()
    };
    let gates_all = |gates: &[usize]| gates.iter().map(|g| g + by).collect();
    if let Op::Modulate(chunks) = op {
        return Some(Op::Modulate(shift_all(chunks)));
    }
    if let Op::Residual(Some(gates)) = op {
        return Some(Op::Residual(Some(gates_all(gates))));
    }
    if let Op::Norm(norm) = op {
        let chunks = norm.modulate.as_ref()?;
        return Some(Op::Norm(Norm {
            kind: norm.kind,
            modulate: Some(shift_all(chunks)),
        }));
    }
    if let Op::Linear(linear) = op
        && let LinearEpilogue::GatedResidual(gates) = &linear.epilogue
    {
        return Some(Op::Linear(Linear {
            epilogue: LinearEpilogue::GatedResidual(gates_all(gates)),
            ..linear.clone()
        }));
    }
    None
}

fn hoist(graph: &mut Graph, width: usize, members: &[NodeId]) -> Result<(), CompileError> {
    let chunks: Vec<usize> = members.iter().map(|&m| columns(graph, m) / width).collect();
    let out = Dim::product("m", &[("k", chunks.iter().sum()), ("c", width)]);
    let Some(wide) = joint_linear::add(graph, members, out)? else {
        return Ok(());
    };
    let mut before = 0;
    for (&member, count) in members.iter().zip(chunks) {
        for user in graph.users(member) {
            let mut operands = graph.operands(user);
            if let Some(op) = shifted(&graph.node(user).op, before)
                && let Some(mods) = operands.last_mut()
            {
                *mods = wide;
                let path = graph.node(user).path.clone();
                graph.substitute(user, op, &operands, &path)?;
            }
        }
        before += count;
    }
    Ok(())
}

fn columns(graph: &Graph, id: NodeId) -> usize {
    graph.node(id).ty.dims.last().map_or(0, Dim::size)
}
