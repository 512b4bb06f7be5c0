//! What goes wrong between the processes of the ranks.

use crate::Status;
use terrace_plan::{PlanError, Rank};

/// What goes wrong between the processes of the ranks.
#[derive(Debug, thiserror::Error)]
pub enum PeerFault {
    /// Another rank has failed and said so.
    #[error("stopped, because another rank has failed: {cause}")]
    Failed {
        /// What that rank says.
        cause: String,
    },
    /// The process of another rank is not there any more.
    #[error("rank {rank} is gone: {reason}{}; see what its process says", last_seen(.last.as_deref()))]
    Lost {
        /// The rank.
        rank: Rank,
        /// How that was noticed.
        reason: String,
        /// Where it was last heard to be.
        last: Option<Box<Status>>,
    },
    /// Two ranks are about to run different things.
    #[error(
        "{what} of rank {peer} is {other}, that of rank {rank} {own}; start all processes with the same \
         arguments, model and plan file"
    )]
    Differs {
        /// What differs.
        what: &'static str,
        /// This rank.
        rank: Rank,
        /// What it has.
        own: String,
        /// The other rank.
        peer: Rank,
        /// What that has.
        other: String,
    },
    /// The plan has another number of ranks.
    #[error(
        "the plan has {ranks} ranks, but {processes} processes were started, one per rank; start {ranks}, or \
         compile a plan for {processes}"
    )]
    Processes {
        /// Ranks of the plan.
        ranks: usize,
        /// Processes.
        processes: usize,
    },
    /// A peer sent something before its time.
    #[error(
        "rank {rank} sent message {found}, expected {expected}; this is a bug, please report it"
    )]
    Order {
        /// The peer.
        rank: Rank,
        /// Number of what was to come.
        expected: u64,
        /// Number of what came.
        found: u64,
    },
    /// A message has another length.
    #[error("rank {rank} sent {found} bytes, expected {expected}; this is a bug, please report it")]
    Bytes {
        /// The peer.
        rank: Rank,
        /// Bytes of the plan.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The plan cannot be compared with those of other ranks.
    #[error("the plan cannot be compared with those of other ranks: {source}")]
    PlanText {
        /// What the serializer said.
        source: Box<PlanError>,
    },
}

fn last_seen(last: Option<&Status>) -> String {
    last.map_or_else(String::new, |status| format!(" (last seen: {status})"))
}
