//! Executes plans: ranks, memory, weights, exchanges, trace.

pub mod backend;
mod boxes;
mod error;
mod executor;
pub mod fabric;
mod ports;
mod position;
mod program;
mod safetensors_io;
mod session;
mod tensor;
mod trace;
mod weights;

pub use backend::cpu::Cpu;
pub use backend::{Backend, Copier, View};
pub use boxes::Boxes;
pub use error::{FileFault, ResolveFault, RuntimeError};
pub use position::{Phase, Place, Status, Waiting};
pub use safetensors_io::{read_tensors, write_tensors};
pub use session::{MemoryUse, RankMemory, Session, SessionOptions};
pub use tensor::{HostTensor, TensorData};
pub use trace::Trace;
pub use weights::{Checkpoint, LoadedWeight, StoredDType, StoredTensor, WeightCache};
