//! Executes plans: ranks, memory, weights, exchanges, trace.
//!
//! A [`Session`] is a plan with its weights and memory. It checks the plan, gives every rank a thread
//! with a pool of its own, and runs the plan's straight lists of steps call after call. The order of
//! work, the sizes of exchanges, the place of every buffer: all of it was decided by the compiler and
//! is in the plan. The runtime decides nothing.
//!
//! # How to run a plan
//!
//! 1. Read it: `Plan::load(path)`.
//! 2. Open the weights: [`Checkpoint::open`] maps the safetensors files of one model component. A
//!    [`WeightCache`] keeps one converted and packed copy of every weight for all sessions.
//! 3. Make a [`Session`], [`set`](Session::set) its inputs, [`run`](Session::run) it, and
//!    [`get`](Session::get) its outputs, whole, whatever the number of ranks. Outputs that the plan
//!    carries into inputs stay on the ranks, so a loop only sets what changes.
//!
//! Two ranks that hold three and two elements of `x`, and double them:
//!
//! ```
//! use std::sync::Arc;
//! use terrace_plan::Plan;
//! use terrace_runtime::{Checkpoint, Cpu, HostTensor, Session, SessionOptions, WeightCache};
//!
//! // What a rank holds of `x`, from element `at` on, and its only step, `y = x + x`.
//! let rank = |at: usize, len: usize| format!(r#"{{
//!     "arena_bytes": 0, "state_bytes": 128,
//!     "buffers": [
//!         {{"region": "state", "offset": 0, "dtype": "f32", "len": {len}}},
//!         {{"region": "state", "offset": 64, "dtype": "f32", "len": {len}}}],
//!     "inputs": [{{"port": 0, "buffer": 0, "boxes": [{{"extents": [{len}],
//!         "src_offset": {at}, "src_strides": [1], "dst_offset": 0, "dst_strides": [1]}}]}}],
//!     "outputs": [{{"port": 0, "buffer": 1, "boxes": [{{"extents": [{len}],
//!         "src_offset": 0, "src_strides": [1], "dst_offset": {at}, "dst_strides": [1]}}]}}],
//!     "patterns": [], "init": [],
//!     "steps": [{{"origin": 0, "action": {{"launch": {{"gate_add": {{
//!         "rows": 1, "width": {len}, "gate": null,
//!         "residual": {{"buffer": 0, "offset": 0}}, "x": {{"buffer": 0, "offset": 0}},
//!         "y": {{"buffer": 1, "offset": 0}}}}}}}}}}]}}"#);
//! let json = format!(r#"{{
//!     "header": {{"format": 2, "producer": "by hand", "graph": "double", "request": "{{}}",
//!         "fingerprint": {{"model": "none", "shape": "5", "dtype": "f32",
//!             "mesh": "cfg=1 ring=1 ulysses=2", "kernels": "any"}}}},
//!     "mesh": {{"cfg": 1, "ring": 1, "ulysses": 2}}, "partitions": [],
//!     "inputs": [{{"name": "x", "dtype": "f32", "shape": [5]}}],
//!     "outputs": [{{"name": "y", "dtype": "f32", "shape": [5]}}],
//!     "carries": [], "weights": [], "collectives": [], "origins": ["double"],
//!     "ranks": [{}, {}]}}"#, rank(0, 3), rank(3, 2));
//!
//! let mut session = Session::new(
//!     Arc::new(Cpu),
//!     Arc::new(Plan::from_json(json.as_bytes())?),
//!     &Checkpoint::empty(),
//!     &WeightCache::new(),
//!     SessionOptions::default(),
//! )?;
//! session.set("x", &HostTensor::f32([5], vec![1.0, 2.0, 3.0, 4.0, 5.0])?)?;
//! session.run()?;
//! assert_eq!(session.get("y")?.as_f32()?, [2.0, 4.0, 6.0, 8.0, 10.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can go wrong
//!
//! Everything that a caller or a file does wrong is one [`RuntimeError`] that says what was expected
//! and what was found. When a rank fails, in a kernel or a copy, by a panic or by a stall, all ranks
//! stop and [`Session::run`] returns the first failure with rank, step and model path. A stalled
//! exchange ends within [`SessionOptions::timeout`] and prints where every rank is. A session that has
//! failed refuses further use; dropping it never waits for a rank that is stuck.
//!
//! # What happened when
//!
//! A [`Trace`] in the [`SessionOptions`] records every step of every rank; the file that
//! [`Trace::write`] makes opens in Perfetto.
//!
//! # Parts
//!
//! * [`backend`]: memory, kernels and copies of a kind of device: the [`Cpu`], and with the feature
//!   `wgpu` the GPUs that Vulkan, Metal and DX12 reach.
//! * [`fabric`]: exchanges between ranks.
//! * [`World`], [`Peers`]: ranks that are processes, as torchrun, mpirun and srun start them;
//!   [`Session::among`] is a session of such a rank.
//! * [`Checkpoint`], [`WeightCache`], [`read_tensors`], [`write_tensors`]: files of tensors.
//!
//! Invariants: a plan is untrusted, and none can crash or corrupt the process: its check is passed
//! before anything is allocated, and every region is compared with its buffer again before a kernel
//! may touch it. The crate knows plans only: no op, no pass, no model.

pub mod backend;
mod boxes;
mod error;
mod executor;
pub mod fabric;
mod gather;
mod peers;
mod ports;
mod position;
mod program;
mod safetensors_io;
mod session;
mod tensor;
mod trace;
mod weights;
mod world;

pub use backend::cpu::Cpu;
pub use backend::{Backend, Copier, Mark, View};
pub use boxes::Boxes;
pub use error::{DeviceFault, FileFault, PeerFault, ResolveFault, RuntimeError};
pub use peers::{Peers, Presence};
pub use position::{Phase, Place, Status, Waiting};
pub use safetensors_io::{read_tensors, write_tensors};
pub use session::{MemoryUse, RankMemory, Session, SessionOptions};
pub use tensor::{HostTensor, TensorData};
pub use trace::Trace;
pub use weights::{Checkpoint, LoadedWeight, StoredDType, StoredTensor, WeightCache};
pub use world::{World, WorldFault};
