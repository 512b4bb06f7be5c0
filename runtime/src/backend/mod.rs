//! Backends: memory of a rank, kernels by call, copies, and where a rank's loop runs.
//!
//! Invariants: a backend has no shape logic; it resolves every operand and kernel once, when a session
//! is created, so that the step loop neither allocates nor decides. A [`View`] is an address in the
//! backend's memory, so fabrics and the executor need not know what kind of memory it is. Launches and
//! copies of a lane may return before they have ended; what the lane does later sees their results.
//! Another lane sees them once it has waited for a [`Mark`] that was set behind them.

mod args;
pub mod cpu;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
#[cfg(feature = "cuda")]
pub mod cuda;
pub(crate) mod resolved;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use crate::boxes::Boxes;
use crate::fabric::{Fabric, TcpFabric};
use crate::peers::Presence;
use crate::{Checkpoint, RuntimeError};
use std::any::Any;
use std::sync::Arc;
use terrace_kernels::KernelError;
use terrace_plan::{BufferId, DType, KernelCall, Plan, Rank, RankPlan, Weight};

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

/// A point in the work of a lane that other lanes wait for; made and understood by its backend.
#[derive(Clone, Default)]
pub struct Mark(Option<Arc<dyn Any + Send + Sync>>);

impl Mark {
    /// The mark of work that had ended when it was set: there is nothing to wait for.
    pub const ENDED: Self = Self(None);

    /// A mark that stands for `event` of a backend.
    pub fn new<E: Any + Send + Sync>(event: E) -> Self {
        Self(Some(Arc::new(event)))
    }

    /// The event, if it is one of type `E`.
    pub fn event<E: Any>(&self) -> Option<&E> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mark").finish_non_exhaustive()
    }
}

/// The lane of a rank as a fabric works with it.
pub trait Copier {
    /// Marks what the lane has been told so far.
    ///
    /// # Errors
    /// When the device fails.
    fn mark(&self) -> Result<Mark, RuntimeError>;

    /// Copies `boxes` from `src`, perhaps of another rank, to `dst` of this one, when all of `after`
    /// are reached, beside what the lane does meanwhile. Returns the mark of the end.
    ///
    /// # Errors
    /// When the boxes end behind a view or the element types differ; nothing is copied then.
    ///
    /// # Safety
    /// Nobody writes the elements read or touches the elements written that has not been ordered
    /// before or after the copy by marks.
    unsafe fn pull(
        &self,
        after: &[Mark],
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<Mark, RuntimeError>;

    /// Lets what the lane is told from now on wait for `marks`.
    ///
    /// # Errors
    /// When the device fails.
    fn join(&self, marks: &[Mark]) -> Result<(), RuntimeError>;

    /// Copies `boxes` from `host`, elements of the view's type, to a buffer of this rank, and returns when they
    /// are there or `host` is not needed any more.
    ///
    /// # Errors
    /// As for [`Copier::pull`].
    ///
    /// # Safety
    /// Nobody else touches the elements written before the lane's later work.
    unsafe fn upload(&self, host: &[u8], dst: View, boxes: &Boxes) -> Result<(), RuntimeError>;

    /// Copies `boxes` from a buffer of this rank, when the lane has made it, to `host`, elements of the view's
    /// type, and returns when they are there.
    ///
    /// # Errors
    /// As for [`Copier::pull`].
    ///
    /// # Safety
    /// Nobody else writes the elements read.
    unsafe fn download(
        &self,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError>;
}

/// A rank's lane with its backend.
pub(crate) struct OnLane<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) lane: &'a B::Lane,
}

impl<B: Backend> Copier for OnLane<'_, B> {
    fn mark(&self) -> Result<Mark, RuntimeError> {
        self.backend.mark(self.lane)
    }

    unsafe fn pull(
        &self,
        after: &[Mark],
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<Mark, RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.backend.pull(self.lane, after, src, dst, boxes) }
    }

    fn join(&self, marks: &[Mark]) -> Result<(), RuntimeError> {
        self.backend.join(self.lane, marks)
    }

    unsafe fn upload(&self, host: &[u8], dst: View, boxes: &Boxes) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.backend.upload(self.lane, host, dst, boxes) }
    }

    unsafe fn download(
        &self,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { self.backend.download(self.lane, src, host, boxes) }
    }
}

/// A kind of device and all that the executor asks of it.
pub trait Backend: Send + Sync + 'static {
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

    /// Makes sure that these ranks of a plan fit with `weights`, those of it that are to be loaded, before any is. A
    /// device whose memory runs out where it is asked for says so then.
    ///
    /// # Errors
    /// When the plan needs more memory than is free.
    fn admit(
        &self,
        _plan: &Plan,
        _ranks: &[Rank],
        _weights: &[&Weight],
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Converts and packs a weight of a checkpoint.
    ///
    /// # Errors
    /// When a stored tensor is missing or does not fit the weight.
    fn load(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<Self::Weight, RuntimeError>;

    /// Allocates the zeroed arena and state of a rank and checks that its buffers lie inside. `weights` are
    /// those of the whole plan.
    ///
    /// # Errors
    /// When memory runs out or a buffer lies outside its region.
    fn allocate(
        &self,
        rank: Rank,
        plan: &RankPlan,
        weights: &[Weight],
    ) -> Result<Self::Memory, RuntimeError>;

    /// The view of a buffer, or `None` when the rank has no such buffer.
    fn view(&self, memory: &Self::Memory, buffer: BufferId) -> Option<View>;

    /// Makes what runs the work of a rank that has `memory` on `threads` threads.
    ///
    /// # Errors
    /// When threads or device queues cannot be made.
    fn lane(
        &self,
        rank: Rank,
        memory: &Self::Memory,
        threads: usize,
    ) -> Result<Self::Lane, RuntimeError>;

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
    /// As for [`Backend::copy`], for the operands of the call; and the memory that the call was
    /// prepared for is still allocated.
    unsafe fn launch(&self, lane: &Self::Lane, launch: &Self::Launch) -> Result<(), KernelError>;

    /// Copies `boxes` between two buffers of the lane's rank.
    ///
    /// # Errors
    /// When the boxes end behind a view or the element types differ; nothing is copied then.
    ///
    /// # Safety
    /// Until the copy has ended, nobody else writes the elements read or touches the elements written.
    unsafe fn copy(
        &self,
        lane: &Self::Lane,
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError>;

    /// [`Copier::mark`] on a lane. Nothing to be done where calls return when their work has ended.
    ///
    /// # Errors
    /// When the device fails.
    fn mark(&self, _lane: &Self::Lane) -> Result<Mark, RuntimeError> {
        Ok(Mark::ENDED)
    }

    /// [`Copier::pull`] on a lane. A copy where calls return when their work has ended.
    ///
    /// # Errors
    /// As for [`Copier::pull`].
    ///
    /// # Safety
    /// As for [`Copier::pull`].
    unsafe fn pull(
        &self,
        lane: &Self::Lane,
        _after: &[Mark],
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<Mark, RuntimeError> {
        // SAFETY: the same contract; all that was marked has ended.
        unsafe { self.copy(lane, src, dst, boxes) }?;
        Ok(Mark::ENDED)
    }

    /// [`Copier::join`] on a lane. Nothing to be done where calls return when their work has ended.
    ///
    /// # Errors
    /// When the device fails.
    fn join(&self, _lane: &Self::Lane, _marks: &[Mark]) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Runs `list`, which tells the lane the same in every call and waits for nobody. A device may
    /// record it and repeat the record instead of calling it again.
    ///
    /// # Errors
    /// Those of `list`, or of the device.
    ///
    /// # Safety
    /// As for what `list` does.
    unsafe fn repeat(
        &self,
        _lane: &Self::Lane,
        list: &mut dyn FnMut() -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        list()
    }

    /// How the lane's rank exchanges with those of other processes: through memory of the host and the network,
    /// where a device has no better way.
    ///
    /// # Errors
    /// When the plan's boxes cannot be resolved, or the device fails.
    fn fabric(
        &self,
        _lane: &Self::Lane,
        presence: &Arc<Presence>,
    ) -> Result<Box<dyn Fabric>, RuntimeError> {
        Ok(Box::new(TcpFabric::new(presence)?))
    }

    /// Waits until all that was launched and copied on the lane has ended.
    ///
    /// # Errors
    /// What a device finds out after a launch or a copy has returned.
    fn finish(&self, lane: &Self::Lane) -> Result<(), RuntimeError>;

    /// Copies `boxes` from `host`, elements of the view's type, to a buffer.
    ///
    /// # Errors
    /// As for [`Backend::copy`].
    ///
    /// # Safety
    /// As for [`Backend::copy`].
    unsafe fn upload(
        &self,
        lane: &Self::Lane,
        host: &[u8],
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError>;

    /// Copies `boxes` from a buffer to `host`, elements of the view's type.
    ///
    /// # Errors
    /// As for [`Backend::copy`].
    ///
    /// # Safety
    /// As for [`Backend::copy`].
    unsafe fn download(
        &self,
        lane: &Self::Lane,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError>;
}
