//! CogVideoX checkpoints: strict configs, and the lowering of every model part to the IR.
//!
//! Nothing here sees a device or a tensor: a config and a size become a
//! [`Graph`](terrace_compiler::ir::Graph) that names the tensors of the checkpoint.

pub mod config;
mod error;
pub mod size;
pub mod transformer;

pub use error::ModelError;
