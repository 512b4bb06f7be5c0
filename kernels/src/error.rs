//! The error of this crate: what a kernel refuses before it touches any number.
//!
//! Invariant: every kernel checks all operand lengths and arguments first, so an error means that no
//! output was written. A kernel call comes from a plan, which is untrusted input.

use thiserror::Error;

/// Why a kernel refused its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KernelError {
    /// An operand has another number of elements than the other arguments imply.
    #[error(
        "kernel {kernel}: operand `{operand}` needs {expected} elements, found {found}; the plan's shapes and buffers disagree"
    )]
    Length {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
        /// Elements that the other arguments imply.
        expected: usize,
        /// Elements that were given.
        found: usize,
    },
    /// An argument lies outside what the kernel can do.
    #[error("kernel {kernel}: argument `{argument}` must be {expected}, found {found}")]
    Argument {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the argument.
        argument: &'static str,
        /// What is accepted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The system has no room for a packed weight.
    #[error(
        "kernel {kernel}: no room for a packed weight of {bytes} bytes; free memory, or choose a precision of fewer bits"
    )]
    OutOfMemory {
        /// Name of the kernel.
        kernel: &'static str,
        /// Bytes of the weight.
        bytes: usize,
    },
    /// The device cannot store elements of this type.
    #[error(
        "kernel {kernel}: {device} has no {element} elements; choose a precision that it has, f32 being always one"
    )]
    ElementType {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the element type.
        element: &'static str,
        /// The device.
        device: String,
    },
    /// A kernel does not compile for the device.
    #[error("kernel {kernel} does not compile for {device}: {reason}")]
    Compile {
        /// Name of the kernel.
        kernel: &'static str,
        /// The device.
        device: String,
        /// What the compiler said.
        reason: String,
    },
    /// The device failed: memory ran out, it was lost, or it refused a launch.
    #[error("{device} failed: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What the device or its driver said.
        reason: String,
    },
    /// NVIDIA's libraries or a device of theirs failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaFault),
}
