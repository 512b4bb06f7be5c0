//! The local fabric: ranks are threads of one process and read each other's memory.
//!
//! A rank publishes the address of its source and a mark of when it is made; a receiver copies straight
//! from there into its own destination, so data moves once, and leaves a mark of when it has read. Transfers are matched when the fabric is made: what a receiver
//! copies is known before anything runs.
//!
//! Invariants: a source is read only between its publication and the end of its owner's wait; a wait
//! times out when no rank at all has begun a step for the whole limit, so ranks may do unequal work
//! and only one step that takes longer looks like a stall. Refused: transfers of which sender and
//! receiver disagree.

use super::{Exchange, Fabric};
use crate::backend::{Copier, Mark, View};
use crate::boxes::Boxes;
use crate::position::Positions;
use crate::{ResolveFault, RuntimeError, Waiting};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use terrace_plan::{Action, CollectiveId, PatternId, Plan, Rank, RankPlan};

/// Exchange groups of one process.
#[derive(Debug)]
pub struct LocalFabric {
    groups: Vec<Group>,
    aborted: AtomicBool,
    timeout: Duration,
    positions: Arc<Positions>,
}

impl LocalFabric {
    /// Matches all transfers of `plan`. `timeout` limits how long one wait may last without any
    /// progress in `positions`; it is noticed within twice that time.
    ///
    /// # Errors
    /// When what a rank sends is not what its peer receives.
    pub(crate) fn new(
        plan: &Plan,
        positions: Arc<Positions>,
        timeout: Duration,
    ) -> Result<Self, RuntimeError> {
        let patterns = patterns_by_collective(plan);
        let mut matcher = Matcher {
            plan,
            matched: BTreeMap::new(),
        };
        let groups = plan
            .collectives
            .iter()
            .enumerate()
            .map(|(id, collective)| {
                let members = &collective.members;
                let used = |rank: &Rank| patterns.get(&(CollectiveId(id), *rank)).copied();
                let sources = members
                    .iter()
                    .map(|&rank| matcher.receives(members, rank, used))
                    .collect::<Result<_, _>>()?;
                Ok(Group {
                    members: members.clone(),
                    receives: sources,
                    slots: Mutex::new(vec![Slot::default(); members.len()]),
                    changed: Condvar::new(),
                })
            })
            .collect::<Result<_, RuntimeError>>()?;
        Ok(Self {
            groups,
            aborted: AtomicBool::new(false),
            timeout,
            positions,
        })
    }

    fn group(&self, rank: Rank, id: CollectiveId) -> Result<(&Group, usize), RuntimeError> {
        let group = self.groups.get(id.0);
        let at = group.and_then(|g| Some((g, g.members.iter().position(|&m| m == rank)?)));
        at.ok_or_else(|| {
            let collective = id;
            ResolveFault::NotAMember { rank, collective }.into()
        })
    }

    /// Waits until `ready` holds for the slots of a group.
    fn wait_until<'a>(
        &self,
        group: &'a Group,
        waiting: &Waiting,
        ready: impl Fn(&[Slot]) -> bool,
    ) -> Result<MutexGuard<'a, Vec<Slot>>, RuntimeError> {
        let mut seen = (self.positions.progress(), Instant::now());
        let mut slots = group.lock();
        loop {
            self.check()?;
            if ready(&slots) {
                return Ok(slots);
            }
            let progress = self.positions.progress();
            if progress != seen.0 {
                seen = (progress, Instant::now());
            }
            let Some(left) = self.timeout.checked_sub(seen.1.elapsed()) else {
                return Err(RuntimeError::ExchangeTimeout {
                    waiting: waiting.clone(),
                    after: self.timeout,
                });
            };
            slots = group
                .changed
                .wait_timeout(slots, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Fabric for LocalFabric {
    fn begin(
        &self,
        rank: Rank,
        exchange: &Exchange,
        copier: &dyn Copier,
    ) -> Result<(), RuntimeError> {
        let (group, me) = self.group(rank, exchange.collective)?;
        let made = copier.mark()?;
        let mut slots = group.lock();
        if slots[me].source.is_some() {
            return Err(ResolveFault::BegunTwice {
                rank,
                collective: exchange.collective,
            }
            .into());
        }
        slots[me] = Slot {
            source: Some((exchange.src, made)),
            readers: exchange.pattern.sends.len(),
            read: Vec::new(),
        };
        drop(slots);
        group.changed.notify_all();
        Ok(())
    }

    fn wait(
        &self,
        rank: Rank,
        exchange: &Exchange,
        copier: &dyn Copier,
    ) -> Result<(), RuntimeError> {
        let collective = exchange.collective;
        let (group, me) = self.group(rank, collective)?;
        // The destination is free when this rank has got to where it began the exchange.
        let own = group.lock()[me].source.clone();
        let free = own.map_or(Mark::ENDED, |(_, made)| made);
        let mut copied = Vec::new();
        for (peer, boxes) in &group.receives[me] {
            let waiting = Waiting::Begin {
                collective,
                peer: group.members[*peer],
            };
            let slots = self.wait_until(group, &waiting, |slots| slots[*peer].source.is_some())?;
            let Some((source, made)) = slots[*peer].source.clone() else {
                continue;
            };
            drop(slots);
            let after = [free.clone(), made];
            // SAFETY: the peer has published its source and waits for this reader before it changes
            // it; nobody else touches this rank's destination, as the plan's check has proved.
            let read = unsafe { copier.pull(&after, source, exchange.dst, boxes) }?;
            copied.push(read.clone());
            let mut slots = group.lock();
            slots[*peer].readers = slots[*peer].readers.saturating_sub(1);
            slots[*peer].read.push(read);
            let finished = slots[*peer].readers == 0;
            drop(slots);
            if finished {
                group.changed.notify_all();
            }
        }
        let waiting = Waiting::Readers { collective };
        let mut slots = self.wait_until(group, &waiting, |slots| slots[me].readers == 0)?;
        slots[me].source = None;
        copied.append(&mut slots[me].read);
        drop(slots);
        copier.join(&copied)
    }

    fn abort(&self, _: &str) {
        self.aborted.store(true, Ordering::Release);
        for group in &self.groups {
            // Taking the lock makes sure that no waiter is between its test and its sleep.
            drop(group.lock());
            group.changed.notify_all();
        }
    }

    fn check(&self) -> Result<(), RuntimeError> {
        match self.aborted.load(Ordering::Acquire) {
            true => Err(RuntimeError::Aborted),
            false => Ok(()),
        }
    }
}

/// One collective.
#[derive(Debug)]
struct Group {
    members: Vec<Rank>,
    /// Per member: index of the peer that delivers, and what to copy from its source.
    receives: Vec<Vec<(usize, Arc<Boxes>)>>,
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Slots change by single assignments, so a panic elsewhere leaves them consistent.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a member has published.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// The source, and the mark of when it is made.
    source: Option<(View, Mark)>,
    /// Peers that have not been told to read it yet.
    readers: usize,
    /// Marks of when those that were told have read it.
    read: Vec<Mark>,
}

/// The pattern that each member of each collective uses; a plan issues a collective once.
pub(super) fn patterns_by_collective(plan: &Plan) -> BTreeMap<(CollectiveId, Rank), PatternId> {
    let mut patterns = BTreeMap::new();
    for (rank, steps) in plan.ranks.iter().enumerate() {
        for step in steps.init.iter().chain(&steps.steps) {
            if let Action::Exchange {
                collective,
                pattern,
                ..
            } = &step.action
            {
                patterns.insert((*collective, Rank(rank)), *pattern);
            }
        }
    }
    patterns
}

/// Matches sends with receives, each pair of patterns once: the blocks of a model share them.
struct Matcher<'a> {
    plan: &'a Plan,
    matched: BTreeMap<(Rank, PatternId, Rank, PatternId), Arc<Boxes>>,
}

impl Matcher<'_> {
    /// What `rank` copies from each peer.
    fn receives(
        &mut self,
        members: &[Rank],
        rank: Rank,
        used: impl Fn(&Rank) -> Option<PatternId>,
    ) -> Result<Vec<(usize, Arc<Boxes>)>, RuntimeError> {
        let Some(mine) = used(&rank) else {
            return Ok(Vec::new());
        };
        let plan = self.plan;
        let Some(pattern) = rank_plan(plan, rank).and_then(|r| r.patterns.get(mine.0)) else {
            return Err(ResolveFault::NoPattern {
                rank,
                pattern: mine,
            }
            .into());
        };
        let mut receives = Vec::new();
        for transfer in &pattern.receives {
            let peer = transfer.peer;
            let unmatched = ResolveFault::NoSender { rank, peer };
            let (Some(at), Some(theirs)) = (members.iter().position(|&m| m == peer), used(&peer))
            else {
                return Err(unmatched.into());
            };
            let key = (peer, theirs, rank, mine);
            let boxes = match self.matched.get(&key) {
                Some(boxes) => Arc::clone(boxes),
                None => {
                    let sends = rank_plan(plan, peer)
                        .and_then(|r| r.patterns.get(theirs.0))
                        .and_then(|p| p.sends.iter().find(|send| send.peer == rank))
                        .ok_or(unmatched)?;
                    let boxes = Arc::new(Boxes::matched(&sends.boxes, &transfer.boxes)?);
                    self.matched.insert(key, Arc::clone(&boxes));
                    boxes
                }
            };
            receives.push((at, boxes));
        }
        // Everyone starts with another peer, so that not all read the same source first.
        let me = members.iter().position(|&m| m == rank).unwrap_or(0);
        receives.sort_by_key(|&(at, _)| (at + members.len() - me) % members.len());
        Ok(receives)
    }
}

fn rank_plan(plan: &Plan, rank: Rank) -> Option<&RankPlan> {
    plan.ranks.get(rank.0)
}
