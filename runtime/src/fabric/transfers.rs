//! What one rank sends and receives in each collective, between its buffers and bytes that lie side by side.
//!
//! Invariants: the bytes of a transfer are its boxes in order, each row by row, on both sides alike, as the plan's
//! check has compared them; nothing empty is sent.

use super::local::patterns_by_collective;
use crate::boxes::Boxes;
use crate::{ResolveFault, RuntimeError};
use std::collections::BTreeMap;
use std::sync::Arc;
use terrace_plan::{CollectiveId, Pattern, PatternId, Plan, Rank, Transfer};

/// What a rank sends and receives in a collective.
#[derive(Debug)]
pub(crate) struct Transfers {
    /// From the source to bytes side by side.
    pub(crate) sends: Vec<(Rank, Boxes)>,
    /// From bytes side by side to the destination.
    pub(crate) receives: Vec<(Rank, Boxes)>,
}

/// All collectives of a rank.
#[derive(Debug)]
pub(crate) struct Collectives {
    rank: Rank,
    /// By collective; the blocks of a model share them.
    transfers: BTreeMap<CollectiveId, Arc<Transfers>>,
}

impl Collectives {
    pub(crate) fn new(plan: &Plan, rank: Rank) -> Result<Self, RuntimeError> {
        let mut known: BTreeMap<PatternId, Arc<Transfers>> = BTreeMap::new();
        let mut transfers = BTreeMap::new();
        for ((collective, member), pattern) in patterns_by_collective(plan) {
            if member != rank {
                continue;
            }
            let made = match known.get(&pattern) {
                Some(made) => Arc::clone(made),
                None => {
                    let found = plan.ranks.get(rank.0);
                    let found = found.and_then(|own| own.patterns.get(pattern.0));
                    let found = found.ok_or(ResolveFault::NoPattern { rank, pattern })?;
                    let made = Arc::new(Transfers::new(found, rank, plan.ranks.len())?);
                    known.insert(pattern, Arc::clone(&made));
                    made
                }
            };
            transfers.insert(collective, made);
        }
        Ok(Self { rank, transfers })
    }

    pub(crate) fn get(&self, collective: CollectiveId) -> Result<&Arc<Transfers>, RuntimeError> {
        let rank = self.rank;
        let found = self.transfers.get(&collective);
        found.ok_or_else(|| ResolveFault::NotAMember { rank, collective }.into())
    }
}

impl Transfers {
    fn new(pattern: &Pattern, rank: Rank, ranks: usize) -> Result<Self, RuntimeError> {
        let list = |transfers: &[Transfer], boxes: fn(&Transfer) -> Result<Boxes, RuntimeError>| {
            let made = transfers.iter().map(|it| Ok((it.peer, boxes(it)?)));
            let mut made = made.collect::<Result<Vec<_>, RuntimeError>>()?;
            // Everyone starts with another peer, so that not all turn to the same one first.
            made.sort_by_key(|(peer, _)| (peer.0 + ranks - rank.0) % ranks);
            Ok::<_, RuntimeError>(made)
        };
        Ok(Self {
            sends: list(&pattern.sends, |it| Boxes::packed(&it.boxes))?,
            receives: list(&pattern.receives, |it| Boxes::unpacked(&it.boxes))?,
        })
    }
}
