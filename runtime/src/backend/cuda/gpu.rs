//! What all ranks of one GPU share: the device, its compiled kernels, cublasLt.

use crate::RuntimeError;
use std::sync::Arc;
use terrace_kernels::cuda::{Blas, CubinCache, CudaKernels, Device};

/// One GPU of this process.
#[derive(Debug)]
pub(super) struct Gpu {
    device: Device,
    kernels: Arc<CudaKernels>,
    blas: Blas,
}

impl Gpu {
    pub(super) fn open(ordinal: usize) -> Result<Self, RuntimeError> {
        let device = Device::open(ordinal)?;
        Ok(Self {
            kernels: Arc::new(CudaKernels::open(&device, CubinCache::of_user())?),
            blas: Blas::open(&device)?,
            device,
        })
    }

    pub(super) const fn device(&self) -> &Device {
        &self.device
    }

    pub(super) const fn kernels(&self) -> &Arc<CudaKernels> {
        &self.kernels
    }

    pub(super) const fn blas(&self) -> &Blas {
        &self.blas
    }
}
