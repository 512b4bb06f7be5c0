//! CogVideoX checkpoints: strict configs, and the lowering of every model part to the IR.
//!
//! Nothing here sees a device or a tensor: a config and a size become a
//! [`Graph`](terrace_compiler::ir::Graph) that names the tensors of the checkpoint.

mod builder;
pub mod config;
mod error;
pub mod folder;
pub mod scheduler;
pub mod size;
pub mod text_encoder;
pub mod tokenizer;
pub mod transformer;
pub mod vae;

pub use error::ModelError;
