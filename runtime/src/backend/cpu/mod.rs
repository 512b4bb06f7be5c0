//! The CPU backend: host memory, one thread pool per rank, the kernels of `terrace-kernels`.
//!
//! Invariants: operands are resolved and checked when a session is created; a launch only makes slices
//! and runs the kernel in the pool of its rank. `unsafe` is confined to `memory`, `copy` and `operand`.

mod copy;
mod launch;
mod memory;
mod operand;

pub use memory::CpuMemory;

use super::{Backend, View};
use crate::boxes::Boxes;
use crate::{Checkpoint, LoadedWeight, ResolveFault, RuntimeError};
use operand::Access;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;
use terrace_kernels::KernelError;
use terrace_plan::{BufferId, KernelCall, Rank, RankPlan, Weight};

/// The CPU of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Cpu {
    /// The threads that run the work of a rank.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn pool(rank: Rank, threads: usize) -> Result<ThreadPool, RuntimeError> {
        ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |thread| format!("rank {rank} thread {thread}"))
            .build()
            .map_err(|error| RuntimeError::Threads {
                rank,
                threads,
                reason: error.to_string(),
            })
    }
}

/// A kernel call of the CPU with its operands resolved.
pub struct CpuLaunch {
    run: launch::Run,
    // The operands are addresses in this memory.
    _memory: Arc<CpuMemory>,
}

impl std::fmt::Debug for CpuLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuLaunch").finish_non_exhaustive()
    }
}

impl Backend for Cpu {
    type Weight = LoadedWeight;
    type Memory = Arc<CpuMemory>;
    type Launch = CpuLaunch;
    type Lane = ThreadPool;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn load(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<LoadedWeight, RuntimeError> {
        LoadedWeight::load(checkpoint, weight)
    }

    fn allocate(
        &self,
        rank: Rank,
        plan: &RankPlan,
        _: &[Weight],
    ) -> Result<Self::Memory, RuntimeError> {
        CpuMemory::allocate(rank, plan).map(Arc::new)
    }

    fn view(&self, memory: &Self::Memory, buffer: BufferId) -> Option<View> {
        memory.view(buffer)
    }

    fn lane(
        &self,
        rank: Rank,
        _: &Self::Memory,
        threads: usize,
    ) -> Result<ThreadPool, RuntimeError> {
        Self::pool(rank, threads)
    }

    fn prepare(
        &self,
        memory: &Self::Memory,
        weights: &[Arc<LoadedWeight>],
        call: &KernelCall,
    ) -> Result<CpuLaunch, RuntimeError> {
        let run = launch::prepare(memory, weights, call)?;
        Ok(CpuLaunch {
            run,
            _memory: Arc::clone(memory),
        })
    }

    fn enter<R, F>(&self, lane: &ThreadPool, job: F) -> R
    where
        R: Send,
        F: FnOnce() -> R + Send,
    {
        lane.install(job)
    }

    unsafe fn launch(&self, _: &ThreadPool, launch: &CpuLaunch) -> Result<(), KernelError> {
        // SAFETY: the launch keeps the memory allocated; the caller rules out other access; each
        // launch closure takes every result once.
        let access = unsafe { Access::new() };
        (launch.run)(&access)
    }

    unsafe fn copy(
        &self,
        _: &ThreadPool,
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::copy(src, dst, boxes) }
    }

    fn finish(&self, _: &ThreadPool) -> Result<(), RuntimeError> {
        // Launches and copies return when they have ended.
        Ok(())
    }

    unsafe fn upload(
        &self,
        _: &ThreadPool,
        host: &[u8],
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        let bytes = dst.dtype().bytes();
        let address = host.as_ptr().expose_provenance();
        aligned(address, bytes)?;
        // SAFETY: whole elements of a slice that is borrowed for the call.
        let src = unsafe { View::new(address, host.len() / bytes, dst.dtype()) };
        // SAFETY: the caller rules out other access to the buffer; the host slice is borrowed.
        unsafe { copy::copy(src, dst, boxes) }
    }

    unsafe fn download(
        &self,
        _: &ThreadPool,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        let bytes = src.dtype().bytes();
        let address = host.as_mut_ptr().expose_provenance();
        aligned(address, bytes)?;
        // SAFETY: whole elements of a slice that is borrowed exclusively for the call.
        let dst = unsafe { View::new(address, host.len() / bytes, src.dtype()) };
        // SAFETY: the caller rules out other access to the buffer; the host slice is borrowed.
        unsafe { copy::copy(src, dst, boxes) }
    }
}

fn aligned(address: usize, bytes: usize) -> Result<(), RuntimeError> {
    if address.is_multiple_of(bytes) {
        return Ok(());
    }
    Err(ResolveFault::HostAlignment { bytes }.into())
}
