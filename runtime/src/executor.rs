//! The executor: one thread per rank of this process that runs the rank's list, parked between two runs.
//!
//! Invariants: a rank's loop decides nothing and allocates nothing; whatever ends a rank, an error, a
//! panic, a stall, is recorded before the others are told to stop, so the first failure is the one
//! that is reported. All memory belongs to [`Shared`], which every thread keeps alive: a thread that
//! is stuck may be left behind, but never loses the memory that it works on.

use crate::backend::{Backend, OnLane};
use crate::fabric::Fabric;
use crate::ports::Bound;
use crate::position::{Phase, Positions};
use crate::program::{Act, Move, Program, Ready};
use crate::trace::{Recorder, Tracing};
use crate::{HostTensor, PeerFault, RuntimeError};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use terrace_plan::{Plan, Rank};

/// How long the other ranks get to end their step after one has failed.
const GRACE: Duration = Duration::from_secs(1);

/// A rank of this process and what it works with.
pub(crate) struct Seat<B: Backend> {
    pub(crate) rank: Rank,
    pub(crate) memory: B::Memory,
    pub(crate) lane: B::Lane,
}

/// What all ranks of a session in this process use.
pub(crate) struct Shared<B: Backend> {
    pub(crate) plan: Arc<Plan>,
    pub(crate) backend: Arc<B>,
    /// The ranks of this process, in order.
    pub(crate) seats: Vec<Seat<B>>,
    /// Kept here as well as in the launches, so that a cache sees that they are in use.
    pub(crate) weights: Vec<Arc<B::Weight>>,
    pub(crate) fabric: Box<dyn Fabric>,
    pub(crate) positions: Arc<Positions>,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) board: Board,
}

/// Who runs, and what went wrong first.
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// By seat.
    busy: Vec<bool>,
    failure: Option<RuntimeError>,
}

/// What a rank is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// The list that runs once per session.
    Init,
    /// The list of a call, and what follows it.
    Steps,
}

/// The ranks of a session on some device.
pub(crate) trait Ranks: Send + Sync {
    /// The plan that they run.
    fn plan(&self) -> &Plan;

    /// Runs one call on all ranks and returns when it has ended on all, or the first failure.
    fn call(&self, order: Order) -> Result<(), RuntimeError>;

    /// Copies a tensor of the port's shape and type to the ranks, which do not run.
    fn upload(&self, input: &Bound, tensor: &HostTensor) -> Result<(), RuntimeError>;

    /// Copies the parts of all ranks, which do not run, to a tensor of the port's shape and type.
    fn download(&self, output: &Bound, tensor: &mut HostTensor) -> Result<(), RuntimeError>;
}

/// The threads of a session.
pub(crate) struct Crew<B: Backend> {
    shared: Arc<Shared<B>>,
    workers: Vec<Worker>,
}

struct Worker {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

impl Board {
    pub(crate) fn new(seats: usize) -> Self {
        Self {
            state: Mutex::new(State {
                busy: vec![false; seats],
                failure: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state changes by single assignments, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no rank is busy, or for a while after the first failure.
    fn wait(&self) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        let mut failed_at: Option<Instant> = None;
        while state.busy.contains(&true) {
            if state.failure.is_none() {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let since = failed_at.get_or_insert_with(Instant::now);
            let Some(left) = GRACE.checked_sub(since.elapsed()) else {
                break;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}

impl<B: Backend> Crew<B> {
    /// Starts a thread for each program, in the order of the seats.
    pub(crate) fn start(
        shared: Arc<Shared<B>>,
        programs: Vec<Program<B::Launch>>,
    ) -> Result<Self, RuntimeError> {
        let mut crew = Self {
            shared,
            workers: Vec::new(),
        };
        for (seat, program) in programs.into_iter().enumerate() {
            let rank = crew.shared.seats[seat].rank;
            let (orders, inbox) = channel();
            let member = Member {
                seat,
                rank,
                shared: Arc::clone(&crew.shared),
                program,
            };
            let thread = std::thread::Builder::new()
                .name(format!("rank {rank}"))
                .spawn(move || member.serve(&inbox))
                .map_err(|error| RuntimeError::Threads {
                    rank,
                    threads: 1,
                    reason: error.to_string(),
                })?;
            crew.workers.push(Worker { orders, thread });
        }
        Ok(crew)
    }
}

impl<B: Backend> Ranks for Crew<B> {
    fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    fn call(&self, order: Order) -> Result<(), RuntimeError> {
        let board = &self.shared.board;
        board.lock().busy.fill(true);
        for (seat, worker) in self.workers.iter().enumerate() {
            if worker.orders.send(order).is_err() {
                self.shared.end(seat, Err(Box::new("its thread has ended")));
            }
        }
        board.wait()
    }

    fn upload(&self, input: &Bound, tensor: &HostTensor) -> Result<(), RuntimeError> {
        input.upload(&self.shared, tensor)
    }

    fn download(&self, output: &Bound, tensor: &mut HostTensor) -> Result<(), RuntimeError> {
        output.download(&self.shared, tensor)
    }
}

impl<B: Backend> Drop for Crew<B> {
    /// Ends the threads. One that is still busy is stuck in a step of a run that has failed; it ends,
    /// and gives its memory back, whenever that step does.
    fn drop(&mut self) {
        let busy = self.shared.board.lock().busy.clone();
        for (worker, busy) in self.workers.drain(..).zip(busy) {
            drop(worker.orders);
            if !busy {
                // A thread ends without a result, and its panics were caught.
                let _ = worker.thread.join();
            }
        }
    }
}

/// Why a panic ended a call.
type Panic = Box<dyn Any + Send>;

impl<B: Backend> Shared<B> {
    /// Notes that the rank of a seat has ended a call, and stops the others when it has failed.
    fn end(&self, seat: usize, ended: Result<Result<(), RuntimeError>, Panic>) {
        if let Some(failure) = self.failure(self.seats[seat].rank, ended) {
            let cause = failure.to_string();
            self.board.lock().failure.get_or_insert(failure);
            self.fabric.abort(&cause);
        }
        self.board.lock().busy[seat] = false;
        self.board.changed.notify_all();
    }

    /// The failure of `rank` itself, if it is one.
    fn failure(
        &self,
        rank: Rank,
        ended: Result<Result<(), RuntimeError>, Panic>,
    ) -> Option<RuntimeError> {
        match ended {
            Ok(Ok(())) => {
                self.positions.leave(rank);
                None
            }
            Ok(Err(RuntimeError::Aborted)) => None,
            Ok(Err(error)) => Some(error.at(&self.positions, rank)),
            Err(panic) => Some(RuntimeError::Panicked {
                place: Box::new(self.positions.place(rank)),
                message: message(&*panic),
            }),
        }
    }
}

impl RuntimeError {
    /// The error as the end of a run, with the place where `rank` is.
    pub(crate) fn at(self, positions: &Positions, rank: Rank) -> Self {
        let place = || Box::new(positions.place(rank));
        match self {
            // It names the place of the rank that has failed.
            Self::Peer(PeerFault::Failed { .. }) => self,
            Self::ExchangeTimeout { waiting, after } => Self::Stalled {
                place: place(),
                waiting,
                after,
                ranks: positions.all(),
            },
            _ => Self::Failed {
                place: place(),
                source: Box::new(self),
            },
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// One rank on its thread.
struct Member<B: Backend> {
    seat: usize,
    rank: Rank,
    shared: Arc<Shared<B>>,
    program: Program<B::Launch>,
}

impl<B: Backend> Member<B> {
    fn serve(&self, inbox: &Receiver<Order>) {
        let shared = &*self.shared;
        while let Ok(order) = inbox.recv() {
            let steps = match order {
                Order::Init => self.program.init.len(),
                Order::Steps => self.program.steps.len(),
            };
            let mut recorder = Recorder::new(shared.tracing.as_ref(), self.rank, steps);
            // What a panic leaves behind is never used: the session refuses further runs.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                shared
                    .backend
                    .enter(self.lane(), || self.call(order, &mut recorder))
            }));
            recorder.deliver();
            shared.end(self.seat, ended);
        }
    }

    fn call(&self, order: Order, recorder: &mut Recorder<'_>) -> Result<(), RuntimeError> {
        match order {
            Order::Init => self.list(&self.program.init, Phase::Init, recorder)?,
            Order::Steps => self.steps(recorder)?,
        }
        self.finish()?;
        // What a device was still told to exchange may have been given up.
        self.shared.fabric.check()
    }

    fn steps(&self, recorder: &mut Recorder<'_>) -> Result<(), RuntimeError> {
        let mut list = || {
            self.list(&self.program.steps, Phase::Steps, recorder)?;
            self.carry()
        };
        let shared = &*self.shared;
        // A record neither waits for other ranks nor shows when its steps end.
        if shared.plan.ranks.len() > 1 || shared.tracing.is_some() {
            return list();
        }
        // SAFETY: as for what the list does; `shared` keeps all that it works on.
        unsafe { shared.backend.repeat(self.lane(), &mut list) }
    }

    fn lane(&self) -> &B::Lane {
        &self.shared.seats[self.seat].lane
    }

    fn copier(&self) -> OnLane<'_, B> {
        OnLane {
            backend: &self.shared.backend,
            lane: self.lane(),
        }
    }

    /// Waits until everything has ended on the rank's lane, so that late errors come out.
    fn finish(&self) -> Result<(), RuntimeError> {
        self.shared.backend.finish(self.lane())
    }

    fn carry(&self) -> Result<(), RuntimeError> {
        let end = self.program.steps.len();
        for carry in &self.program.carries {
            self.shared.positions.enter(self.rank, Phase::Steps, end);
            self.copy(carry)?;
        }
        Ok(())
    }

    fn list(
        &self,
        list: &[Ready<B::Launch>],
        phase: Phase,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), RuntimeError> {
        for (index, ready) in list.iter().enumerate() {
            self.shared.fabric.check()?;
            self.shared.positions.enter(self.rank, phase, index);
            let begin = recorder.begin();
            let mut result = self.act(&ready.action);
            if begin.is_some() {
                // A trace shows when steps end, not when they are handed to a device.
                result = result.and_then(|()| self.finish());
            }
            recorder.end(ready, begin);
            result?;
        }
        Ok(())
    }

    fn act(&self, action: &Act<B::Launch>) -> Result<(), RuntimeError> {
        let (shared, rank) = (&*self.shared, self.rank);
        match action {
            Act::Launch(launch) => {
                // SAFETY: the plan has passed its check, so no other rank and no exchange under way
                // touches the operands; `shared` keeps the memory of all ranks.
                unsafe { shared.backend.launch(self.lane(), launch) }?;
            }
            Act::Begin(exchange, local) => {
                shared.fabric.begin(rank, exchange, &self.copier())?;
                let (src, dst) = (exchange.src, exchange.dst);
                // SAFETY: as above; peers only read the source, and the destination is this rank's.
                unsafe { shared.backend.copy(self.lane(), src, dst, local) }?;
            }
            Act::Wait(exchange) => shared.fabric.wait(rank, exchange, &self.copier())?,
            Act::Copy(copy) => self.copy(copy)?,
            Act::Free => {}
        }
        Ok(())
    }

    fn copy(&self, copy: &Move) -> Result<(), RuntimeError> {
        let Move { src, dst, boxes } = copy;
        // SAFETY: as in `act`; both buffers are this rank's.
        unsafe { self.shared.backend.copy(self.lane(), *src, *dst, boxes) }
    }
}
