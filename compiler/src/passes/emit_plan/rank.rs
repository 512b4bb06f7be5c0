//! The steps of one rank: one walk over the schedule per list.
//!
//! A result takes over the buffer of an operand that dies with it where the kernel allows that. An
//! exchange is waited for right before the first step that its buffers could disturb, never
//! earlier; a buffer is freed after its last use, or after the wait that ends it.

use super::buffers::Buffers;
use super::exchanges::Exchanges;
use super::movement;
use super::tables::Origins;
use crate::CompileError;
use crate::ir::{Graph, NodeId, Path, Phase};
use crate::ops::Op;
use crate::passes::localize::Local;
use crate::passes::select_kernels::{self, Site, Source};
use std::collections::{BTreeMap, VecDeque};
use terrace_plan::{
    Action, BoxCopy, BufferId, CollectiveId, Coords, Pattern, PatternId, Rank, RankPlan, Region,
    Step, WeightId,
};

/// What the emission of a rank reads.
pub(super) struct Context<'a> {
    pub(super) graph: &'a Graph,
    pub(super) order: &'a [NodeId],
    pub(super) exchanges: &'a Exchanges,
    /// Types of the rank.
    pub(super) local: &'a Local<'a>,
    pub(super) rank: Rank,
    pub(super) coords: Coords,
    /// Weights as the rank holds them.
    pub(super) weights: &'a BTreeMap<NodeId, WeightId>,
}

/// An exchange that nobody has waited for yet.
struct Pending {
    collective: CollectiveId,
    src: BufferId,
    dst: BufferId,
    path: Path,
    /// Buffers whose last user this is.
    dying: Vec<BufferId>,
}

/// The rank's plan, ports left out, and where every node's result lies.
pub(super) struct Emitted {
    pub(super) plan: RankPlan,
    pub(super) values: BTreeMap<NodeId, BufferId>,
}

struct Emitter<'a> {
    cx: &'a Context<'a>,
    origins: &'a mut Origins,
    phase: Phase,
    /// Position of each node's last user in the order.
    last_use: BTreeMap<NodeId, usize>,
    values: BTreeMap<NodeId, BufferId>,
    buffers: Buffers,
    patterns: BTreeMap<Pattern, PatternId>,
    pending: VecDeque<Pending>,
    steps: Vec<Step>,
    /// Steps of the lists before this one.
    before: usize,
}

/// Emits both lists of a rank.
pub(super) fn emit(cx: &Context<'_>, origins: &mut Origins) -> Result<Emitted, CompileError> {
    let mut emitter = Emitter {
        cx,
        origins,
        phase: Phase::Init,
        last_use: last_uses(cx),
        values: BTreeMap::new(),
        buffers: Buffers::default(),
        patterns: BTreeMap::new(),
        pending: VecDeque::new(),
        steps: Vec::new(),
        before: 0,
    };
    emitter.walk()?;
    let init = std::mem::take(&mut emitter.steps);
    emitter.before = init.len();
    emitter.phase = Phase::Step;
    emitter.walk()?;
    let placed = emitter.buffers.place();
    let mut patterns: Vec<(PatternId, Pattern)> = emitter
        .patterns
        .into_iter()
        .map(|(pattern, id)| (id, pattern))
        .collect();
    patterns.sort_unstable_by_key(|(id, _)| *id);
    Ok(Emitted {
        plan: RankPlan {
            arena_bytes: placed.arena_bytes,
            state_bytes: placed.state_bytes,
            buffers: placed.buffers,
            inputs: Vec::new(),
            outputs: Vec::new(),
            patterns: patterns.into_iter().map(|(_, pattern)| pattern).collect(),
            init,
            steps: emitter.steps,
        },
        values: emitter.values,
    })
}

fn last_uses(cx: &Context<'_>) -> BTreeMap<NodeId, usize> {
    let mut last = BTreeMap::new();
    for (position, &id) in cx.order.iter().enumerate() {
        for operand in cx.graph.operands(id) {
            last.insert(operand, position);
        }
    }
    last
}

impl Emitter<'_> {
    fn walk(&mut self) -> Result<(), CompileError> {
        for (position, &id) in self.cx.order.iter().enumerate() {
            let node = self.cx.graph.node(id);
            let stepless = matches!(node.op, Op::Weight(_) | Op::Output(_));
            if node.phase == self.phase && !stepless {
                self.node(id, position)?;
            }
        }
        self.wait_all();
        Ok(())
    }

    fn node(&mut self, id: NodeId, position: usize) -> Result<(), CompileError> {
        let op = &self.cx.graph.node(id).op;
        let operands = self.operands(id);
        let (result, inherited) = self.result_buffer(id, position, &operands);
        self.values.insert(id, result);
        if matches!(op, Op::Input(_)) {
            return Ok(());
        }
        let path = self.cx.graph.node(id).path.clone();
        if let Some((collective, pattern)) = self.cx.exchanges.at(id, self.cx.rank) {
            self.exchange(&path, collective, pattern, operands[0], result);
        } else if self.buffers.len(result) > 0 {
            self.compute(id, &path, operands, result, inherited)?;
        }
        self.free_dead(id, position, result);
        Ok(())
    }

    /// Places of the operands.
    fn operands(&self, id: NodeId) -> Vec<Source> {
        let place = |operand: NodeId| match self.cx.weights.get(&operand) {
            Some(&weight) => Source::Weight(weight),
            None => Source::Buffer(self.values[&operand]),
        };
        self.cx.graph.operands(id).into_iter().map(place).collect()
    }

    /// The buffer of a node's result, and the port of the operand whose buffer it takes over.
    fn result_buffer(
        &mut self,
        id: NodeId,
        position: usize,
        operands: &[Source],
    ) -> (BufferId, Option<usize>) {
        let ty = self.cx.local.ty(id);
        let region = self.region(id);
        if region == Region::Arena {
            let ids = self.cx.graph.operands(id);
            for port in select_kernels::in_place_ports(&self.cx.graph.node(id).op) {
                if let Source::Buffer(buffer) = operands[port]
                    && self.buffers.reusable_for(buffer, ty)
                    && self.last_use.get(&ids[port]) == Some(&position)
                    && operands.iter().filter(|&&o| o == operands[port]).count() == 1
                {
                    return (buffer, Some(port));
                }
            }
        }
        (self.buffers.add(ty, region), None)
    }

    /// What outlives a call or a list is state.
    fn region(&self, id: NodeId) -> Region {
        let node = self.cx.graph.node(id);
        let outlives = |user: NodeId| {
            let user = self.cx.graph.node(user);
            matches!(user.op, Op::Output(_)) || user.phase != node.phase
        };
        let is_port = matches!(node.op, Op::Input(_));
        if is_port || self.cx.graph.users(id).into_iter().any(outlives) {
            Region::State
        } else {
            Region::Arena
        }
    }

    fn exchange(
        &mut self,
        path: &Path,
        collective: CollectiveId,
        pattern: &Pattern,
        source: Source,
        dst: BufferId,
    ) {
        let Source::Buffer(src) = source else { return };
        self.wait_for(&[src], &[dst]);
        let next = PatternId(self.patterns.len());
        let pattern = *self.patterns.entry(pattern.clone()).or_insert(next);
        self.buffers.written(dst, self.position());
        self.push(
            path,
            Action::Exchange {
                collective,
                pattern,
                src,
                dst,
            },
        );
        self.pending.push_back(Pending {
            collective,
            src,
            dst,
            path: path.clone(),
            dying: Vec::new(),
        });
    }

    fn compute(
        &mut self,
        id: NodeId,
        path: &Path,
        operands: Vec<Source>,
        result: BufferId,
        inherited: Option<usize>,
    ) -> Result<(), CompileError> {
        let reads: Vec<BufferId> = operands.iter().filter_map(buffer_of).collect();
        self.wait_for(&reads, &[result]);
        if let Some(lists) = movement::local_copies(self.cx.graph, id, self.cx.coords)? {
            for (source, boxes) in operands.iter().zip(lists) {
                let src = buffer_of(source).ok_or_else(|| self.unmovable(id))?;
                self.copy(path, src, result, boxes);
            }
            return Ok(());
        }
        let updated = select_kernels::updated_port(&self.cx.graph.node(id).op);
        if let Some(port) = updated.filter(|port| inherited != Some(*port))
            && let Some(src) = buffer_of(&operands[port])
        {
            let whole = dense(self.buffers.len(src));
            self.copy(path, src, result, vec![whole]);
        }
        let site = Site {
            graph: self.cx.graph,
            local: self.cx.local,
            coords: self.cx.coords,
            id,
            operands,
            result,
        };
        if let Some(call) = select_kernels::run(&site)? {
            self.buffers.written(result, self.position());
            self.push(path, Action::Launch(call));
        }
        Ok(())
    }

    fn unmovable(&self, id: NodeId) -> CompileError {
        let node = self.cx.graph.node(id);
        CompileError::NoKernel {
            op: node.op.name(),
            path: node.path.to_string(),
            reason: "a weight lies packed in memory and cannot be moved".into(),
        }
    }

    fn copy(&mut self, path: &Path, src: BufferId, dst: BufferId, boxes: Vec<BoxCopy>) {
        if boxes.is_empty() {
            return;
        }
        self.buffers.written(dst, self.position());
        self.push(path, Action::Copy { src, dst, boxes });
    }

    /// Frees what node `id` used last, and its own result when nobody reads it.
    fn free_dead(&mut self, id: NodeId, position: usize, result: BufferId) {
        let path = self.cx.graph.node(id).path.clone();
        let mut dead: Vec<BufferId> = Vec::new();
        for operand in self.cx.graph.operands(id) {
            if self.last_use.get(&operand) == Some(&position)
                && let Some(&buffer) = self.values.get(&operand)
                && buffer != result
                && !dead.contains(&buffer)
            {
                dead.push(buffer);
            }
        }
        if !self.last_use.contains_key(&id) {
            dead.push(result);
        }
        for buffer in dead {
            let busy = self
                .pending
                .iter_mut()
                .rev()
                .find(|p| p.src == buffer || p.dst == buffer);
            match busy {
                Some(pending) => pending.dying.push(buffer),
                None => self.free(&path, buffer),
            }
        }
    }

    fn free(&mut self, path: &Path, buffer: BufferId) {
        if self.buffers.needs_free(buffer) {
            self.buffers.freed(buffer, self.position());
            self.push(path, Action::Free { buffer });
        }
    }

    /// Waits until nothing under way delivers into what is read or written, nor reads what is
    /// written; exchanges are waited for in the order in which they began.
    fn wait_for(&mut self, reads: &[BufferId], writes: &[BufferId]) {
        let disturbs = |p: &Pending| {
            reads.contains(&p.dst) || writes.contains(&p.dst) || writes.contains(&p.src)
        };
        if let Some(last) = self.pending.iter().rposition(disturbs) {
            for _ in 0..=last {
                self.wait();
            }
        }
    }

    fn wait_all(&mut self) {
        while !self.pending.is_empty() {
            self.wait();
        }
    }

    fn wait(&mut self) {
        if let Some(pending) = self.pending.pop_front() {
            let collective = pending.collective;
            self.push(&pending.path, Action::Wait { collective });
            for buffer in pending.dying {
                self.free(&pending.path, buffer);
            }
        }
    }

    fn push(&mut self, path: &Path, action: Action) {
        let origin = self.origins.intern(path);
        self.steps.push(Step { origin, action });
    }

    /// Position of the next step over both lists.
    fn position(&self) -> usize {
        self.before + self.steps.len()
    }
}

fn buffer_of(source: &Source) -> Option<BufferId> {
    match source {
        Source::Buffer(buffer) => Some(*buffer),
        Source::Weight(_) => None,
    }
}

fn dense(len: usize) -> BoxCopy {
    BoxCopy {
        extents: vec![len],
        src_offset: 0,
        src_strides: vec![1],
        dst_offset: 0,
        dst_strides: vec![1],
    }
}
