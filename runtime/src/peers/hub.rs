//! What this process has heard of the others, and waits for more.
//!
//! Invariants: a link fills its own door only; messages of a peer are taken in the order in which it sent them;
//! every wait ends: with what it waits for, with the failure of some rank, or when its time is over.

use super::bytes::{Bytes, Spares};
#[cfg(any(test, feature = "cuda"))]
use crate::position::IDLE;
use crate::position::Positions;
use crate::{PeerFault, RuntimeError, Waiting};
use std::collections::VecDeque;
#[cfg(any(test, feature = "cuda"))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use terrace_plan::{CollectiveId, Rank};

/// Time between two looks of a guard.
#[cfg(any(test, feature = "cuda"))]
const LOOK: Duration = Duration::from_millis(100);

/// What a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(super) u64);

/// Tags from here on are none of collectives.
const OTHERS: u64 = 1 << 32;

impl Tag {
    /// A text that all must have in common.
    pub(crate) const SAME: Self = Self(OTHERS);
    /// What rank 0 gives to all.
    pub(crate) const FIRST: Self = Self(OTHERS + 1);
    /// A part of an output.
    pub(crate) const OUTPUT: Self = Self(OTHERS + 2);

    pub(crate) const fn collective(id: CollectiveId) -> Self {
        Self(id.0 as u64)
    }
}

/// How long a wait lasts.
#[derive(Clone, Copy)]
pub(crate) enum Patience<'a> {
    /// While any rank gets on with its list.
    Progress(&'a Positions, &'a Waiting),
    /// While the peer is heard of.
    Life,
}

/// Everything that links and waiting threads share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(super) rank: Rank,
    pub(super) timeout: Duration,
    pub(crate) spares: Spares,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    doors: Vec<Door>,
    failure: Option<Failure>,
    /// Those of the session that is there at present.
    pub(super) positions: Option<Arc<Positions>>,
}

/// What has come from one peer.
#[derive(Debug)]
pub(crate) struct Door {
    pub(super) inbox: VecDeque<(Tag, Bytes)>,
    /// Messages of collectives that the peer has put in place, and nobody has asked about.
    pub(super) taken: usize,
    /// Why nothing more will come.
    gone: Option<String>,
    seen: Instant,
}

/// Why a run cannot go on.
#[derive(Debug)]
enum Failure {
    /// This rank has failed.
    Own,
    /// Another one has; its text.
    Other(String),
}

impl State {
    fn check(&self) -> Result<(), RuntimeError> {
        match &self.failure {
            None => Ok(()),
            Some(Failure::Own) => Err(RuntimeError::Aborted),
            Some(Failure::Other(cause)) => Err(PeerFault::Failed {
                cause: cause.clone(),
            }
            .into()),
        }
    }

    fn lost(&self, rank: Rank, reason: String) -> RuntimeError {
        let positions = self.positions.as_ref();
        PeerFault::Lost {
            rank,
            reason,
            last: positions.map(|positions| Box::new(positions.status(rank))),
        }
        .into()
    }
}

impl Hub {
    pub(super) fn new(rank: Rank, ranks: usize, timeout: Duration) -> Self {
        let door = |_| Door {
            inbox: VecDeque::new(),
            taken: 0,
            gone: None,
            seen: Instant::now(),
        };
        Self {
            rank,
            timeout,
            spares: Spares::default(),
            state: Mutex::new(State {
                doors: (0..ranks).map(door).collect(),
                failure: None,
                positions: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state changes by single assignments, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a peer, who lives.
    pub(super) fn heard(&self, peer: Rank, change: impl FnOnce(&mut Door)) {
        let mut state = self.lock();
        let door = &mut state.doors[peer.0];
        door.seen = Instant::now();
        change(door);
        if let Some(positions) = &state.positions {
            positions.progressed();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Notes where a peer is, who lives.
    pub(super) fn at(&self, peer: Rank, word: u64) {
        let mut state = self.lock();
        state.doors[peer.0].seen = Instant::now();
        if let Some(positions) = &state.positions {
            positions.note(peer, word);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that nothing more will come from a peer.
    pub(super) fn gone(&self, peer: Rank, reason: String) {
        self.lock().doors[peer.0].gone.get_or_insert(reason);
        self.changed.notify_all();
    }

    /// Notes that another rank has failed.
    pub(super) fn failed(&self, cause: String) {
        let mut state = self.lock();
        state.failure.get_or_insert(Failure::Other(cause));
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that this rank has failed. Whether nobody knew of a failure before.
    pub(super) fn fail(&self) -> bool {
        let mut state = self.lock();
        let first = state.failure.is_none();
        state.failure.get_or_insert(Failure::Own);
        drop(state);
        self.changed.notify_all();
        first
    }

    /// Whether the run may go on.
    pub(super) fn check(&self) -> Result<(), RuntimeError> {
        self.lock().check()
    }

    /// Waits until all peers are gone, but not longer than `limit`.
    pub(super) fn wait_for_end(&self, limit: Duration) {
        let rank = self.rank.0;
        let here = |state: &mut State| {
            let mut others = state.doors.iter().enumerate();
            others.any(|(at, door)| at != rank && door.gone.is_none())
        };
        let waited = self.changed.wait_timeout_while(self.lock(), limit, here);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until `take` finds in a peer's door what it looks for.
    pub(super) fn wait<T>(
        &self,
        peer: Rank,
        patience: Patience<'_>,
        mut take: impl FnMut(&mut Door) -> Option<T>,
    ) -> Result<T, RuntimeError> {
        let mut progress = (patience.progress(), Instant::now());
        let mut state = self.lock();
        loop {
            state.check()?;
            let door = &mut state.doors[peer.0];
            if let Some(found) = take(door) {
                return Ok(found);
            }
            if let Some(reason) = door.gone.clone() {
                return Err(state.lost(peer, reason));
            }
            let seen = door.seen;
            if patience.progress() != progress.0 {
                progress = (patience.progress(), Instant::now());
            }
            let since = match patience {
                Patience::Progress(..) => progress.1,
                Patience::Life => seen,
            };
            let Some(left) = self.timeout.checked_sub(since.elapsed()) else {
                return Err(self.over(&state, peer, patience));
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a run of this rank cannot end any more, because a rank has failed or is gone, or none gets on.
    /// False when `stopped` comes first.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn watch(&self, positions: &Positions, stopped: &AtomicBool) -> bool {
        let mut progress = (positions.progress(), Instant::now());
        let mut state = self.lock();
        while !stopped.load(Ordering::Acquire) {
            if state.failure.is_some() {
                return true;
            }
            if positions.progress() != progress.0 || positions.word(self.rank) == IDLE {
                progress = (positions.progress(), Instant::now());
            }
            if let Some(error) = self.hopeless(&state, positions, progress.1.elapsed()) {
                let error = error.at(positions, self.rank);
                state.failure = Some(Failure::Other(error.to_string()));
                return true;
            }
            let waited = self.changed.wait_timeout(state, LOOK.min(self.timeout));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    #[cfg(any(test, feature = "cuda"))]
    fn hopeless(
        &self,
        state: &State,
        positions: &Positions,
        idle: Duration,
    ) -> Option<RuntimeError> {
        if positions.word(self.rank) == IDLE {
            return None;
        }
        let mut doors = state.doors.iter().enumerate();
        let gone = doors.find_map(|(peer, door)| Some((peer, door.gone.clone()?)));
        if let Some((peer, reason)) = gone {
            return Some(state.lost(Rank(peer), reason));
        }
        let patience = Patience::Progress(positions, &Waiting::Device);
        (idle > self.timeout).then(|| self.over(state, self.rank, patience))
    }

    /// Lets those that wait look again.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn wake(&self) {
        // Taking the lock makes sure that no waiter is between its test and its sleep.
        drop(self.lock());
        self.changed.notify_all();
    }

    fn over(&self, state: &State, peer: Rank, patience: Patience<'_>) -> RuntimeError {
        match patience {
            Patience::Progress(_, waiting) => RuntimeError::ExchangeTimeout {
                waiting: waiting.clone(),
                after: self.timeout,
            },
            Patience::Life => {
                let reason = format!("it has not been heard of for {:?}", self.timeout);
                state.lost(peer, reason)
            }
        }
    }
}

impl Patience<'_> {
    fn progress(&self) -> u64 {
        match self {
            Self::Progress(positions, _) => positions.progress(),
            Self::Life => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;
    use terrace_plan::Plan;

    const TIMEOUT: Duration = Duration::from_millis(300);

    /// Positions of two ranks that do nothing.
    fn positions() -> Positions {
        let rank = r#"{"arena_bytes": 0, "state_bytes": 0, "buffers": [], "inputs": [], "outputs": [],
            "patterns": [], "init": [], "steps": []}"#;
        let json = format!(
            r#"{{"header": {{"format": 2, "producer": "a test", "graph": "nothing", "request": "{{}}",
                "fingerprint": {{"model": "none", "shape": "none", "dtype": "f32", "mesh": "none",
                "kernels": "any"}}}}, "mesh": {{"cfg": 1, "ring": 1, "ulysses": 2}}, "partitions": [],
                "inputs": [], "outputs": [], "carries": [], "weights": [], "collectives": [],
                "origins": [], "ranks": [{rank}, {rank}]}}"#
        );
        Positions::new(Arc::new(Plan::from_json(json.as_bytes()).unwrap()))
    }

    /// What ends the watch of a rank that runs, when `happen` happens.
    fn watched(happen: impl FnOnce(&Hub, &Positions, &AtomicBool)) -> (bool, String) {
        let (hub, positions) = (Hub::new(Rank(0), 2, TIMEOUT), positions());
        let stopped = AtomicBool::new(false);
        positions.enter(Rank(0), Phase::Steps, 0);
        let over = std::thread::scope(|scope| {
            let watch = scope.spawn(|| hub.watch(&positions, &stopped));
            happen(&hub, &positions, &stopped);
            watch.join().unwrap()
        });
        let error = hub.check().err();
        (over, error.map_or_else(String::new, |it| it.to_string()))
    }

    #[test]
    fn a_watch_ends_with_what_ends_the_run() {
        let (over, error) = watched(|hub, _, _| hub.failed("rank 1 is tired".to_owned()));
        assert!(
            over && error.ends_with("has failed: rank 1 is tired"),
            "{error}"
        );
        let (over, error) = watched(|hub, _, _| hub.gone(Rank(1), "unplugged".to_owned()));
        assert!(
            over && error.contains("rank 1 is gone: unplugged"),
            "{error}"
        );
        let (over, error) = watched(|_, _, _| {});
        assert!(over && error.contains("waits for the device"), "{error}");
        assert!(
            error.contains("no rank has made progress for 300ms"),
            "{error}"
        );
    }

    #[test]
    fn a_watch_leaves_ranks_alone_that_get_on_or_rest() {
        let (over, error) = watched(|hub, positions, stopped| {
            for step in 1..8 {
                positions.enter(Rank(0), Phase::Steps, step);
                std::thread::sleep(TIMEOUT / 4);
            }
            positions.leave(Rank(0));
            // Whoever is done may go, and others may take their time.
            hub.gone(Rank(1), "done".to_owned());
            std::thread::sleep(2 * TIMEOUT);
            stopped.store(true, Ordering::Release);
            hub.wake();
        });
        assert_eq!((over, error.as_str()), (false, ""));
    }
}
