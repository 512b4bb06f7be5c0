//! Marks in queues: how one queue, or the processor, waits for another.

use super::device::Device;
use super::driver_call;
use super::fault::CudaFault;
use cudarc::driver::{CudaEvent, DriverError, sys};

/// A mark that a queue sets when it gets there.
#[derive(Debug)]
pub struct Event(CudaEvent);

impl Event {
    pub(super) fn new(device: &Device) -> Result<Self, CudaFault> {
        // Without times, marks cost least and may be captured in a graph.
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = device.context().new_event(Some(flags));
        event
            .map(Self)
            .map_err(|error| driver_call("cuEventCreate", error))
    }

    /// Whether everything before the mark has ended; also when it was never set.
    ///
    /// # Errors
    /// When something before the mark has failed.
    pub fn is_reached(&self) -> Result<bool, CudaFault> {
        let DriverError(code) = match self.0.try_is_complete() {
            Ok(reached) => return Ok(reached),
            Err(error) => error,
        };
        match code {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => Err(driver_call("cuEventQuery", DriverError(other))),
        }
    }

    /// Returns when everything before the mark has ended; at once when it was never set.
    ///
    /// # Errors
    /// When something before the mark has failed.
    pub fn synchronize(&self) -> Result<(), CudaFault> {
        let ended = self.0.synchronize();
        ended.map_err(|error| driver_call("cuEventSynchronize", error))
    }

    pub(super) const fn inner(&self) -> &CudaEvent {
        &self.0
    }
}
