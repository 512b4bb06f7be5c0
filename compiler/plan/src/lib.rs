//! The plan format: what a compiled graph is, as plain data.
//!
//! The compiler cuts a model over a mesh of ranks and writes a [`Plan`]; the runtime executes it and
//! decides nothing. The plan is the whole contract between the two:
//!
//! | part | says |
//! |---|---|
//! | [`Header`] | format version, producer, and the [`Fingerprint`] of what the plan fits |
//! | [`Mesh`] | sizes of the axes `cfg`, `ring` and `ulysses` |
//! | [`NamedPartition`] | how text, cells, heads and batch were cut, for those who read the plan |
//! | [`Port`], [`Carry`] | tensors that the caller gives and gets, and those that stay on the ranks |
//! | [`Weight`] | stored tensors by name, how they are joined, laid out and cut; never their bytes |
//! | [`Collective`] | one entry per exchange: kind, members, bytes from each member to each other |
//! | [`RankPlan`] | what one rank does: buffers, bindings of ports, two straight lists of [`Step`]s |
//!
//! A step launches a kernel ([`KernelCall`]), begins an exchange or waits for one, copies between two
//! buffers, or ends the live range of a buffer. The steps of `init` run once per session, those of
//! `steps` once per call. What a kernel reads and writes follows from its sizes alone
//! ([`KernelCall::operands`], [`KernelCall::weights`]), so that checker and runtime agree.
//!
//! # Reading and writing
//!
//! [`Plan::save`] and [`Plan::load`] go through JSON with the header first: a program may read the
//! header alone ([`Header::load`]) and compare it with what it wants ([`Header::expect`]) before it
//! looks at the rest. Equal plans give equal bytes.
//!
//! # Trust
//!
//! A plan that was read is untrusted until [`Plan::check`] has passed; [`Plan::load`] runs it. It
//! proves that no step leaves its buffers, that nothing is read before it is written, that live
//! buffers never share bytes, that all members of an exchange agree, and that no order of exchanges
//! can hang. Whatever is wrong is a [`PlanViolation`] that names the rank, the step and its model path.
//!
//! # Explaining
//!
//! [`explain::Explanation`] says how the work is cut and balanced, what every rank holds, computes
//! and exchanges; [`explain::steps`] lists what one rank does.
//!
//! ```
//! use terrace_plan::explain::{Explanation, steps};
//! use terrace_plan::{
//!     Action, Activation, Binding, BoxCopy, Buffer, BufferId, DType, Fingerprint, Header, KernelCall,
//!     Mesh, OriginId, Plan, PlanError, Port, Rank, RankPlan, Region, Slot, Step,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One rank that applies SiLU to eight numbers.
//! let port = |name: &str| Port { name: name.into(), dtype: DType::F32, shape: vec![8] };
//! let buffer = |offset| Buffer { region: Region::State, offset, dtype: DType::F32, len: 8 };
//! let slot = |id| Slot { buffer: BufferId(id), offset: 0 };
//! let whole = BoxCopy {
//!     extents: vec![8],
//!     src_offset: 0,
//!     src_strides: vec![1],
//!     dst_offset: 0,
//!     dst_strides: vec![1],
//! };
//! let bind = |id| Binding { port: 0, buffer: BufferId(id), boxes: vec![whole.clone()] };
//! let call = KernelCall::Activate { len: 8, function: Activation::Silu, x: slot(0), y: slot(1) };
//! let mut plan = Plan {
//!     header: Header {
//!         format: Header::FORMAT,
//!         producer: "example".into(),
//!         graph: "silu".into(),
//!         fingerprint: Fingerprint {
//!             model: "none".into(),
//!             shape: "8".into(),
//!             dtype: DType::F32,
//!             mesh: Mesh::ONE.to_string(),
//!             kernels: "cpu".into(),
//!         },
//!         request: "{}".into(),
//!     },
//!     mesh: Mesh::ONE,
//!     partitions: vec![],
//!     inputs: vec![port("x")],
//!     outputs: vec![port("y")],
//!     carries: vec![],
//!     weights: vec![],
//!     collectives: vec![],
//!     origins: vec!["act".into()],
//!     ranks: vec![RankPlan {
//!         arena_bytes: 0,
//!         state_bytes: 128,
//!         buffers: vec![buffer(0), buffer(64)],
//!         inputs: vec![bind(0)],
//!         outputs: vec![bind(1)],
//!         patterns: vec![],
//!         init: vec![],
//!         steps: vec![Step { origin: OriginId(0), action: Action::Launch(call) }],
//!     }],
//! };
//! plan.check()?;
//!
//! // What is written is read again, byte for byte.
//! let json = plan.to_json()?;
//! assert_eq!(Plan::from_json(&json)?.to_json()?, json);
//!
//! // What it says.
//! assert!(Explanation::of(&plan).to_text().contains("activate  "));
//! assert!(steps(&plan, Rank(0))?.to_text().contains("x=b0 -> y=b1   ; act"));
//!
//! // An edit by hand is noticed.
//! plan.ranks[0].buffers[0].len = 7;
//! let error = PlanError::from(plan.check().unwrap_err());
//! assert!(error.to_string().contains("`x`: buffer 0 needs 8 elements, has 7"));
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: this crate depends on serde for its data and on nothing of ours; equal inputs
//! serialise to equal bytes.

mod call;
mod call_cost;
mod call_error;
mod call_grid;
mod call_operands;
mod call_parts;
mod call_use;
mod call_weights;
mod check;
mod dtype;
mod error;
pub mod explain;
mod file;
mod geometry;
mod mesh;
mod plan;
mod steps;
mod weights;
mod whole_file;

pub use call::*;
pub use call_error::CallError;
pub use call_parts::*;
pub use call_use::{Access, Elements, OperandUse, WeightUse};
pub use check::*;

pub use dtype::DType;
pub use error::{PlanError, PlanErrors};
pub use geometry::{BoxCopy, BoxFault, StridedBox};
pub use mesh::{Axis, Coords, Mesh, Rank};
pub use plan::*;
pub use steps::*;
pub use weights::*;
pub use whole_file::{WaitingFile, check_writable, write_whole};
