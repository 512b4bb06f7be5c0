//! What can go wrong with NVIDIA's libraries and devices: one message each that says what to do.

use super::library::Library;
use thiserror::Error;

/// Why a device or one of NVIDIA's libraries cannot do its work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CudaFault {
    /// A library is not on this machine.
    #[error(
        "cannot load {library}: looked for {} in the system's library folders and LD_LIBRARY_PATH; \
         install {}",
        .library.file(),
        .library.package()
    )]
    Missing {
        /// The library.
        library: Library,
    },
    /// A library is older than what this program is made for.
    #[error("{library} {found} is too old: {expected} or newer is needed; install {}", .library.package())]
    Old {
        /// The library.
        library: Library,
        /// The oldest version that will do.
        expected: String,
        /// The version on this machine.
        found: String,
    },
    /// A library lacks a function.
    #[error("{library} has no function `{function}`; install {}", .library.package())]
    Symbol {
        /// The library.
        library: Library,
        /// Name of the function.
        function: &'static str,
    },
    /// There is no device of this number.
    #[error(
        "there is no CUDA device {ordinal}: the driver reports {devices} (CUDA_VISIBLE_DEVICES may \
         hide some); choose --device cuda:0 to cuda:{}",
        .devices.saturating_sub(1)
    )]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// Number of devices.
        devices: usize,
    },
    /// Memory of a device ran out.
    #[error(
        "CUDA device {ordinal} has {free} of {total} bytes free, but {what} needs {bytes} bytes; use \
         more devices, --dtype bf16, or a smaller video"
    )]
    OutOfMemory {
        /// Number of the device.
        ordinal: usize,
        /// What was allocated.
        what: String,
        /// Bytes needed.
        bytes: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// One device cannot read the memory of another.
    #[error(
        "CUDA device {reader} cannot read the memory of device {owner}; use devices that are \
         connected by NVLink or share a PCIe root, or one device"
    )]
    NoPeerAccess {
        /// The device that reads.
        reader: usize,
        /// The device whose memory is read.
        owner: usize,
    },
    /// A call of a library failed.
    #[error("{library}: {call} failed: {reason}")]
    Call {
        /// The library.
        library: Library,
        /// Name of the call.
        call: &'static str,
        /// What the library said.
        reason: String,
    },
    /// The source of a kernel did not compile.
    #[error(
        "NVRTC cannot compile kernel {kernel}; this is a bug, please report it. It says: {log}"
    )]
    Compile {
        /// Name of the kernel.
        kernel: String,
        /// What the compiler said.
        log: String,
    },
    /// A library has no implementation for a size or type.
    #[error(
        "{library} cannot do {operation} on this device: {reason}; use --device cuda with another --dtype, or --device wgpu"
    )]
    Unsupported {
        /// The library.
        library: Library,
        /// The operation with its sizes.
        operation: String,
        /// What the library said.
        reason: String,
    },
    /// Another rank has not come, or has failed.
    #[error(
        "NCCL: {what} has not ended after {seconds} s; another rank has failed or is not there"
    )]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
}
