//! Weights: checkpoints mapped into memory, and the packed copies that kernels read.
//!
//! Invariants: a checkpoint is mapped, never read into memory as a whole; every weight is converted
//! and packed once per process and shared by all ranks and sessions through a [`WeightCache`].

mod cache;
mod checkpoint;
mod format;
mod joined;
mod load;
mod noise;
#[cfg(feature = "cuda")]
mod pieces;

pub use cache::WeightCache;
pub use checkpoint::{Checkpoint, StoredTensor};
pub use load::LoadedWeight;
pub use safetensors::Dtype as StoredDType;

pub(crate) use format::{TensorEntry, parse};
#[cfg(feature = "cuda")]
pub(crate) use joined::Joined;
pub(crate) use joined::to_f32;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use load::elements;
