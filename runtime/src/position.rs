//! Where every rank is: what errors and timeouts report; of ranks of other processes, what they said last.
//!
//! Invariant: a rank's position is one word that only the rank writes, so keeping it costs two atomic
//! writes per step and reading it is always possible, also while the rank is stuck.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use terrace_plan::{Action, CollectiveId, Plan, Rank, Step};

/// Which list of steps a rank runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Once per session.
    Init,
    /// Once per call.
    Steps,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init step",
            Self::Steps => "step",
        })
    }
}

/// A step of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The rank.
    pub rank: Rank,
    /// The list that the step is in.
    pub phase: Phase,
    /// Position in the list, counted from zero.
    pub step: usize,
    /// Length of the list.
    pub steps: usize,
    /// Kernel or data movement.
    pub what: String,
    /// Model path that the step comes from.
    pub origin: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rank,
            phase,
            step,
            steps,
            what,
            origin,
        } = self;
        write!(
            f,
            "rank {rank}, {phase} {step} of {steps}, {what} at `{origin}`"
        )
    }
}

/// What a rank waits for in an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A peer has not begun the exchange.
    Begin {
        /// The exchange.
        collective: CollectiveId,
        /// The peer.
        peer: Rank,
    },
    /// A peer has not read this rank's source yet.
    Readers {
        /// The exchange.
        collective: CollectiveId,
    },
    /// A peer has not handed over its part of an output.
    Output {
        /// The peer.
        peer: Rank,
    },
    /// The device has not ended what it was told.
    Device,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { collective, peer } => {
                write!(f, "rank {peer} to begin collective {}", collective.0)
            }
            Self::Readers { collective } => {
                write!(f, "its peers to read collective {}", collective.0)
            }
            Self::Output { peer } => write!(f, "rank {peer} to hand over its part of an output"),
            Self::Device => f.write_str("the device to end its exchanges"),
        }
    }
}

/// What a rank was last seen doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// At a step.
    At(Place),
    /// Before the first step or after the last.
    Idle(Rank),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(place) => place.fmt(f),
            Self::Idle(rank) => write!(f, "rank {rank}, at the end of its list"),
        }
    }
}

/// Positions of all ranks.
#[derive(Debug)]
pub(crate) struct Positions {
    plan: Arc<Plan>,
    words: Vec<AtomicU64>,
    /// Steps that all ranks have begun or ended together.
    progress: AtomicU64,
}

/// The word of a rank between two runs.
pub(crate) const IDLE: u64 = u64::MAX;
const INIT: u64 = 1 << 63;

impl Positions {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        let words = plan.ranks.iter().map(|_| AtomicU64::new(IDLE)).collect();
        Self {
            plan,
            words,
            progress: AtomicU64::new(0),
        }
    }

    /// Notes that `rank` begins a step.
    pub(crate) fn enter(&self, rank: Rank, phase: Phase, step: usize) {
        let flag = match phase {
            Phase::Init => INIT,
            Phase::Steps => 0,
        };
        self.words[rank.0].store(flag | step as u64, Ordering::Relaxed);
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that `rank` is between two runs.
    pub(crate) fn leave(&self, rank: Rank) {
        self.words[rank.0].store(IDLE, Ordering::Relaxed);
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that grows whenever any rank gets on.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Notes that something has come from a rank of another process.
    pub(crate) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes where a rank of another process is, in its words.
    pub(crate) fn note(&self, rank: Rank, word: u64) {
        let known = self.words.get(rank.0);
        if known.is_some_and(|known| known.swap(word, Ordering::Relaxed) != word) {
            self.progressed();
        }
    }

    /// Where a rank is, in words for another process.
    pub(crate) fn word(&self, rank: Rank) -> u64 {
        let word = self.words.get(rank.0);
        word.map_or(IDLE, |word| word.load(Ordering::Relaxed))
    }

    /// Where `rank` was last seen.
    pub(crate) fn status(&self, rank: Rank) -> Status {
        let word = self.words[rank.0].load(Ordering::Relaxed);
        if word == IDLE {
            return Status::Idle(rank);
        }
        let phase = if word & INIT == 0 {
            Phase::Steps
        } else {
            Phase::Init
        };
        Status::At(place(&self.plan, rank, phase, (word & !INIT) as usize))
    }

    /// The step that `rank` was last seen at, the end of its list when it is between two runs.
    pub(crate) fn place(&self, rank: Rank) -> Place {
        match self.status(rank) {
            Status::At(place) => place,
            Status::Idle(rank) => place(&self.plan, rank, Phase::Steps, usize::MAX),
        }
    }

    /// Where every rank was last seen.
    pub(crate) fn all(&self) -> Vec<Status> {
        (0..self.words.len())
            .map(|rank| self.status(Rank(rank)))
            .collect()
    }
}

/// Describes a step of a plan; what follows a list are the carries.
pub(crate) fn place(plan: &Plan, rank: Rank, phase: Phase, step: usize) -> Place {
    let list: &[Step] = plan.ranks.get(rank.0).map_or(&[], |ranks| match phase {
        Phase::Init => &ranks.init,
        Phase::Steps => &ranks.steps,
    });
    let at = list.get(step);
    Place {
        rank,
        phase,
        step: step.min(list.len()),
        steps: list.len(),
        what: at.map_or_else(|| "carry".to_owned(), |step| describe(plan, &step.action)),
        origin: at
            .and_then(|step| plan.origins.get(step.origin.0))
            .unwrap_or(&plan.header.graph)
            .clone(),
    }
}

fn describe(plan: &Plan, action: &Action) -> String {
    let named = |verb: &str, id: CollectiveId| {
        let kind = plan
            .collectives
            .get(id.0)
            .map_or("exchange", |c| c.kind.name());
        format!("{verb} {kind} (collective {})", id.0)
    };
    match action {
        Action::Launch(call) => call.name().to_owned(),
        Action::Exchange { collective, .. } => named("begin", *collective),
        Action::Wait { collective } => named("wait for", *collective),
        Action::Copy { .. } => "copy".to_owned(),
        Action::Free { .. } => "free".to_owned(),
    }
}
