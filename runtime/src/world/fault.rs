//! Why processes do not come together.

use std::time::Duration;
use terrace_plan::Rank;

/// Why processes do not come together.
#[derive(Debug, thiserror::Error)]
pub enum WorldFault {
    /// A launcher has set some of its variables only.
    #[error(
        "started by {launcher}, but {variable} is not set; set it for all processes, MASTER_ADDR to the \
         host of rank 0 and MASTER_PORT to a free port of it"
    )]
    Missing {
        /// Name of the launcher.
        launcher: &'static str,
        /// Name of the variable.
        variable: &'static str,
    },
    /// A variable holds no number.
    #[error("{variable} must be a number, found `{found}`")]
    NotANumber {
        /// Name of the variable.
        variable: &'static str,
        /// Its value.
        found: String,
    },
    /// A rank outside of the world.
    #[error(
        "this process is rank {rank} of {ranks} ranks, which are numbered from 0; start it anew"
    )]
    NoRank {
        /// Its rank.
        rank: usize,
        /// Number of ranks.
        ranks: usize,
    },
    /// A port that does not exist, or the last one.
    #[error("MASTER_PORT must be 1 to 65534, found {found}; the port behind it is used as well")]
    Port {
        /// The number given.
        found: usize,
    },
    /// Rank 0 cannot wait for the others.
    #[error("rank 0 cannot listen on port {port}: {source}; choose another MASTER_PORT")]
    Listen {
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// Rank 0 was not reached.
    #[error(
        "rank {rank} cannot reach rank 0 at {address} within {after:?}: {reason}; see that MASTER_ADDR and \
         MASTER_PORT are those of rank 0's host on all processes"
    )]
    Unreachable {
        /// The rank that tried.
        rank: Rank,
        /// Where.
        address: String,
        /// The limit.
        after: Duration,
        /// What the system said last.
        reason: String,
    },
    /// The ranks have met, but one of them is not where it said.
    #[error(
        "rank {rank} cannot be reached at {address}: {reason}; see that its host takes connections from the others"
    )]
    NoLink {
        /// The rank.
        rank: Rank,
        /// Where it waits.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// This rank cannot wait for the others.
    #[error("rank {rank} cannot wait for other ranks: {source}")]
    Wait {
        /// The rank.
        rank: Rank,
        /// What the system said.
        source: std::io::Error,
    },
    /// Some ranks have not come.
    #[error("ranks {missing:?} have not come within {after:?}; see what they say")]
    Absent {
        /// The ranks.
        missing: Vec<usize>,
        /// The limit.
        after: Duration,
    },
    /// A process runs something else.
    #[error(
        "rank {rank} runs {found}, rank 0 {expected}; start all processes with the same arguments"
    )]
    Differs {
        /// The rank.
        rank: usize,
        /// What rank 0 runs.
        expected: String,
        /// What the other runs.
        found: String,
    },
    /// Two processes have the same rank.
    #[error("two processes are rank {rank}; every process needs a rank of its own")]
    Twice {
        /// The rank.
        rank: usize,
    },
    /// Rank 0 has given up.
    #[error("rank 0 has given up: {reason}")]
    GivenUp {
        /// What it said.
        reason: String,
    },
}
