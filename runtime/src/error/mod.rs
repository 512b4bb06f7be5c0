//! The error of this crate: why a plan cannot run, what a caller did wrong, how a run failed.
//!
//! What is wrong with files is a [`FileFault`], what a device lacks a [`DeviceFault`], what happens between processes a
//! [`WorldFault`] or a [`PeerFault`]; what a checked plan cannot cause, and therefore is a
//! bug of the compiler or of this crate, is a [`ResolveFault`]. A run ends in one error that names the
//! first rank that failed; [`RuntimeError::Aborted`] is what the others see and never leaves a run.

mod device;
mod file;
mod peer;
mod resolve;

pub use device::DeviceFault;
pub use file::FileFault;
pub use peer::PeerFault;
pub use resolve::ResolveFault;

use crate::{Place, Status, Waiting, WorldFault};
use std::time::Duration;
use terrace_kernels::KernelError;
use terrace_plan::{DType, PlanErrors, Rank, Region};

/// Why a plan cannot run, what a caller did wrong, how a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The plan breaks rules of its format.
    #[error(transparent)]
    Plan(#[from] PlanErrors),
    /// A file is missing, damaged or does not fit.
    #[error(transparent)]
    File(#[from] FileFault),
    /// The device lacks something.
    #[error(transparent)]
    Device(#[from] DeviceFault),
    /// A part of a checked plan cannot be resolved: a bug of the compiler or the runtime.
    #[error(transparent)]
    Fault(#[from] ResolveFault),
    /// The processes of the ranks do not come together.
    #[error(transparent)]
    World(#[from] WorldFault),
    /// The process of another rank has failed, is gone, or does something else.
    #[error(transparent)]
    Peer(#[from] PeerFault),
    /// A library or a device of NVIDIA's failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] terrace_kernels::cuda::CudaFault),
    /// A kernel refused its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A step cannot be prepared.
    #[error("cannot prepare {place}: {source}")]
    Resolve {
        /// The step.
        place: Box<Place>,
        /// What is wrong.
        source: Box<RuntimeError>,
    },
    /// The backend has no kernel for this form of a call.
    #[error(
        "kernel {kernel} does not support {found}, expected {expected}; compile the plan for this \
         backend"
    )]
    UnsupportedCall {
        /// Name of the kernel.
        kernel: &'static str,
        /// What the call asks for.
        found: &'static str,
        /// What the backend can do.
        expected: &'static str,
    },
    /// Shape and number of elements differ.
    #[error("a tensor of shape {shape:?} cannot hold {found} elements")]
    TensorLength {
        /// The shape.
        shape: Vec<usize>,
        /// Elements given.
        found: usize,
    },
    /// There is no memory for a tensor.
    #[error("there is no memory for a tensor of shape {shape:?}")]
    TensorMemory {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The elements of a tensor are of another type.
    #[error("expected a tensor of {expected}, found {found}")]
    TensorDType {
        /// Type asked for.
        expected: DType,
        /// Type of the tensor.
        found: DType,
    },
    /// Host tensors do not have this element type.
    #[error("host tensors are f32 or u32, a port of {dtype} cannot be read")]
    HostDType {
        /// Type of the port.
        dtype: DType,
    },
    /// The plan has no port of this name.
    #[error("the plan `{graph}` has no {side} `{port}`; its {side}s are {}", list(.ports))]
    NoPort {
        /// Name of the graph.
        graph: String,
        /// `input` or `output`.
        side: &'static str,
        /// Name asked for.
        port: String,
        /// What there is, each with type and shape.
        ports: Vec<String>,
    },
    /// A tensor does not fit its input.
    #[error(
        "input `{port}` is {expected_dtype} of shape {expected:?}, found {found_dtype} of shape \
         {found:?}"
    )]
    PortMismatch {
        /// Name of the input.
        port: String,
        /// Type of the input.
        expected_dtype: DType,
        /// Shape of the input.
        expected: Vec<usize>,
        /// Type of the tensor.
        found_dtype: DType,
        /// Shape of the tensor.
        found: Vec<usize>,
    },
    /// Inputs were never set.
    #[error("the plan `{graph}` cannot run: set {} first", list(.ports))]
    Unset {
        /// Name of the graph.
        graph: String,
        /// The inputs without a value.
        ports: Vec<String>,
    },
    /// There is no output before the first run.
    #[error("output `{port}` has no value yet: run the session first")]
    NotRun {
        /// Name of the output.
        port: String,
    },
    /// A run of this session has failed.
    #[error(
        "this session has failed and cannot be used again; make a new one. It failed with: {cause}"
    )]
    Broken {
        /// Text of the first error.
        cause: String,
    },
    /// A step failed; all ranks have been stopped.
    #[error("{place} failed: {source}")]
    Failed {
        /// The first step that failed.
        place: Box<Place>,
        /// Why.
        source: Box<RuntimeError>,
    },
    /// The code of a step panicked; all ranks have been stopped.
    #[error("{place} panicked: {message}; this is a bug, please report it")]
    Panicked {
        /// The step.
        place: Box<Place>,
        /// What the panic said.
        message: String,
    },
    /// An exchange stalled; all ranks have been told to stop.
    #[error(
        "{place} waits for {waiting}, but no rank has made progress for {after:?}. The ranks are \
         at:\n{}",
        lines(.ranks)
    )]
    Stalled {
        /// The step whose wait ended first.
        place: Box<Place>,
        /// What it waits for.
        waiting: Waiting,
        /// The limit.
        after: Duration,
        /// Where every rank was.
        ranks: Vec<Status>,
    },
    /// A wait ended without its peer; a run reports it as [`RuntimeError::Stalled`].
    #[error("waited for {waiting}, but no rank has made progress for {after:?}")]
    ExchangeTimeout {
        /// What was waited for.
        waiting: Waiting,
        /// The limit.
        after: Duration,
    },
    /// Another rank has failed.
    #[error("stopped, because another rank failed")]
    Aborted,
    /// The memory of a rank cannot be allocated.
    #[error(
        "rank {rank}: cannot allocate {bytes} bytes for its {}; use more ranks, or a smaller video",
        .region.name()
    )]
    OutOfMemory {
        /// The rank.
        rank: Rank,
        /// The region.
        region: Region,
        /// Its size.
        bytes: usize,
    },
    /// Threads cannot be made.
    #[error(
        "rank {rank}: cannot start {threads} threads: {reason}; ask for fewer threads or ranks"
    )]
    Threads {
        /// The rank.
        rank: Rank,
        /// Number of threads.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// A trace cannot be expressed in JSON.
    #[error("the trace cannot be written as JSON: {source}")]
    Trace {
        /// What the serializer said.
        source: serde_json::Error,
    },
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.join(", ")
}

fn lines(ranks: &[Status]) -> String {
    let lines: Vec<String> = ranks.iter().map(|status| format!("  {status}")).collect();
    lines.join("\n")
}
