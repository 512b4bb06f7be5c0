//! The plan format: what a compiled graph is, as plain data.
//!
//! A [`Plan`] holds everything a runtime needs to execute a graph on a [`Mesh`] of ranks: the
//! ports, the weights, one table of collectives, and for every rank its buffers and a straight
//! list of [`Step`]s. It refers to weights by name and never holds their bytes.
//!
//! Invariants: this crate depends on serde for its data and on nothing of ours; a plan read from a file
//! is untrusted until [`Plan::check`] has passed; equal inputs serialise to equal bytes.

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

pub use call::*;
pub use call_error::CallError;
pub use call_parts::*;
pub use call_use::{Access, OperandUse, WeightUse};
pub use check::*;

pub use dtype::DType;
pub use error::{PlanError, PlanErrors};
pub use geometry::{BoxCopy, BoxFault, StridedBox};
pub use mesh::{Axis, Coords, Mesh, Rank};
pub use plan::*;
pub use steps::*;
pub use weights::*;
