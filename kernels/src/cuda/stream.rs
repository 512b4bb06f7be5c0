//! Queues of a device, and what they can be told apart from kernels: copies, marks, graphs.
//!
//! Invariants: a queue works in order; two queues work in any order unless one waits for a mark of the
//! other. Nothing here waits for the device except [`Stream::synchronize`].

use super::device::Device;
use super::driver_call;
use super::event::Event;
use super::fault::CudaFault;
use super::memory::{DeviceAddress, PinnedMemory};
use cudarc::driver::{CudaGraph, CudaStream, result, sys};
use std::ops::Range;
use std::sync::Arc;

/// Which queue's work begins first when both have some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Kernels.
    Normal,
    /// Exchanges: short, and other ranks wait for them.
    High,
}

/// Rows of bytes that lie at equal distances in source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRows {
    /// Bytes of a row, not more than either distance.
    pub width: usize,
    /// Number of rows.
    pub rows: usize,
    /// Bytes from row to row in the source.
    pub src_pitch: usize,
    /// Bytes from row to row in the destination.
    pub dst_pitch: usize,
}

/// A queue of a device.
#[derive(Clone, Debug)]
pub struct Stream {
    stream: Arc<CudaStream>,
    device: Device,
}

impl Stream {
    pub(super) fn new(device: &Device, priority: Priority) -> Result<Self, CudaFault> {
        device.bind()?;
        let (_, highest) = result::stream::get_priority_range()
            .map_err(|error| driver_call("cuCtxGetStreamPriorityRange", error))?;
        let context = device.context();
        let stream = match priority {
            Priority::Normal => context.new_stream(),
            Priority::High => context.new_stream_with_priority(highest),
        };
        Ok(Self {
            stream: stream.map_err(|error| driver_call("cuStreamCreate", error))?,
            device: device.clone(),
        })
    }

    /// The device that works off the queue.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Sets `event` when all that is queued now has ended.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn record(&self, event: &Event) -> Result<(), CudaFault> {
        let recorded = event.inner().record(&self.stream);
        recorded.map_err(|error| driver_call("cuEventRecord", error))
    }

    /// Lets what is queued from now on wait for the last setting of `event`.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn wait(&self, event: &Event) -> Result<(), CudaFault> {
        let waited = self.stream.wait(event.inner());
        waited.map_err(|error| driver_call("cuStreamWaitEvent", error))
    }

    /// Returns when all that is queued has ended.
    ///
    /// # Errors
    /// What has failed in the queue.
    pub fn synchronize(&self) -> Result<(), CudaFault> {
        let ended = self.stream.synchronize();
        ended.map_err(|error| driver_call("cuStreamSynchronize", error))
    }

    /// Queues a copy of `bytes` bytes. With peer access, `src` may be on another device.
    ///
    /// # Errors
    /// When the driver fails.
    ///
    /// # Safety
    /// Both ranges are allocated until the copy has ended, and nothing that is not ordered before or
    /// after it writes what it reads or touches what it writes.
    pub unsafe fn copy(
        &self,
        src: DeviceAddress,
        dst: DeviceAddress,
        bytes: usize,
    ) -> Result<(), CudaFault> {
        if bytes == 0 {
            return Ok(());
        }
        self.device.bind()?;
        // With one address space for all devices, an address says which one it belongs to.
        // SAFETY: the same contract.
        let copied = unsafe { sys::cuMemcpyAsync(dst.0, src.0, bytes, self.stream.cu_stream()) };
        copied
            .result()
            .map_err(|error| driver_call("cuMemcpyAsync", error))
    }

    /// Queues a copy of rows. With peer access, `src` may be on another device.
    ///
    /// # Errors
    /// When the driver fails.
    ///
    /// # Safety
    /// As for [`Stream::copy`], for all rows.
    pub unsafe fn copy_rows(
        &self,
        src: DeviceAddress,
        dst: DeviceAddress,
        rows: ByteRows,
    ) -> Result<(), CudaFault> {
        if rows.width == 0 || rows.rows == 0 {
            return Ok(());
        }
        if rows.rows == 1 {
            // The driver limits distances, also those that nothing is at.
            // SAFETY: the same contract.
            return unsafe { self.copy(src, dst, rows.width) };
        }
        self.device.bind()?;
        // As for `copy`.
        let unified = sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: unified,
            srcHost: std::ptr::null(),
            srcDevice: src.0,
            srcArray: std::ptr::null_mut(),
            srcPitch: rows.src_pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: unified,
            dstHost: std::ptr::null_mut(),
            dstDevice: dst.0,
            dstArray: std::ptr::null_mut(),
            dstPitch: rows.dst_pitch,
            WidthInBytes: rows.width,
            Height: rows.rows,
        };
        // SAFETY: the same contract; the description is read before the call returns.
        let copied = unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, self.stream.cu_stream()) };
        copied
            .result()
            .map_err(|error| driver_call("cuMemcpy2DAsync", error))
    }

    /// Queues a copy of `range` of `host` to `dst`.
    ///
    /// # Errors
    /// When the driver fails.
    ///
    /// # Safety
    /// As for [`Stream::copy`]; `host` is neither changed nor dropped before the copy has ended.
    pub unsafe fn upload(
        &self,
        host: &PinnedMemory,
        range: Range<usize>,
        dst: DeviceAddress,
    ) -> Result<(), CudaFault> {
        let Some(bytes) = host.bytes().get(range).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        self.device.bind()?;
        // SAFETY: the same contract.
        let copied = unsafe { result::memcpy_htod_async(dst.0, bytes, self.stream.cu_stream()) };
        copied.map_err(|error| driver_call("cuMemcpyHtoDAsync", error))
    }

    /// Queues a copy of `bytes` bytes from `src` to the beginning of `host`.
    ///
    /// # Errors
    /// When the driver fails.
    ///
    /// # Safety
    /// As for [`Stream::copy`]; `host` has room for `bytes` and is not touched before the copy has
    /// ended.
    pub unsafe fn download(
        &self,
        src: DeviceAddress,
        host: &PinnedMemory,
        bytes: usize,
    ) -> Result<(), CudaFault> {
        if bytes == 0 {
            return Ok(());
        }
        self.device.bind()?;
        let stream = self.stream.cu_stream();
        // SAFETY: the same contract.
        let copied =
            unsafe { sys::cuMemcpyDtoHAsync_v2(host.pointer().cast(), src.0, bytes, stream) };
        copied
            .result()
            .map_err(|error| driver_call("cuMemcpyDtoHAsync", error))
    }

    /// Begins to record what is queued instead of doing it.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn begin_capture(&self) -> Result<(), CudaFault> {
        // Other threads may allocate and load meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let begun = self.stream.begin_capture(mode);
        begun.map_err(|error| driver_call("cuStreamBeginCapture", error))
    }

    /// Ends a recording.
    ///
    /// # Errors
    /// When something that was queued cannot be recorded.
    pub fn end_capture(&self) -> Result<Graph, CudaFault> {
        let flags = sys::CUgraphInstantiate_flags(0);
        let graph = self.stream.end_capture(flags);
        let graph = graph.map_err(|error| driver_call("cuStreamEndCapture", error))?;
        let graph = graph.ok_or_else(|| CudaFault::Call {
            library: super::Library::Driver,
            call: "cuStreamEndCapture",
            reason: "the recording was given up by an earlier failure".to_owned(),
        })?;
        graph
            .upload()
            .map_err(|error| driver_call("cuGraphUpload", error))?;
        Ok(Graph(graph))
    }

    /// The queue as the libraries know it.
    pub(super) fn raw(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }
}

/// Recorded work, launched as one.
pub struct Graph(CudaGraph);

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

// SAFETY: a graph is not bound to a thread; `launch` takes it exclusively, so calls never overlap.
unsafe impl Send for Graph {}
// SAFETY: nothing can be done with a shared graph.
unsafe impl Sync for Graph {}

impl Graph {
    /// Queues the recorded work on the stream that it was recorded on.
    ///
    /// # Errors
    /// When the driver fails.
    ///
    /// # Safety
    /// All memory that the recorded work touches is still allocated, and ordered as when it was
    /// recorded.
    pub unsafe fn launch(&mut self) -> Result<(), CudaFault> {
        let launched = self.0.launch();
        launched.map_err(|error| driver_call("cuGraphLaunch", error))
    }
}
