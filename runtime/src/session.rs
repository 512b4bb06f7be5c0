//! Sessions: a plan with its weights and memory on this machine, run call after call.
//!
//! Invariants: a session runs plans that have passed their check only; between two runs no rank touches
//! memory, so inputs and outputs are copied freely; after a failure nothing is touched any more.
//! Refused: tensors that do not fit their port, runs before every input has a value, anything after a
//! failure.

use crate::backend::Backend;
use crate::executor::{Board, Crew, Order, Ranks, Shared};
use crate::fabric::LocalFabric;
use crate::ports::Ports;
use crate::position::Positions;
use crate::program::{Builder, Program};
use crate::trace::Tracing;
use crate::{Checkpoint, HostTensor, RuntimeError, Trace, WeightCache};
use rayon::ThreadPoolBuilder;
use std::sync::Arc;
use std::time::Duration;
use terrace_plan::{Plan, Port, Rank};

/// How a session runs.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads of each rank. Zero: the machine's cores divided by the ranks, at least one.
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
        let threads = options.threads_per_rank(plan.ranks.len());
        let weights = load(&*backend, &plan, checkpoint, cache, threads)?;
        let mut memories = Vec::new();
        let mut lanes = Vec::new();
        for (index, rank) in plan.ranks.iter().enumerate() {
            let memory = backend.allocate(Rank(index), rank)?;
            lanes.push(backend.lane(Rank(index), &memory, threads)?);
            memories.push(memory);
        }
        let positions = Arc::new(Positions::new(Arc::clone(&plan)));
        let fabric = LocalFabric::new(&plan, Arc::clone(&positions), options.timeout)?;
        let shared = Arc::new(Shared {
            tracing: options.trace.map(|trace| Tracing::new(trace, &plan)),
            board: Board::new(plan.ranks.len()),
            plan,
            backend,
            memories,
            weights,
            lanes,
            fabric,
            positions,
        });
        let programs = programs(&shared)?;
        Ok(Self {
            ports: Ports::new(&*shared)?,
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

    /// The output `port` of the last run, gathered from all ranks.
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
        Ok(tensor)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.ranks.plan()
    }

    /// Memory that the session holds.
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

/// Loads the weights on as many threads as the ranks will have together, at most one per core.
fn load<B: Backend>(
    backend: &B,
    plan: &Plan,
    checkpoint: &Checkpoint,
    cache: &WeightCache<B::Weight>,
    threads: usize,
) -> Result<Vec<Arc<B::Weight>>, RuntimeError> {
    let threads = threads.saturating_mul(plan.ranks.len()).min(cores());
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| RuntimeError::Threads {
            rank: Rank(0),
            threads,
            reason: error.to_string(),
        })?;
    pool.install(|| {
        cache.load_all(checkpoint, &plan.weights, |checkpoint, weight| {
            backend.load(checkpoint, weight)
        })
    })
}

fn programs<B: Backend>(shared: &Shared<B>) -> Result<Vec<Program<B::Launch>>, RuntimeError> {
    let memories = shared.memories.iter().enumerate();
    let programs = memories.map(|(index, memory)| {
        Builder {
            plan: &shared.plan,
            rank: Rank(index),
            backend: &*shared.backend,
            memory,
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
