//! Memory of a device, and host memory that a device reaches.
//!
//! Invariants: an allocation lives as long as its value and is freed once; addresses are numbers until
//! a kernel or copy gets them, and who hands them over promises that they are in range.

use super::device::Device;
use super::driver_call;
use super::fault::CudaFault;
use cudarc::driver::{DriverError, result, sys};
use std::ptr::NonNull;

/// A place in the memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    /// The place `bytes` further.
    pub const fn plus(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }
}

/// One allocation of a device; empty ones have no memory.
#[derive(Debug)]
pub struct DeviceMemory {
    address: DeviceAddress,
    bytes: usize,
    device: Device,
}

impl DeviceMemory {
    pub(super) fn new(device: &Device, what: &str, bytes: usize) -> Result<Self, CudaFault> {
        let mut memory = Self {
            address: DeviceAddress(0),
            bytes,
            device: device.clone(),
        };
        if bytes == 0 {
            return Ok(memory);
        }
        device.bind()?;
        // SAFETY: the device's context is current on this thread.
        let allocated = unsafe { result::malloc_sync(bytes) };
        let address = allocated.map_err(|error| shortage(device, what, bytes, error))?;
        memory.address = DeviceAddress(address);
        // SAFETY: the whole of an allocation that nobody else knows yet.
        let zeroed = unsafe { result::memset_d8_sync(address, 0, bytes) };
        zeroed.map_err(|error| driver_call("cuMemsetD8", error))?;
        settle()?;
        Ok(memory)
    }

    /// The first byte.
    pub const fn address(&self) -> DeviceAddress {
        self.address
    }

    /// Number of bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device that has the memory.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Copies `host` to the beginning, and returns when it is there.
    ///
    /// # Errors
    /// When `host` is longer than the memory, or the driver fails.
    pub fn fill(&mut self, host: &[u8]) -> Result<(), CudaFault> {
        if host.len() > self.bytes {
            return Err(CudaFault::Call {
                library: super::Library::Driver,
                call: "cuMemcpyHtoD",
                reason: format!("{} bytes do not fit in {}", host.len(), self.bytes),
            });
        }
        if host.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        // SAFETY: the range lies in the allocation, which is borrowed exclusively; the call returns
        // when `host` has been read.
        let copied = unsafe { result::memcpy_htod_sync(self.address.0, host) };
        copied.map_err(|error| driver_call("cuMemcpyHtoD", error))?;
        settle()
    }

    /// The bytes. Nothing that is queued writes them.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn read(&self) -> Result<Vec<u8>, CudaFault> {
        let mut host = vec![0; self.bytes];
        if host.is_empty() {
            return Ok(host);
        }
        self.device.bind()?;
        // SAFETY: the whole of the allocation; the call returns when `host` is written.
        let copied = unsafe { result::memcpy_dtoh_sync(&mut host, self.address.0) };
        copied.map_err(|error| driver_call("cuMemcpyDtoH", error))?;
        Ok(host)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.bytes > 0 && self.device.bind().is_ok() {
            // SAFETY: allocated by `new` in this context and freed once; the driver waits for what
            // still works on it. A context that is lost has lost the memory as well.
            let _ = unsafe { result::free_sync(self.address.0) };
        }
    }
}

/// Waits for what the calls above leave under way: no other queue is ordered behind them.
fn settle() -> Result<(), CudaFault> {
    // SAFETY: the stream that needs no handle exists in every context.
    let ended = unsafe { result::stream::synchronize(result::stream::null()) };
    ended.map_err(|error| driver_call("cuStreamSynchronize", error))
}

fn shortage(device: &Device, what: &str, bytes: usize, error: DriverError) -> CudaFault {
    let DriverError(code) = error;
    if code != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return driver_call("cuMemAlloc", error);
    }
    device.memory().map_or_else(
        |fault| fault,
        |memory| CudaFault::OutOfMemory {
            ordinal: device.ordinal(),
            what: what.to_owned(),
            bytes,
            free: memory.free,
            total: memory.total,
        },
    )
}

/// Host memory that stays in place, so that a device copies it without the processor.
#[derive(Debug)]
pub struct PinnedMemory {
    pointer: NonNull<u8>,
    bytes: usize,
    device: Device,
}

// SAFETY: the allocation belongs to the value alone and any thread may use and free it.
unsafe impl Send for PinnedMemory {}
// SAFETY: shared access only reads.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    pub(super) fn new(device: &Device, bytes: usize) -> Result<Self, CudaFault> {
        device.bind()?;
        // SAFETY: the device's context is current on this thread; at least one byte is asked for.
        let allocated = unsafe { result::malloc_host(bytes.max(1), 0) };
        let pointer = allocated.map_err(|error| driver_call("cuMemHostAlloc", error))?;
        let pointer = NonNull::new(pointer.cast::<u8>()).ok_or_else(|| CudaFault::Call {
            library: super::Library::Driver,
            call: "cuMemHostAlloc",
            reason: "it returned no address".to_owned(),
        })?;
        // SAFETY: `bytes` bytes were allocated; bytes of zero are a valid slice of u8.
        unsafe { pointer.as_ptr().write_bytes(0, bytes) };
        Ok(Self {
            pointer,
            bytes,
            device: device.clone(),
        })
    }

    /// The bytes. No copy of a device into them may be under way.
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: initialised by `new`, allocated as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.bytes) }
    }

    /// The bytes. No copy of a device from or into them may be under way.
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.bytes) }
    }

    /// Where the bytes lie, for copies by a queue.
    pub(super) const fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once; the driver waits for copies under way.
            let _ = unsafe { result::free_host(self.pointer.as_ptr().cast()) };
        }
    }
}
