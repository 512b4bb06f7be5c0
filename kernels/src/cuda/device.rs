//! Devices: one context for each, its memory and its queues.
//!
//! A [`Device`] holds the primary context that all libraries of the process share. Everything that is
//! made from it keeps it alive. Refused: devices that do not exist, drivers that are absent or too old,
//! each before anything is allocated.

use super::driver_call;
use super::event::Event;
use super::fault::CudaFault;
use super::library::Library;
use super::memory::{DeviceMemory, PinnedMemory};
use super::stream::{Priority, Stream};
use cudarc::driver::{CudaContext, DriverError, sys};
use std::sync::Arc;

/// A GPU of this machine.
#[derive(Clone, Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    capability: (i32, i32),
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its number in this process.
    pub ordinal: usize,
    /// Name of the product.
    pub name: String,
    /// Compute capability, e.g. `(9, 0)`.
    pub capability: (i32, i32),
    /// Free and total bytes of memory.
    pub memory: MemoryFacts,
}

/// Bytes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFacts {
    /// Bytes that are free now.
    pub free: usize,
    /// Bytes of the device.
    pub total: usize,
}

impl Device {
    /// Number of devices that the driver shows to this process.
    ///
    /// # Errors
    /// When the driver is absent, too old or fails.
    pub fn count() -> Result<usize, CudaFault> {
        Library::Driver.require()?;
        let count = CudaContext::device_count();
        match count {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
            Err(error) => Err(driver_call("cuDeviceGetCount", error)),
        }
    }

    /// Opens the device `ordinal`.
    ///
    /// # Errors
    /// When the driver is absent or too old, or there is no such device.
    pub fn open(ordinal: usize) -> Result<Self, CudaFault> {
        let devices = Self::count()?;
        if ordinal >= devices {
            return Err(CudaFault::NoDevice { ordinal, devices });
        }
        let context = CudaContext::new(ordinal)
            .map_err(|error| driver_call("cuDevicePrimaryCtxRetain", error))?;
        // SAFETY: no slice of `cudarc` exists; order between streams is kept by explicit events.
        unsafe { context.disable_event_tracking() };
        let capability = context
            .compute_capability()
            .map_err(|error| driver_call("cuDeviceGetAttribute", error))?;
        Ok(Self {
            context,
            capability,
        })
    }

    /// The number of the device in this process.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// Compute capability, e.g. `(9, 0)`.
    pub const fn capability(&self) -> (i32, i32) {
        self.capability
    }

    /// The architecture that kernels are compiled for, e.g. `sm_90a`: with the instructions that
    /// exist on this generation alone.
    pub fn architecture(&self) -> String {
        architecture(self.capability)
    }

    /// What the device is.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn facts(&self) -> Result<DeviceFacts, CudaFault> {
        let name = self.context.name();
        Ok(DeviceFacts {
            ordinal: self.ordinal(),
            name: name.map_err(|error| driver_call("cuDeviceGetName", error))?,
            capability: self.capability,
            memory: self.memory()?,
        })
    }

    /// Free and total memory.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn memory(&self) -> Result<MemoryFacts, CudaFault> {
        let memory = self.context.mem_get_info();
        let (free, total) = memory.map_err(|error| driver_call("cuMemGetInfo", error))?;
        Ok(MemoryFacts { free, total })
    }

    /// Allocates `bytes` zeroed bytes for `what`.
    ///
    /// # Errors
    /// [`CudaFault::OutOfMemory`] with what is free, or another failure of the driver.
    pub fn allocate(&self, what: &str, bytes: usize) -> Result<DeviceMemory, CudaFault> {
        DeviceMemory::new(self, what, bytes)
    }

    /// Allocates `bytes` bytes of host memory that the device reads and writes without a detour.
    ///
    /// # Errors
    /// When the host has no such memory left.
    pub fn pinned(&self, bytes: usize) -> Result<PinnedMemory, CudaFault> {
        PinnedMemory::new(self, bytes)
    }

    /// Makes a queue.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn stream(&self, priority: Priority) -> Result<Stream, CudaFault> {
        Stream::new(self, priority)
    }

    /// Makes a mark that queues set and wait for.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn event(&self) -> Result<Event, CudaFault> {
        Event::new(self)
    }

    /// Lets kernels and copies of this device read the memory of `owner`. Idempotent.
    ///
    /// # Errors
    /// [`CudaFault::NoPeerAccess`] when the devices are not connected.
    pub fn read_peer(&self, owner: &Self) -> Result<(), CudaFault> {
        if self.ordinal() == owner.ordinal() {
            return Ok(());
        }
        self.bind()?;
        let mut possible = 0;
        // SAFETY: both devices exist; the pointer is valid.
        let asked = unsafe {
            sys::cuDeviceCanAccessPeer(
                &raw mut possible,
                self.context.cu_device(),
                owner.context.cu_device(),
            )
        };
        asked
            .result()
            .map_err(|error| driver_call("cuDeviceCanAccessPeer", error))?;
        if possible == 0 {
            return Err(CudaFault::NoPeerAccess {
                reader: self.ordinal(),
                owner: owner.ordinal(),
            });
        }
        // SAFETY: this device's context is current on the thread; the other one is alive.
        let enabled = unsafe { sys::cuCtxEnablePeerAccess(owner.context.cu_ctx(), 0) };
        match enabled.result() {
            Ok(()) | Err(DriverError(sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED)) => {
                Ok(())
            }
            Err(error) => Err(driver_call("cuCtxEnablePeerAccess", error)),
        }
    }

    /// Makes the device's context current on this thread; libraries work on the current one.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn bind(&self) -> Result<(), CudaFault> {
        let bound = self.context.bind_to_thread();
        bound.map_err(|error| driver_call("cuCtxSetCurrent", error))
    }

    pub(super) const fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }
}

/// From Hopper on, a generation has instructions that later ones lack; they need the suffix.
pub(super) fn architecture((major, minor): (i32, i32)) -> String {
    let suffix = if major >= 9 { "a" } else { "" };
    format!("sm_{major}{minor}{suffix}")
}
