//! The backend of NVIDIA GPUs: cublasLt, cuDNN and the kernels of `terrace-kernels`, on one or more
//! GPUs of this process.
//!
//! Rank `r` works on GPU `r mod n` of the `n` that were opened, on queues of its own; any number of
//! ranks shares a GPU. Ranks on different GPUs read each other's memory directly.
//!
//! Invariants: operands are resolved and checked, kernels compiled and plans of libraries made when a
//! session is created; a call only queues. A rank waits for another one's work by marks, never by
//! waiting for the device. What the device finds out late comes out at the end of a list. Refused: GPUs
//! that do not reach each other's memory, plans that need more memory than is free, i8 products.

mod copy;
mod fp8;
mod gpu;
mod lane;
mod launch;
mod memory;
mod nccl;
mod need;
mod room;
mod route;
mod weight;

pub use lane::Lane as CudaLane;
pub use launch::CudaCall;
pub use memory::CudaMemory;
pub use weight::CudaWeight;

use super::{Backend, Mark, View};
use crate::boxes::Boxes;
use crate::fabric::{Fabric, TcpFabric};
use crate::peers::{Peers, Presence};
use crate::{Checkpoint, RuntimeError};
use gpu::Gpu;
use nccl::NcclFabric;
use std::sync::Arc;
use std::time::Duration;
use terrace_kernels::KernelError;
use terrace_kernels::cuda::{Communicator, Device};
use terrace_plan::{BufferId, KernelCall, Plan, Rank, RankPlan, Weight};

/// GPUs of this machine.
#[derive(Debug)]
pub struct Cuda {
    gpus: Vec<Arc<Gpu>>,
    /// To the GPUs of other processes.
    link: Option<Arc<Communicator>>,
}

impl Cuda {
    /// The GPU among those of these numbers that process `local` of a host takes. One number stands for it and all that
    /// follow; processes begin anew behind the last.
    ///
    /// # Errors
    /// When the driver is absent, too old or fails.
    pub fn of_process(ordinals: &[usize], local: usize) -> Result<usize, RuntimeError> {
        match ordinals {
            [first] => Ok((first + local) % Device::count()?.max(1)),
            _ => Ok(ordinals
                .get(local % ordinals.len().max(1))
                .copied()
                .unwrap_or(0)),
        }
    }

    /// Opens the GPU of this number and joins it with those of the other processes, which make the same call.
    ///
    /// # Errors
    /// As for [`Cuda::open`]; NCCL is absent, fails, or not all processes have come within `timeout`.
    pub fn joined(ordinal: usize, peers: &Peers, timeout: Duration) -> Result<Self, RuntimeError> {
        let open = || {
            let mut cuda = Self::open(&[ordinal])?;
            for gpu in &cuda.gpus {
                cuda.link = Some(Arc::new(nccl::join(gpu, peers, timeout)?));
            }
            Ok(cuda)
        };
        open().inspect_err(|error: &RuntimeError| peers.fail(error))
    }

    /// Opens the GPUs of these numbers; ranks take them in turn.
    ///
    /// # Errors
    /// The library that is missing or too old; a GPU that is not there, or that cannot read the memory
    /// of another one.
    pub fn open(ordinals: &[usize]) -> Result<Self, RuntimeError> {
        let gpus = ordinals
            .iter()
            .map(|&ordinal| Gpu::open(ordinal).map(Arc::new));
        let gpus: Vec<Arc<Gpu>> = gpus.collect::<Result<_, _>>()?;
        for reader in &gpus {
            for owner in &gpus {
                reader.device().read_peer(owner.device())?;
            }
        }
        Ok(Self { gpus, link: None })
    }

    /// The number in `gpus` of the GPU that `rank` works on.
    const fn gpu_of(&self, rank: Rank) -> usize {
        match self.gpus.len() {
            0 => 0,
            gpus => rank.0 % gpus,
        }
    }
}

/// Memory of a rank with the number of its GPU.
#[derive(Debug)]
pub struct OnGpu {
    memory: Arc<CudaMemory>,
    gpu: usize,
}

impl Backend for Cuda {
    type Weight = CudaWeight;
    type Memory = OnGpu;
    type Launch = CudaCall;
    type Lane = Arc<CudaLane>;

    fn name(&self) -> &'static str {
        "cuda"
    }

    fn admit(&self, plan: &Plan, ranks: &[Rank], weights: &[&Weight]) -> Result<(), RuntimeError> {
        room::check(&self.gpus, plan, ranks, weights)
    }

    fn load(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<CudaWeight, RuntimeError> {
        CudaWeight::load(&self.gpus, checkpoint, weight)
    }

    fn allocate(
        &self,
        rank: Rank,
        plan: &RankPlan,
        weights: &[Weight],
    ) -> Result<OnGpu, RuntimeError> {
        let gpu = self.gpu_of(rank);
        let found = self.gpus.len();
        let here = self.gpus.get(gpu);
        let here = here.ok_or(crate::ResolveFault::NoCopy { gpu, found })?;
        let lane = Arc::new(CudaLane::new(here)?);
        let memory = Arc::new(CudaMemory::allocate(lane, rank, plan, weights)?);
        Ok(OnGpu { memory, gpu })
    }

    fn view(&self, on: &OnGpu, buffer: BufferId) -> Option<View> {
        on.memory.view(buffer)
    }

    fn lane(&self, _: Rank, on: &OnGpu, _: usize) -> Result<Self::Lane, RuntimeError> {
        Ok(Arc::clone(on.memory.lane()))
    }

    fn prepare(
        &self,
        on: &OnGpu,
        weights: &[Arc<CudaWeight>],
        call: &KernelCall,
    ) -> Result<CudaCall, RuntimeError> {
        launch::prepare(&on.memory, on.gpu, weights, call)
    }

    fn enter<R, F>(&self, _: &Self::Lane, job: F) -> R
    where
        R: Send,
        F: FnOnce() -> R + Send,
    {
        job()
    }

    unsafe fn launch(&self, _: &Self::Lane, launch: &CudaCall) -> Result<(), KernelError> {
        // SAFETY: the same contract.
        unsafe { launch.run() }
    }

    unsafe fn copy(
        &self,
        lane: &Self::Lane,
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::between(lane.stream(), src, dst, boxes) }
    }

    fn mark(&self, lane: &Self::Lane) -> Result<Mark, RuntimeError> {
        lane.mark()
    }

    unsafe fn pull(
        &self,
        lane: &Self::Lane,
        after: &[Mark],
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<Mark, RuntimeError> {
        lane::follow(lane.exchange(), after)?;
        // SAFETY: the same contract.
        unsafe { copy::between(lane.exchange(), src, dst, boxes) }?;
        lane.mark_exchange()
    }

    fn join(&self, lane: &Self::Lane, marks: &[Mark]) -> Result<(), RuntimeError> {
        lane::follow(lane.stream(), marks)
    }

    unsafe fn repeat(
        &self,
        lane: &Self::Lane,
        list: &mut dyn FnMut() -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { lane.repeat(list) }
    }

    fn fabric(
        &self,
        lane: &Self::Lane,
        presence: &Arc<Presence>,
    ) -> Result<Box<dyn Fabric>, RuntimeError> {
        match &self.link {
            Some(link) => Ok(Box::new(NcclFabric::new(lane, link, presence)?)),
            None => Ok(Box::new(TcpFabric::new(presence)?)),
        }
    }

    fn finish(&self, lane: &Self::Lane) -> Result<(), RuntimeError> {
        lane.finish()
    }

    unsafe fn upload(
        &self,
        lane: &Self::Lane,
        host: &[u8],
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::upload(lane, host, dst, boxes) }
    }

    unsafe fn download(
        &self,
        lane: &Self::Lane,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::download(lane, src, host, boxes) }
    }
}
