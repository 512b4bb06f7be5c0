//! NVIDIA GPUs: the driver, NVRTC, cublasLt, cuDNN and NCCL, all opened when they are first needed.
//!
//! The program starts without any of them; [`Library::require`] says which one is missing. Memory is
//! addressed by number: what a kernel or copy may touch is promised by its caller, and every such
//! function is `unsafe`. Nothing here knows a plan, a mesh or a rank.

mod cubin_cache;
mod cudnn;
mod device;
mod element;
mod event;
mod fault;
mod library;
mod matmul;
mod memory;
mod nccl;
mod nvrtc;
mod queue;
mod source;
mod stream;
mod upload;

pub use cubin_cache::{CubinCache, CubinKey};
pub use cudnn::{
    Attention, AttentionOperands, AttentionPlan, Conv, ConvOperands, ConvPlan, Dnn, HeadStrides,
};
pub use device::{Device, DeviceFacts, MemoryFacts};
pub use element::Float;
pub use event::Event;
pub use fault::CudaFault;
pub use library::Library;
pub use matmul::{
    ALIGNMENT, Blas, Factors, Product, ProductEpilogue, ProductKind, ProductOperands, Scales,
    WORKSPACE,
};
pub use memory::{DeviceAddress, DeviceMemory, PinnedMemory};
pub use nccl::{Communicator, Message, UniqueId};
pub use nvrtc::{Cubin, Nvrtc};
pub use queue::{CudaBuffer, CudaKernels, CudaLaunch, CudaQueue};
pub use source::Source;
pub use stream::{ByteRows, Graph, Priority, Stream};
pub use upload::Uploader;

use cudarc::driver::DriverError;

/// The fault for a call of the driver that failed.
fn driver_call(call: &'static str, error: DriverError) -> CudaFault {
    let reason = error.error_string().map_or_else(
        |_| format!("{:?}", error.0),
        |text| text.to_string_lossy().into_owned(),
    );
    CudaFault::Call {
        library: Library::Driver,
        call,
        reason,
    }
}
