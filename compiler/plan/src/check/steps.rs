//! The walk over a rank's steps: operands, weights, aliasing, live ranges and exchanges.
//!
//! Exchanges are issued in rising order and waited for in the order of issue on every rank.
//! That is enough to exclude a hang: of all ranks that wait, the one that waits for the lowest
//! exchange lacks a peer that is not yet there, and such a peer could only be held up by a
//! lower one.

use super::collectives::Issue;
use super::live::Live;
use super::operands::{admitted, check_activations, check_aliases};
use super::pending::{Pending, UnderWay};
use super::rank::PatternFacts;
use super::step_fault::StepFault;
use super::violation::{PlanViolation, StepAt, StepList, Violations};
use crate::geometry::check_box;
use crate::{
    Action, BoxCopy, Buffer, BufferId, Collective, CollectiveId, DType, KernelCall, OperandUse,
    PatternId, Plan, Rank, RankPlan, Step, WeightUse,
};

/// The state of the walk over one rank.
pub(super) struct Walk<'a> {
    plan: &'a Plan,
    rank: Rank,
    here: &'a RankPlan,
    patterns: &'a [Option<PatternFacts>],
    issues: &'a mut [Vec<Issue>],
    found: &'a mut Violations,
    live: Live<'a>,
    pending: UnderWay,
    last: Option<CollectiveId>,
    list: StepList,
    step: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        rank: Rank,
        patterns: &'a [Option<PatternFacts>],
        issues: &'a mut [Vec<Issue>],
        found: &'a mut Violations,
    ) -> Self {
        let here = &plan.ranks[rank.0];
        Self {
            plan,
            rank,
            here,
            patterns,
            issues,
            found,
            live: Live::new(&here.buffers),
            pending: UnderWay::default(),
            last: None,
            list: StepList::Init,
            step: 0,
        }
    }

    /// Walks the steps of a session's beginning, where no input is bound yet.
    pub(super) fn init(&mut self, steps: &[Step]) {
        self.list = StepList::Init;
        self.walk(steps);
    }

    /// Walks the steps of a call: inputs are there, and what `init` left in the state.
    pub(super) fn steps(&mut self, steps: &[Step]) {
        self.list = StepList::Steps;
        self.live.clear_arena();
        for binding in &self.here.inputs {
            if binding.buffer.0 < self.here.buffers.len() {
                // Inputs that share bytes are a violation of the bindings, reported there.
                let _ = self.live.write(binding.buffer.0);
            }
        }
        self.walk(steps);
        self.outputs_live();
    }

    fn walk(&mut self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            self.step = index;
            if step.origin.0 >= self.plan.origins.len() {
                self.report(Err(StepFault::NoOrigin {
                    found: step.origin.0,
                    count: self.plan.origins.len(),
                }));
            }
            match &step.action {
                Action::Launch(call) => self.launch(call),
                Action::Exchange {
                    collective,
                    pattern,
                    src,
                    dst,
                } => {
                    let result = self.exchange(*collective, *pattern, *src, *dst);
                    self.report_moved(result, *dst);
                }
                Action::Wait { collective } => {
                    let result = self.wait(*collective);
                    self.report(result);
                }
                Action::Copy { src, dst, boxes } => {
                    let result = self.copy(*src, *dst, boxes);
                    self.report_moved(result, *dst);
                }
                Action::Free { buffer } => {
                    let result = self.free(*buffer);
                    self.report(result);
                }
            }
        }
        for pending in self.pending.drain() {
            self.step = pending.step;
            self.report(Err(StepFault::NotWaited {
                collective: pending.collective.0,
            }));
        }
    }

    fn report(&mut self, result: Result<(), StepFault>) {
        if let Err(fault) = result {
            let steps = match self.list {
                StepList::Init => &self.here.init,
                StepList::Steps => &self.here.steps,
            };
            let origin = steps
                .get(self.step)
                .and_then(|step| self.plan.origins.get(step.origin.0))
                .map_or("?", String::as_str);
            self.found.push(PlanViolation::Step {
                at: StepAt {
                    rank: self.rank,
                    list: self.list,
                    step: self.step,
                    origin: origin.to_owned(),
                },
                fault,
            });
        }
    }

    /// What is wrong with a movement is reported once, not again where its result is read.
    fn report_moved(&mut self, result: Result<(), StepFault>, dst: BufferId) {
        if result.is_err() && dst.0 < self.here.buffers.len() {
            let _ = self.live.write(dst.0);
        }
        self.report(result);
    }

    fn launch(&mut self, call: &KernelCall) {
        for weight in call.weights() {
            let result = self.weight(&weight);
            self.report(result);
        }
        let operands = match call.operands() {
            Ok(operands) => operands,
            Err(error) => {
                let kernel = call.name();
                return self.report(Err(StepFault::Call { kernel, error }));
            }
        };
        // Reads come first, so that a call cannot feed itself from an unwritten buffer.
        for operand in &operands {
            let result = self.operand(operand).and_then(|()| {
                if operand.access.reads() && operand.elements > 0 {
                    self.live.read(operand.buffer.0)
                } else {
                    Ok(())
                }
            });
            self.report(result);
        }
        for operand in operands.iter().filter(|operand| operand.access.writes()) {
            if operand.buffer.0 < self.here.buffers.len() {
                let result = self.live.write(operand.buffer.0);
                self.report(result);
            }
        }
        self.report(check_aliases(&operands));
        let buffers = &self.here.buffers;
        self.report(check_activations(&operands, buffers));
    }

    /// Buffer, length, type, and that no exchange under way forbids the access.
    fn operand(&self, operand: &OperandUse) -> Result<(), StepFault> {
        let needs = if operand.elements == 0 {
            operand.offset
        } else {
            operand.end
        };
        let it = self.buffer(operand.name, operand.buffer, needs)?;
        let fits = operand.dtype.admits(it.dtype);
        let takes = operand.dtype.name();
        admitted(fits, operand.name, operand.buffer, takes, it.dtype)?;
        if operand.access.writes() {
            self.pending.not_sent(operand.buffer)?;
        }
        self.pending.not_filled(operand.buffer)
    }

    fn buffer(
        &self,
        operand: &'static str,
        id: BufferId,
        needs: usize,
    ) -> Result<&'a Buffer, StepFault> {
        let it = self.get(operand, id)?;
        if needs > it.len {
            return Err(StepFault::Short {
                operand,
                buffer: id.0,
                needs,
                has: it.len,
            });
        }
        Ok(it)
    }

    /// As [`Self::buffer`], for elements of type `expected`.
    fn typed(
        &self,
        operand: &'static str,
        id: BufferId,
        needs: usize,
        expected: DType,
    ) -> Result<(), StepFault> {
        let found = self.buffer(operand, id, needs)?.dtype;
        admitted(found == expected, operand, id, expected.name(), found)
    }

    fn get(&self, operand: &'static str, id: BufferId) -> Result<&'a Buffer, StepFault> {
        self.here.buffers.get(id.0).ok_or(StepFault::NoBuffer {
            operand,
            buffer: id.0,
            count: self.here.buffers.len(),
        })
    }

    fn weight(&self, used: &WeightUse) -> Result<(), StepFault> {
        let (operand, id) = (used.name, used.weight.0);
        let weights = &self.plan.weights;
        let weight = weights.get(id).ok_or(StepFault::NoWeight {
            operand,
            weight: id,
            count: weights.len(),
        })?;
        if weight.layout != used.layout {
            return Err(StepFault::WeightLayout {
                operand,
                weight: id,
                expected: used.layout,
                found: weight.layout,
            });
        }
        if weight.boxes.is_empty() && weight.shape != used.shape {
            return Err(StepFault::WeightShape {
                operand,
                weight: id,
                expected: used.shape.clone(),
                found: weight.shape.clone(),
            });
        }
        if crate::geometry::product(&used.shape) != Some(weight.len) {
            return Err(StepFault::WeightLen {
                operand,
                weight: id,
                expected: used.shape.clone(),
                found: weight.len,
            });
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        id: CollectiveId,
        pattern: PatternId,
        src: BufferId,
        dst: BufferId,
    ) -> Result<(), StepFault> {
        let collective = self.collective(id)?;
        if !collective.members.contains(&self.rank) {
            return Err(StepFault::NotAMember {
                collective: id.0,
                members: collective.members.iter().map(|rank| rank.0).collect(),
            });
        }
        if let Some(before) = self.last.filter(|before| *before >= id) {
            self.report(Err(StepFault::Order {
                collective: id.0,
                before: before.0,
            }));
        }
        self.last = Some(id);
        let dtype = |id: BufferId| self.here.buffers.get(id.0).map(|buffer| buffer.dtype);
        self.issues[id.0].push(Issue {
            rank: self.rank,
            list: self.list,
            pattern,
            src: dtype(src),
            dst: dtype(dst),
        });
        // What is wrong with its buffers does not undo the exchange: its wait stays legal.
        let result = self.exchange_buffers(collective, id, pattern, src, dst);
        self.pending.begin(Pending {
            collective: id,
            src,
            dst,
            step: self.step,
        });
        result
    }

    fn exchange_buffers(
        &mut self,
        collective: &Collective,
        id: CollectiveId,
        pattern: PatternId,
        src: BufferId,
        dst: BufferId,
    ) -> Result<(), StepFault> {
        self.peers(collective, id, pattern)?;
        // An illegal pattern is a violation of its own.
        let Some(facts) = self.patterns[pattern.0] else {
            self.get("dst", dst)?;
            return self.live.write(dst.0);
        };
        let dtype = self.get("src", src)?.dtype;
        self.movable(src, dst)?;
        self.typed("src", src, facts.src_end, dtype)?;
        self.typed("dst", dst, facts.dst_end, dtype)?;
        let expected = self.get("dst", dst)?.len;
        if facts.written != expected {
            return Err(StepFault::Filled {
                pattern: pattern.0,
                buffer: dst.0,
                expected,
                found: facts.written,
            });
        }
        if facts.read > 0 {
            self.live.read(src.0)?;
        }
        self.live.write(dst.0)
    }

    fn peers(
        &self,
        collective: &Collective,
        id: CollectiveId,
        pattern: PatternId,
    ) -> Result<(), StepFault> {
        let count = self.here.patterns.len();
        let missing = StepFault::NoPattern {
            pattern: pattern.0,
            count,
        };
        let it = self.here.patterns.get(pattern.0).ok_or(missing)?;
        let mut peers = it.sends.iter().chain(&it.receives);
        match peers.find(|transfer| !collective.members.contains(&transfer.peer)) {
            Some(transfer) => Err(StepFault::Peer {
                pattern: pattern.0,
                peer: transfer.peer,
                collective: id.0,
                members: collective.members.iter().map(|rank| rank.0).collect(),
            }),
            None => Ok(()),
        }
    }

    /// Source and destination of a movement differ, and no exchange under way forbids it.
    fn movable(&self, src: BufferId, dst: BufferId) -> Result<(), StepFault> {
        if src == dst {
            return Err(StepFault::SameBuffer { buffer: src.0 });
        }
        self.pending.not_filled(src)?;
        self.pending.not_filled(dst)?;
        self.pending.not_sent(dst)
    }

    fn wait(&mut self, id: CollectiveId) -> Result<(), StepFault> {
        self.collective(id)?;
        self.pending.wait(id)
    }

    fn collective(&self, id: CollectiveId) -> Result<&'a Collective, StepFault> {
        self.plan
            .collectives
            .get(id.0)
            .ok_or(StepFault::NoCollective {
                collective: id.0,
                count: self.plan.collectives.len(),
            })
    }

    fn copy(&mut self, src: BufferId, dst: BufferId, boxes: &[BoxCopy]) -> Result<(), StepFault> {
        let source = self.get("src", src)?;
        let target = self.get("dst", dst)?;
        self.movable(src, dst)?;
        self.typed("dst", dst, 0, source.dtype)?;
        let mut elements = 0usize;
        for (index, copy) in boxes.iter().enumerate() {
            let facts = check_box(copy)
                .and_then(|facts| facts.inside(source.len, target.len).map(|()| facts))
                .map_err(|fault| StepFault::Box { index, fault })?;
            elements = elements.saturating_add(facts.elements);
        }
        if elements > 0 {
            self.live.read(src.0)?;
        }
        self.live.write(dst.0)
    }

    fn free(&mut self, buffer: BufferId) -> Result<(), StepFault> {
        self.get("buffer", buffer)?;
        self.pending.not_sent(buffer)?;
        self.pending.not_filled(buffer)?;
        self.live.free(buffer.0)
    }

    fn outputs_live(&mut self) {
        for (binding, port) in self.here.outputs.iter().zip(&self.plan.outputs) {
            let buffer = binding.buffer.0;
            let missing = buffer < self.here.buffers.len() && !self.live.is_live(buffer);
            if missing && !binding.boxes.is_empty() {
                self.found.push(PlanViolation::Rank {
                    rank: self.rank,
                    fault: super::faults::RankFault::OutputDead {
                        name: port.name.clone(),
                        buffer,
                    },
                });
            }
        }
    }
}
