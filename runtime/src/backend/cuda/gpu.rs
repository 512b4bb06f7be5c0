//! What all ranks of one GPU share: the device, its compiled kernels, cublasLt, and the way that weights take.

use crate::RuntimeError;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terrace_kernels::cuda::{Blas, CubinCache, CudaKernels, Device, DeviceMemory, Uploader};

/// Bytes of a piece of a weight on its way.
const PIECE: usize = 4 << 20;

/// One GPU of this process.
#[derive(Debug)]
pub(super) struct Gpu {
    device: Device,
    kernels: Arc<CudaKernels>,
    blas: Blas,
    /// Those that no thread uses.
    uploaders: Mutex<Vec<Uploader>>,
}

impl Gpu {
    pub(super) fn open(ordinal: usize) -> Result<Self, RuntimeError> {
        let device = Device::open(ordinal)?;
        Ok(Self {
            kernels: Arc::new(CudaKernels::open(&device, CubinCache::of_user())?),
            blas: Blas::open(&device)?,
            uploaders: Mutex::default(),
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

    /// Memory of `bytes` bytes for `what`, of which `make` is told to write ranges. Threads fill theirs side by
    /// side.
    ///
    /// # Errors
    /// When the device fails or its memory runs out, or what `make` fails with.
    pub(super) fn filled(
        &self,
        what: &str,
        bytes: usize,
        make: impl FnMut(Range<usize>, &mut [u8]) -> Result<(), RuntimeError>,
    ) -> Result<DeviceMemory, RuntimeError> {
        let mut memory = self.device.allocate(what, bytes)?;
        // The lock goes at the end of the statement: others take theirs meanwhile.
        let idle = self.idle().pop();
        let mut uploader = match idle {
            Some(uploader) => uploader,
            None => Uploader::new(&self.device, PIECE)?,
        };
        uploader.fill(&mut memory, bytes, make)?;
        self.idle().push(uploader);
        Ok(memory)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Uploader>> {
        // The list changes by whole entries, so a panic elsewhere leaves it sound.
        self.uploaders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
