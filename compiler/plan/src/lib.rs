//! The plan format: what a compiled graph is, as plain data.
//!
//! A [`Plan`] holds everything a runtime needs to execute a graph on a [`Mesh`] of ranks: the
//! ports, the weights, one table of collectives, and for every rank its buffers and a straight
//! list of [`Step`]s. It refers to weights by name and never holds their bytes.
//!
//! Invariants: this crate depends on serde alone and on nothing of ours; a plan read from a file
//! is untrusted until [`Plan::check`] has passed; equal inputs serialise to equal bytes.

mod call;
mod call_parts;
mod dtype;
mod geometry;
mod mesh;
mod plan;
mod steps;
mod weights;

pub use call::*;
pub use call_parts::*;
pub use dtype::DType;
pub use geometry::{BoxCopy, StridedBox};
pub use mesh::{Axis, Coords, Mesh, Rank};
pub use plan::*;
pub use steps::*;
pub use weights::*;
