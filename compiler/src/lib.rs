//! The Terrace compiler: a graph IR, its verifier and the passes that turn a model graph into a
//! [`terrace_plan::Plan`].

mod compile;
mod error;
pub mod ir;
pub mod layout;
pub mod ops;
mod options;
pub mod partition;
pub mod passes;
pub mod text;
pub mod verify;

pub use compile::compile;
pub use error::CompileError;
pub use options::{CompileOptions, Provenance, SliceGranularity};
