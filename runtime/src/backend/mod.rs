//! Backends: memory of a rank, kernels by call, copies, and where a rank's loop runs.
//!
//! Invariants: a backend has no shape logic; it resolves every operand and kernel once, when a session
//! is created, so that the step loop neither allocates nor decides. A [`View`] is an address in the
//! backend's memory, so fabrics and the executor need not know what kind of memory it is. Launches and
//! copies may return before they have ended; whatever is launched, copied or read later, by any rank
//! that has been told of it, sees their results.

pub mod cpu;
pub(crate) mod resolved;

use crate::boxes::Boxes;
use crate::{Checkpoint, RuntimeError};
use std::sync::Arc;
use terrace_kernels::KernelError;
use terrace_plan::{BufferId, DType, KernelCall, Rank, RankPlan, Weight};

/// A buffer of a rank as an address in its backend's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    address: usize,
    len: usize,
    dtype: DType,
}

impl View {
    /// A view of `len` elements at `address`.
    ///
    /// # Safety
    /// The elements must be in memory that the backend can reach and lives as long as the view is
    /// used, aligned for `dtype`. Whoever uses the view does so as the steps of a plan that has
    /// passed its check, so that nothing is written while another rank reads it.
    pub const unsafe fn new(address: usize, len: usize, dtype: DType) -> Self {
        Self {
            address,
            len,
            dtype,
        }
    }

    /// Address of the first element.
    pub const fn address(&self) -> usize {
        self.address
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }
}

/// Copies between buffers of any ranks that share memory.
pub trait Copier: Send + Sync {
    /// Copies `boxes` from `src` to `dst`.
    ///
    /// # Errors
    /// When the boxes end behind a view or the element types differ; nothing is copied then.
    ///
    /// # Safety
    /// During the call nobody else writes the elements read or touches the elements written.
    unsafe fn copy(&self, src: View, dst: View, boxes: &Boxes) -> Result<(), RuntimeError>;
}

/// A kind of device and all that the executor asks of it.
pub trait Backend: Copier + 'static {
    /// A weight as the kernels of this backend read it.
    type Weight: Send + Sync + 'static;
    /// Arena and state of one rank.
    type Memory: Send + Sync + 'static;
    /// A kernel call with its operands resolved.
    type Launch: Send + Sync + 'static;
    /// What runs the work of one rank: a thread pool, a stream.
    type Lane: Send + Sync + 'static;

    /// Name in traces and messages.
    fn name(&self) -> &'static str;

    /// Converts and packs a weight of a checkpoint.
    ///
    /// # Errors
    /// When a stored tensor is missing or does not fit the weight.
    fn load(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<Self::Weight, RuntimeError>;

    /// Allocates the zeroed arena and state of a rank and checks that its buffers lie inside.
    ///
    /// # Errors
    /// When memory runs out or a buffer lies outside its region.
    fn allocate(&self, rank: Rank, plan: &RankPlan) -> Result<Self::Memory, RuntimeError>;

    /// The view of a buffer, or `None` when the rank has no such buffer.
    fn view(&self, memory: &Self::Memory, buffer: BufferId) -> Option<View>;

    /// Makes what runs the work of a rank on `threads` threads.
    ///
    /// # Errors
    /// When threads or device queues cannot be made.
    fn lane(&self, rank: Rank, threads: usize) -> Result<Self::Lane, RuntimeError>;

    /// Resolves a kernel call: one exhaustive match from call to kernel.
    ///
    /// # Errors
    /// When an operand lies outside its buffer or overlaps a result, or a weight has another layout.
    fn prepare(
        &self,
        memory: &Self::Memory,
        weights: &[Arc<Self::Weight>],
        call: &KernelCall,
    ) -> Result<Self::Launch, RuntimeError>;

    /// Runs a rank's whole loop where its kernels run.
    fn enter<R, F>(&self, lane: &Self::Lane, job: F) -> R
    where
        R: Send,
        F: FnOnce() -> R + Send;

    /// Runs a kernel.
    ///
    /// # Errors
    /// What the kernel refuses.
    ///
    /// # Safety
    /// As for [`Copier::copy`], for the operands of the call; and the memory that the call was
    /// prepared for is still allocated.
    unsafe fn launch(&self, lane: &Self::Lane, launch: &Self::Launch) -> Result<(), KernelError>;

    /// Waits until all that was launched and copied on the lane has ended.
    ///
    /// # Errors
    /// What a device finds out after a launch or a copy has returned.
    fn finish(&self, lane: &Self::Lane) -> Result<(), RuntimeError>;

    /// Copies `boxes` from `host`, elements of the view's type, to a buffer.
    ///
    /// # Errors
    /// As for [`Copier::copy`].
    ///
    /// # Safety
    /// As for [`Copier::copy`].
    unsafe fn upload(&self, host: &[u8], dst: View, boxes: &Boxes) -> Result<(), RuntimeError>;

    /// Copies `boxes` from a buffer to `host`, elements of the view's type.
    ///
    /// # Errors
    /// As for [`Copier::copy`].
    ///
    /// # Safety
    /// As for [`Copier::copy`].
    unsafe fn download(
        &self,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError>;
}
