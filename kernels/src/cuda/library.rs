//! NVIDIA's libraries: which ones there are, and whether this machine has them.
//!
//! All of them are opened when they are first needed, so the program starts without any. The
//! bindings of `cudarc` panic when a library is absent; therefore every user asks
//! [`Library::require`] first.

use super::fault::CudaFault;
use cudarc::{cublaslt, cudnn, driver, nvrtc};
use std::fmt;

/// The CUDA version that the driver must offer: the one that the kernels are compiled for.
const CUDA: i32 = 13_000;
/// Attention with log-sum-exp as one operation begins with this version of cuDNN.
const CUDNN: usize = 91_300;

/// One of NVIDIA's libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// The driver: devices, memory, streams.
    Driver,
    /// The run-time compiler of kernels.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Attention and convolution.
    Cudnn,
    /// Exchanges between processes.
    Nccl,
}

impl Library {
    /// All libraries, the ones that everything needs first.
    pub const ALL: [Self; 5] = [
        Self::Driver,
        Self::Nvrtc,
        Self::CublasLt,
        Self::Cudnn,
        Self::Nccl,
    ];

    /// The name that its makers use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "the CUDA driver",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cublasLt",
            Self::Cudnn => "cuDNN",
            Self::Nccl => "NCCL",
        }
    }

    /// The file that is looked for.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so.1",
            Self::Nvrtc => "libnvrtc.so.13",
            Self::CublasLt => "libcublasLt.so.13",
            Self::Cudnn => "libcudnn.so.9",
            Self::Nccl => "libnccl.so.2",
        }
    }

    /// What brings the library.
    pub const fn package(self) -> &'static str {
        match self {
            Self::Driver => "an NVIDIA driver for CUDA 13 (580 or newer)",
            Self::Nvrtc => {
                "the CUDA 13 toolkit, or the PyPI packages nvidia-cuda-nvrtc and \
                 nvidia-cuda-runtime and their folder in LD_LIBRARY_PATH"
            }
            Self::CublasLt => {
                "the CUDA 13 toolkit, or the PyPI package nvidia-cublas and its folder in \
                 LD_LIBRARY_PATH"
            }
            Self::Cudnn => {
                "cuDNN 9.13 or newer for CUDA 13, or the PyPI package nvidia-cudnn-cu13 and its \
                 folder in LD_LIBRARY_PATH"
            }
            Self::Nccl => {
                "NCCL 2.22 or newer for CUDA 13, or the PyPI package nvidia-nccl-cu13 and its folder \
                 in LD_LIBRARY_PATH"
            }
        }
    }

    /// Whether the library can be opened.
    pub fn is_present(self) -> bool {
        // SAFETY: opening a library runs its initialisers; these libraries are made to be opened at
        // run time by any program.
        unsafe {
            match self {
                Self::Driver => driver::sys::is_culib_present(),
                Self::Nvrtc => nvrtc::sys::is_culib_present(),
                Self::CublasLt => cublaslt::sys::is_culib_present(),
                Self::Cudnn => cudnn::sys::is_culib_present(),
                Self::Nccl => super::nccl::is_present(),
            }
        }
    }

    /// Makes sure that the library is there and new enough.
    ///
    /// # Errors
    /// [`CudaFault::Missing`] or [`CudaFault::Old`].
    pub fn require(self) -> Result<(), CudaFault> {
        if !self.is_present() {
            return Err(CudaFault::Missing { library: self });
        }
        match self {
            Self::Driver => self.at_least(driver_version()?, CUDA as usize, cuda_text),
            Self::Nvrtc => self.at_least(nvrtc_version()?, CUDA as usize, cuda_text),
            // SAFETY: the library is present and the call has no precondition.
            Self::CublasLt => self.at_least(
                unsafe { cublaslt::sys::cublasLtGetCudartVersion() },
                CUDA as usize,
                cuda_text,
            ),
            Self::Cudnn => self.at_least(cudnn::result::get_version(), CUDNN, cudnn_text),
            Self::Nccl => super::nccl::require(),
        }
    }

    pub(super) fn at_least(
        self,
        found: usize,
        expected: usize,
        text: fn(usize) -> String,
    ) -> Result<(), CudaFault> {
        if found >= expected {
            return Ok(());
        }
        Err(CudaFault::Old {
            library: self,
            expected: text(expected),
            found: text(found),
        })
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The version of NVRTC on this machine, e.g. 13020 for 13.2.
///
/// # Errors
/// When NVRTC is absent or its call fails.
pub(super) fn nvrtc_version() -> Result<usize, CudaFault> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: callers have made sure that the library is present; both pointers are valid.
    let status = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    status.result().map_err(|error| CudaFault::Call {
        library: Library::Nvrtc,
        call: "nvrtcVersion",
        reason: format!("{:?}", error.0),
    })?;
    Ok(usize::try_from(major * 1000 + minor * 10).unwrap_or(0))
}

fn driver_version() -> Result<usize, CudaFault> {
    let mut version = 0;
    // SAFETY: the library is present; the pointer is valid.
    let status = unsafe { driver::sys::cuDriverGetVersion(&raw mut version) };
    status
        .result()
        .map_err(|error| super::driver_call("cuDriverGetVersion", error))?;
    Ok(usize::try_from(version).unwrap_or(0))
}

fn cuda_text(version: usize) -> String {
    format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
}

fn cudnn_text(version: usize) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version % 10_000 / 100,
        version % 100
    )
}
