//! Sessions: a plan with its weights and memory on this machine, run call after call.
//!
//! The ranks are threads of this process, or processes that each have a session of the same plan; then all of them
//! make the same calls in the same order.
//!
//! Invariants: a session runs plans that have passed their check only; between two runs no rank touches
//! memory, so inputs and outputs are copied freely; after a failure nothing is touched any more.
//! Refused: tensors that do not fit their port, runs before every input has a value, anything after a
//! failure.

use crate::backend::Backend;
use crate::executor::{Board, Crew, Order, Ranks, Seat, Shared};
use crate::fabric::{Fabric, LocalFabric};
use crate::gather::Gather;
use crate::peers::{Peers, Presence};
use crate::ports::Ports;
use crate::position::Positions;
use crate::program::{Builder, Program};
use crate::trace::Tracing;
use crate::{Checkpoint, HostTensor, ResolveFault, RuntimeError, Trace, WeightCache};
use rayon::ThreadPoolBuilder;
use std::sync::Arc;
use std::time::Duration;
use terrace_plan::{Plan, Port, Rank};

/// How a session runs.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads of each rank. Zero: the machine's cores divided by its ranks, at least one.
    pub threads: usize,
    /// How long an exchange may be waited for while no rank begins a step. It must be longer than any
    /// single step takes; a stall is noticed within twice this time.
    pub timeout: Duration,
    /// Records every step of every rank.
    pub trace: Option<Arc<Trace>>,
}

impl Default for SessionOptions {
    /// All cores, two minutes, no trace: an attention over the longest video takes about a minute on
    /// a small machine.
    fn default() -> Self {
        Self {
            threads: 0,
            timeout: Duration::from_secs(120),
            trace: None,
        }
    }
}

impl SessionOptions {
    /// Threads of each of `ranks` ranks on this machine.
    pub fn threads_per_rank(&self, ranks: usize) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        (cores() / ranks.max(1)).max(1)
    }
}

/// Memory that a session holds, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// One entry per rank.
    pub ranks: Vec<RankMemory>,
    /// Weights, which all ranks share, without the padding of packed layouts.
    pub weights: usize,
}

/// Memory of one rank, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankMemory {
    /// Scratch of one call.
    pub arena: usize,
    /// What is kept between calls.
    pub state: usize,
}

/// A plan that is ready to run, on all its ranks, whatever their device.
pub struct Session {
    ranks: Box<dyn Ranks>,
    ports: Ports,
    /// Where the ranks are processes.
    gather: Option<Gather>,
    values: Vec<Value>,
    stage: Stage,
}

/// What is known of an input.
enum Value {
    /// It was never set.
    Unset,
    /// The ranks have it.
    Placed,
    /// The ranks get it before every run, because they lose it in a run.
    Held(HostTensor),
}

enum Stage {
    Fresh,
    Ran,
    Failed(String),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("graph", &self.plan().header.graph)
            .field("mesh", &self.plan().mesh)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Checks `plan`, loads the weights that `cache` does not hold yet, allocates the memory of all
    /// ranks and starts their threads.
    ///
    /// # Errors
    /// All violations of the plan; the first weight that does not fit; memory or threads that cannot
    /// be had.
    pub fn new<B: Backend>(
        backend: Arc<B>,
        plan: Arc<Plan>,
        checkpoint: &Checkpoint,
        cache: &WeightCache<B::Weight>,
        options: SessionOptions,
    ) -> Result<Self, RuntimeError> {
        plan.check()?;
        let ranks = (0..plan.ranks.len()).map(Rank).collect();
        let positions = Arc::new(Positions::new(Arc::clone(&plan)));
        let hall = Hall {
            threads: options.threads_per_rank(plan.ranks.len()),
            ranks,
            presence: None,
            positions,
        };
        Self::within(hall, backend, plan, checkpoint, cache, options)
    }

    /// As [`Session::new`], with one rank of `plan` in this process and one in each of its `peers`, which make the
    /// same call.
    ///
    /// # Errors
    /// As for [`Session::new`]; the plan has another number of ranks, another process has another plan, has failed
    /// or is gone.
    pub fn among<B: Backend>(
        peers: &Arc<Peers>,
        backend: Arc<B>,
        plan: Arc<Plan>,
        checkpoint: &Checkpoint,
        cache: &WeightCache<B::Weight>,
        options: SessionOptions,
    ) -> Result<Self, RuntimeError> {
        let make = || {
            plan.check()?;
            let positions = Arc::new(Positions::new(Arc::clone(&plan)));
            let presence = Arc::new(Presence::new(peers, &plan, &positions)?);
            let hall = Hall {
                threads: options.threads_per_rank(peers.world().locals),
                ranks: vec![presence.rank()],
                presence: Some(Arc::clone(&presence)),
                positions,
            };
            let session =
                Self::within(hall, backend, Arc::clone(&plan), checkpoint, cache, options)?;
            // Loading takes one rank longer than another; the run begins when all are there.
            presence.ready()?;
            Ok(session)
        };
        make().inspect_err(|error: &RuntimeError| peers.fail(error))
    }

    fn within<B: Backend>(
        hall: Hall,
        backend: Arc<B>,
        plan: Arc<Plan>,
        checkpoint: &Checkpoint,
        cache: &WeightCache<B::Weight>,
        options: SessionOptions,
    ) -> Result<Self, RuntimeError> {
        let threads = hall.threads;
        let loaders = threads.saturating_mul(hall.ranks.len());
        let missing = cache.missing(checkpoint, &plan.weights);
        backend.admit(&plan, &hall.ranks, &missing)?;
        let weights = load(&*backend, &plan, checkpoint, cache, loaders)?;
        let mut seats = Vec::new();
        for &rank in &hall.ranks {
            let own = plan.ranks.get(rank.0);
            let own = own.ok_or(ResolveFault::NoRank { rank })?;
            let memory = backend.allocate(rank, own, &plan.weights)?;
            let lane = backend.lane(rank, &memory, threads)?;
            seats.push(Seat { rank, memory, lane });
        }
        let fabric = hall.fabric(&*backend, &plan, &seats, options.timeout)?;
        let shared = Arc::new(Shared {
            tracing: options.trace.map(|trace| Tracing::new(trace, &plan)),
            board: Board::new(seats.len()),
            plan,
            backend,
            seats,
            weights,
            fabric,
            positions: hall.positions,
        });
        let programs = programs(&shared)?;
        Ok(Self {
            ports: Ports::new(&*shared)?,
            gather: hall.presence.as_ref().map(Gather::new).transpose()?,
            values: shared.plan.inputs.iter().map(|_| Value::Unset).collect(),
            ranks: Box::new(Crew::start(shared, programs)?),
            stage: Stage::Fresh,
        })
    }

    /// Gives the input `port` a value, which it keeps until it is set again or an output is carried
    /// into it.
    ///
    /// # Errors
    /// When there is no such input, or type or shape differ.
    pub fn set(&mut self, port: &str, tensor: &HostTensor) -> Result<(), RuntimeError> {
        self.usable()?;
        let plan = self.plan();
        let index = find(plan, Side::Input, port)?;
        let input = &plan.inputs[index];
        if input.dtype != tensor.dtype() || input.shape != tensor.shape() {
            return Err(RuntimeError::PortMismatch {
                port: port.to_owned(),
                expected_dtype: input.dtype,
                expected: input.shape.clone(),
                found_dtype: tensor.dtype(),
                found: tensor.shape().to_vec(),
            });
        }
        let bound = &self.ports.inputs[index];
        self.values[index] = if bound.fleeting {
            Value::Held(tensor.clone())
        } else {
            self.ranks.upload(bound, tensor)?;
            Value::Placed
        };
        Ok(())
    }

    /// Runs the plan once on all ranks, then carries outputs into inputs.
    ///
    /// # Errors
    /// The inputs that were never set; or the first failure, with rank, step and origin. After a
    /// failure the session refuses everything.
    pub fn run(&mut self) -> Result<(), RuntimeError> {
        self.usable()?;
        self.require_inputs()?;
        let result = self.lists();
        self.stage = match &result {
            Ok(()) => Stage::Ran,
            Err(error) => Stage::Failed(error.to_string()),
        };
        result
    }

    /// The output `port` of the last run, gathered from all ranks. Where they are processes, each asks for it.
    ///
    /// # Errors
    /// When there is no such output, nothing has run yet, or the last run failed.
    pub fn get(&self, port: &str) -> Result<HostTensor, RuntimeError> {
        self.usable()?;
        let index = find(self.plan(), Side::Output, port)?;
        match self.stage {
            Stage::Ran => {}
            Stage::Fresh | Stage::Failed(_) => {
                let port = port.to_owned();
                return Err(RuntimeError::NotRun { port });
            }
        }
        let output = &self.plan().outputs[index];
        let mut tensor = HostTensor::zeros(output.shape.clone(), output.dtype)?;
        self.ranks
            .download(&self.ports.outputs[index], &mut tensor)?;
        if let Some(gather) = &self.gather {
            gather.complete(index, &mut tensor)?;
        }
        Ok(tensor)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.ranks.plan()
    }

    /// Memory that the session holds, in all processes.
    pub fn memory(&self) -> MemoryUse {
        let plan = self.plan();
        let ranks = plan.ranks.iter().map(|rank| RankMemory {
            arena: rank.arena_bytes,
            state: rank.state_bytes,
        });
        let weights = plan.weights.iter().map(|w| w.len * w.dtype.bytes());
        MemoryUse {
            ranks: ranks.collect(),
            weights: weights.sum(),
        }
    }

    fn lists(&self) -> Result<(), RuntimeError> {
        match self.stage {
            Stage::Fresh => self.ranks.call(Order::Init)?,
            Stage::Ran | Stage::Failed(_) => {}
        }
        // After the first list, which may use the whole arena.
        for (bound, value) in self.ports.inputs.iter().zip(&self.values) {
            match value {
                Value::Held(tensor) => self.ranks.upload(bound, tensor)?,
                Value::Unset | Value::Placed => {}
            }
        }
        self.ranks.call(Order::Steps)
    }

    fn usable(&self) -> Result<(), RuntimeError> {
        match &self.stage {
            Stage::Fresh | Stage::Ran => Ok(()),
            Stage::Failed(cause) => Err(RuntimeError::Broken {
                cause: cause.clone(),
            }),
        }
    }

    fn require_inputs(&self) -> Result<(), RuntimeError> {
        let plan = self.plan();
        let inputs = plan.inputs.iter().zip(&self.values);
        let unset = inputs.filter(|(_, value)| matches!(value, Value::Unset));
        let ports: Vec<String> = unset.map(|(port, _)| format!("`{}`", port.name)).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let graph = plan.header.graph.clone();
        Err(RuntimeError::Unset { graph, ports })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Which ranks of a plan this process has, and how they reach the others.
struct Hall {
    ranks: Vec<Rank>,
    /// Threads of each.
    threads: usize,
    /// Where the other ranks are processes.
    presence: Option<Arc<Presence>>,
    positions: Arc<Positions>,
}

impl Hall {
    fn fabric<B: Backend>(
        &self,
        backend: &B,
        plan: &Plan,
        seats: &[Seat<B>],
        timeout: Duration,
    ) -> Result<Box<dyn Fabric>, RuntimeError> {
        match (&self.presence, seats) {
            (Some(presence), [seat]) => backend.fabric(&seat.lane, presence),
            (Some(_) | None, _) => {
                let positions = Arc::clone(&self.positions);
                Ok(Box::new(LocalFabric::new(plan, positions, timeout)?))
            }
        }
    }
}

/// Loads the weights on as many threads as the ranks will have together, at most one per core.
fn load<B: Backend>(
    backend: &B,
    plan: &Plan,
    checkpoint: &Checkpoint,
    cache: &WeightCache<B::Weight>,
    threads: usize,
) -> Result<Vec<Arc<B::Weight>>, RuntimeError> {
    let threads = threads.min(cores());
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| RuntimeError::Threads {
            rank: Rank(0),
            threads,
            reason: error.to_string(),
        })?;
    let weights = pool.install(|| {
        cache.load_all(checkpoint, &plan.weights, |checkpoint, weight| {
            backend.load(checkpoint, weight)
        })
    });
    checkpoint.release_all();
    weights
}

fn programs<B: Backend>(shared: &Shared<B>) -> Result<Vec<Program<B::Launch>>, RuntimeError> {
    let programs = shared.seats.iter().map(|seat| {
        Builder {
            plan: &shared.plan,
            rank: seat.rank,
            backend: &*shared.backend,
            memory: &seat.memory,
            weights: &shared.weights,
        }
        .build()
    });
    programs.collect()
}

#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

fn find(plan: &Plan, side: Side, name: &str) -> Result<usize, RuntimeError> {
    let (ports, side) = match side {
        Side::Input => (&plan.inputs, "input"),
        Side::Output => (&plan.outputs, "output"),
    };
    let found = ports.iter().position(|port| port.name == name);
    found.ok_or_else(|| RuntimeError::NoPort {
        graph: plan.header.graph.clone(),
        side,
        port: name.to_owned(),
        ports: ports.iter().map(describe).collect(),
    })
}

fn describe(port: &Port) -> String {
    format!("`{}` {}{:?}", port.name, port.dtype, port.shape)
}
