//! What the steps of the ranks do: launches, arithmetic, weights read and bytes exchanged.

use super::facts::{Count, KindTraffic, Link, Tokens, Traffic, WeightBytes, Work};
use crate::{
    Action, Collective, CollectiveId, CollectiveKind, DType, KernelCall, Plan, Rank, Step,
};
use std::collections::{BTreeMap, BTreeSet};

/// What one walk over a rank's steps finds out.
pub(super) struct Tally {
    pub(super) init: Work,
    pub(super) call: Work,
    pub(super) traffic: Vec<Traffic>,
    pub(super) weights: Vec<WeightBytes>,
    /// Tokens that a join puts together.
    pub(super) joined: Option<Tokens>,
}

/// Bytes between ranks in one call.
#[derive(Default)]
pub(super) struct Links {
    bytes: BTreeMap<(Rank, Rank, CollectiveKind), u64>,
    issued: BTreeSet<CollectiveId>,
    counts: BTreeMap<CollectiveKind, usize>,
}

impl Links {
    fn issue(&mut self, id: CollectiveId, collective: &Collective, rank: Rank, sent: &[u64]) {
        if self.issued.insert(id) {
            *self.counts.entry(collective.kind).or_default() += 1;
        }
        for (&to, &bytes) in collective.members.iter().zip(sent) {
            if bytes > 0 {
                let link = self.bytes.entry((rank, to, collective.kind)).or_default();
                *link = link.saturating_add(bytes);
            }
        }
    }

    pub(super) fn list(&self) -> Vec<Link> {
        self.bytes
            .iter()
            .map(|(&(from, to, kind), &bytes)| Link {
                from,
                to,
                kind,
                bytes,
            })
            .collect()
    }

    pub(super) fn by_kind(&self) -> Vec<KindTraffic> {
        self.counts
            .iter()
            .map(|(&kind, &count)| KindTraffic {
                kind,
                count,
                bytes: self
                    .bytes
                    .iter()
                    .filter(|((_, _, other), _)| *other == kind)
                    .fold(0, |sum, (_, &bytes)| sum.saturating_add(bytes)),
            })
            .collect()
    }
}

/// Walks both lists of a rank; exchanges of a call are added to `links`.
pub(super) fn tally(plan: &Plan, rank: Rank, links: &mut Links) -> Tally {
    let here = &plan.ranks[rank.0];
    let mut read = vec![false; plan.weights.len()];
    let mut joined = None;
    let init = work(&here.init, &mut read, &mut joined);
    let call = work(&here.steps, &mut read, &mut joined);
    Tally {
        init,
        call,
        traffic: traffic(plan, rank, links),
        weights: weights(plan, &read),
        joined,
    }
}

fn work(steps: &[Step], read: &mut [bool], joined: &mut Option<Tokens>) -> Work {
    let mut work = Work {
        steps: steps.len(),
        ..Work::default()
    };
    let mut launches: BTreeMap<&'static str, usize> = BTreeMap::new();
    for step in steps {
        match &step.action {
            Action::Launch(call) => {
                *launches.entry(call.name()).or_default() += 1;
                work.flops = work.flops.saturating_add(call.flops());
                for used in call.weights() {
                    if let Some(read) = read.get_mut(used.weight.0) {
                        *read = true;
                    }
                }
                *joined = joined.or_else(|| tokens(call));
            }
            Action::Exchange { .. } => work.exchanges += 1,
            Action::Copy { .. } => work.copies += 1,
            Action::Wait { .. } | Action::Free { .. } => {}
        }
    }
    work.launches = launches
        .into_iter()
        .map(|(kernel, count)| Count {
            kernel: kernel.to_owned(),
            count,
        })
        .collect();
    work
}

/// The joint sequence is put together once per batch item, wherever it is not cut.
fn tokens(call: &KernelCall) -> Option<Tokens> {
    if let KernelCall::Join {
        text_rows,
        video_rows,
        ..
    } = call
    {
        Some(Tokens::new(*text_rows, *video_rows))
    } else {
        None
    }
}

fn traffic(plan: &Plan, rank: Rank, links: &mut Links) -> Vec<Traffic> {
    let mut kinds: BTreeMap<CollectiveKind, Traffic> = BTreeMap::new();
    for step in &plan.ranks[rank.0].steps {
        let Action::Exchange { collective: id, .. } = &step.action else {
            continue;
        };
        let Some(collective) = plan.collectives.get(id.0) else {
            continue;
        };
        let Some(member) = collective.members.iter().position(|it| *it == rank) else {
            continue;
        };
        let row = collective.bytes.get(member).map_or(&[][..], Vec::as_slice);
        let column = collective.bytes.iter().filter_map(|row| row.get(member));
        links.issue(*id, collective, rank, row);
        let kind = collective.kind;
        let total = kinds.entry(kind).or_insert(Traffic {
            kind,
            count: 0,
            sent: 0,
            received: 0,
        });
        total.count += 1;
        total.sent = row.iter().fold(total.sent, |sum, n| sum.saturating_add(*n));
        total.received = column.fold(total.received, |sum, n| sum.saturating_add(*n));
    }
    kinds.into_values().collect()
}

fn weights(plan: &Plan, read: &[bool]) -> Vec<WeightBytes> {
    let mut types: BTreeMap<DType, WeightBytes> = BTreeMap::new();
    for (weight, _) in plan.weights.iter().zip(read).filter(|(_, read)| **read) {
        let dtype = weight.dtype;
        let total = types.entry(dtype).or_insert(WeightBytes {
            dtype,
            count: 0,
            bytes: 0,
        });
        let bytes = (weight.len as u64).saturating_mul(dtype.bytes() as u64);
        total.count += 1;
        total.bytes = total.bytes.saturating_add(bytes);
    }
    types.into_values().collect()
}
