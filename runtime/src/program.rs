//! A rank's plan resolved for one session: operands, kernels and transfers, ready to run.
//!
//! Invariants: built once, after the plan's check has passed, and never changed; every region was
//! checked against its buffers; running it decides and allocates nothing.

use crate::backend::{Backend, View};
use crate::boxes::Boxes;
use crate::fabric::Exchange;
use crate::position::{Phase, place};
use crate::{ResolveFault, RuntimeError};
use std::collections::BTreeMap;
use std::sync::Arc;
use terrace_plan::{
    Action, Binding, BoxCopy, BufferId, Carry, CollectiveId, KernelCall, Pattern, PatternId, Plan,
    Rank, RankPlan, Step,
};

/// Both lists of a rank and what follows a call.
pub(crate) struct Program<L> {
    pub(crate) init: Vec<Ready<L>>,
    pub(crate) steps: Vec<Ready<L>>,
    pub(crate) carries: Vec<Move>,
}

/// A step and what its trace says.
pub(crate) struct Ready<L> {
    pub(crate) origin: usize,
    pub(crate) name: &'static str,
    pub(crate) category: &'static str,
    pub(crate) bytes: u64,
    pub(crate) action: Act<L>,
}

/// What a step does.
pub(crate) enum Act<L> {
    Launch(L),
    Begin(Arc<Exchange>, Boxes),
    Wait(Arc<Exchange>),
    Copy(Move),
    Free,
}

/// A copy between two buffers of one rank.
pub(crate) struct Move {
    pub(crate) src: View,
    pub(crate) dst: View,
    pub(crate) boxes: Boxes,
}

/// Resolves the plan of one rank.
pub(crate) struct Builder<'a, B: Backend> {
    pub(crate) plan: &'a Plan,
    pub(crate) rank: Rank,
    pub(crate) backend: &'a B,
    pub(crate) memory: &'a B::Memory,
    pub(crate) weights: &'a [Arc<B::Weight>],
}

impl<B: Backend> Builder<'_, B> {
    pub(crate) fn build(&self) -> Result<Program<B::Launch>, RuntimeError> {
        let rank = self.rank_plan()?;
        let patterns = rank.patterns.iter().cloned().map(Arc::new).collect();
        let mut lists = Lists {
            patterns,
            open: BTreeMap::new(),
        };
        Ok(Program {
            init: self.list(&rank.init, Phase::Init, &mut lists)?,
            steps: self.list(&rank.steps, Phase::Steps, &mut lists)?,
            carries: self.carries(rank)?,
        })
    }

    fn rank_plan(&self) -> Result<&RankPlan, RuntimeError> {
        let rank = self.rank;
        self.plan
            .ranks
            .get(rank.0)
            .ok_or_else(|| ResolveFault::NoRank { rank }.into())
    }

    fn list(
        &self,
        steps: &[Step],
        phase: Phase,
        lists: &mut Lists,
    ) -> Result<Vec<Ready<B::Launch>>, RuntimeError> {
        let resolve = |(index, step): (usize, &Step)| {
            self.step(step, lists)
                .map_err(|source| RuntimeError::Resolve {
                    place: Box::new(place(self.plan, self.rank, phase, index)),
                    source: Box::new(source),
                })
        };
        steps.iter().enumerate().map(resolve).collect()
    }

    fn step(&self, step: &Step, lists: &mut Lists) -> Result<Ready<B::Launch>, RuntimeError> {
        let (name, category, bytes, action) = match &step.action {
            Action::Launch(call) => {
                let launch = self.backend.prepare(self.memory, self.weights, call)?;
                (
                    call.name(),
                    "kernel",
                    self.touched(call),
                    Act::Launch(launch),
                )
            }
            Action::Exchange {
                collective,
                pattern,
                src,
                dst,
            } => {
                let exchange = Arc::new(Exchange {
                    collective: *collective,
                    src: self.view(*src)?,
                    dst: self.view(*dst)?,
                    pattern: self.pattern(*pattern, lists)?,
                });
                let (src, dst) = (exchange.src, exchange.dst);
                let local = self.checked(&exchange.pattern.local, src, dst)?;
                let bytes = size(local.elements(), src);
                lists.open.insert(*collective, Arc::clone(&exchange));
                ("begin", "exchange", bytes, Act::Begin(exchange, local))
            }
            Action::Wait { collective } => {
                let exchange = self.begun(*collective, lists)?;
                let kind = self.plan.collectives.get(collective.0);
                let name = kind.map_or("wait", |c| c.kind.name());
                (name, "exchange", received(&exchange), Act::Wait(exchange))
            }
            Action::Copy { src, dst, boxes } => {
                let (src, dst) = (self.view(*src)?, self.view(*dst)?);
                let boxes = self.checked(boxes, src, dst)?;
                let bytes = size(boxes.elements(), src);
                ("copy", "copy", bytes, Act::Copy(Move { src, dst, boxes }))
            }
            Action::Free { .. } => ("free", "free", 0, Act::Free),
        };
        Ok(Ready {
            origin: step.origin.0,
            name,
            category,
            bytes,
            action,
        })
    }

    /// Bytes that a kernel reads and writes.
    fn touched(&self, call: &KernelCall) -> u64 {
        let operands = call.operands().unwrap_or_default();
        let bytes = operands
            .iter()
            .filter_map(|operand| Some(size(operand.elements, self.view(operand.buffer).ok()?)));
        bytes.fold(0, u64::saturating_add)
    }

    fn pattern(&self, pattern: PatternId, lists: &Lists) -> Result<Arc<Pattern>, RuntimeError> {
        let rank = self.rank;
        let found = lists.patterns.get(pattern.0).map(Arc::clone);
        found.ok_or_else(|| ResolveFault::NoPattern { rank, pattern }.into())
    }

    fn begun(
        &self,
        collective: CollectiveId,
        lists: &mut Lists,
    ) -> Result<Arc<Exchange>, RuntimeError> {
        let rank = self.rank;
        let found = lists.open.remove(&collective);
        found.ok_or_else(|| ResolveFault::NotBegun { rank, collective }.into())
    }

    fn carries(&self, rank: &RankPlan) -> Result<Vec<Move>, RuntimeError> {
        let mut moves = Vec::new();
        for carry in &self.plan.carries {
            let output = self.bound(&rank.outputs, carry.output)?;
            let input = self.bound(&rank.inputs, carry.input)?;
            let same = output
                .zip(input)
                .filter(|(from, to)| from.len() == to.len() && from.dtype() == to.dtype());
            let Some((src, dst)) = same else {
                return Err(ResolveFault::CarryMismatch {
                    rank: self.rank,
                    output: carry.output,
                    input: carry.input,
                    output_len: output.map(|view| view.len()),
                    input_len: input.map(|view| view.len()),
                }
                .into());
            };
            if src == dst {
                continue;
            }
            self.keeps_outputs(rank, carry, dst)?;
            let boxes = Boxes::dense(src.len());
            moves.push(Move { src, dst, boxes });
        }
        Ok(moves)
    }

    /// Outputs are read, and carried, after a run: no carry may have overwritten them.
    fn keeps_outputs(
        &self,
        rank: &RankPlan,
        carry: &Carry,
        input: View,
    ) -> Result<(), RuntimeError> {
        for binding in &rank.outputs {
            if !input.is_empty() && self.view(binding.buffer)? == input {
                return Err(ResolveFault::CarryOverwrites {
                    rank: self.rank,
                    output: binding.port,
                    input: carry.input,
                }
                .into());
            }
        }
        Ok(())
    }

    fn bound(&self, bindings: &[Binding], port: usize) -> Result<Option<View>, RuntimeError> {
        let binding = bindings.iter().find(|binding| binding.port == port);
        binding.map(|binding| self.view(binding.buffer)).transpose()
    }

    fn checked(&self, boxes: &[BoxCopy], src: View, dst: View) -> Result<Boxes, RuntimeError> {
        let boxes = Boxes::new(boxes)?;
        boxes.fits(src.len(), dst.len())?;
        Ok(boxes)
    }

    pub(crate) fn view(&self, buffer: BufferId) -> Result<View, RuntimeError> {
        self.backend.view(self.memory, buffer).ok_or_else(|| {
            let rank = self.rank;
            ResolveFault::NoBuffer { rank, buffer }.into()
        })
    }
}

/// What the steps of a rank share while they are resolved.
struct Lists {
    patterns: Vec<Arc<Pattern>>,
    /// Exchanges begun and not yet waited for.
    open: BTreeMap<CollectiveId, Arc<Exchange>>,
}

/// Bytes of `elements` elements of a buffer, for the trace.
fn size(elements: usize, view: View) -> u64 {
    elements.saturating_mul(view.dtype().bytes()) as u64
}

/// Bytes that an exchange delivers.
fn received(exchange: &Exchange) -> u64 {
    let boxes = exchange.pattern.receives.iter().flat_map(|t| &t.boxes);
    let elements = boxes.map(|b| b.elements().unwrap_or(0));
    size(elements.fold(0, usize::saturating_add), exchange.dst)
}
