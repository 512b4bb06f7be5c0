//! The backend of GPUs through Vulkan, Metal and DX12: the kernels of `terrace-kernels` on one adapter.
//!
//! Any number of ranks shares the adapter, its weights and its one queue. The queue runs launches,
//! copies and uploads in the order in which they were handed over, whichever thread did it, so what
//! a rank has published is there for whoever copies it later, and ranks run as they would on adapters
//! of their own.
//!
//! Invariants: operands are resolved and checked when a session is created; kernels are compiled then
//! as far as this process can, and by the driver at their first launch. Errors that the device finds
//! late come out at the end of a list. Refused: element types that the adapter lacks, and regions or
//! weights that are larger than what its kernels reach at once.

mod copy;
mod memory;
mod space;

pub use memory::WgpuMemory;

use super::cube::{Binder, CubeWeight, calls, element, pack};
use super::{Backend, View};
use crate::boxes::Boxes;
use crate::weights::elements;
use crate::{Checkpoint, DeviceFault, RuntimeError};
use memory::Places;
use space::Space;
use std::sync::Arc;
use terrace_kernels::KernelError;
use terrace_kernels::cube::{Adapter, Element, Queue, WgpuLaunch, WgpuQueue, adapters};
use terrace_plan::{BufferId, DType, KernelCall, Rank, RankPlan, Weight};

/// A buffer of the device.
type Handle = <WgpuQueue as Queue>::Buffer;

/// A weight on the device.
pub type WgpuWeight = CubeWeight<Handle>;

/// An adapter of this machine.
pub struct Wgpu {
    device: Arc<Device>,
}

/// What memory, copies and launches share.
struct Device {
    name: String,
    queue: WgpuQueue,
    /// Floating types that kernels store.
    floats: Vec<DType>,
    /// Bytes of the largest buffer that kernels reach.
    limit: u64,
    space: Space,
}

/// A kernel call with its launches prepared.
pub struct WgpuCall {
    launches: Vec<WgpuLaunch>,
    // The addresses of the operands lead here.
    _memory: Arc<WgpuMemory>,
}

impl Wgpu {
    /// Opens the adapter of this number in the list of [`adapters`].
    ///
    /// # Errors
    /// [`DeviceFault::NoAdapter`] with all adapters when there is none; what its driver says when it
    /// makes no device.
    pub fn open(adapter: usize) -> Result<Self, RuntimeError> {
        let all = adapters();
        let Some(found) = all.get(adapter) else {
            let found = all.iter().map(Adapter::name).collect();
            return Err(DeviceFault::NoAdapter { adapter, found }.into());
        };
        let queue = found.open()?;
        let has = |dtype: &DType| element(*dtype).is_some_and(|e| queue.device().has(e));
        let floats = [DType::F32, DType::F16, DType::Bf16];
        Ok(Self {
            device: Arc::new(Device {
                name: found.name(),
                floats: floats.into_iter().filter(has).collect(),
                queue,
                limit: found.largest_buffer(),
                space: Space::default(),
            }),
        })
    }

    /// Name of the adapter and of the interface through which it is reached.
    pub fn adapter(&self) -> &str {
        &self.device.name
    }

    /// How kernels call a type of buffers or products, which the device must store.
    fn stored(&self, dtype: DType, what: &str) -> Result<Element, RuntimeError> {
        let device = &self.device;
        let found = element(dtype).filter(|&element| device.queue.device().has(element));
        found.ok_or_else(|| {
            DeviceFault::ElementType {
                what: what.to_owned(),
                dtype,
                device: device.name.clone(),
                has: device.floats.clone(),
            }
            .into()
        })
    }
}

impl std::fmt::Debug for Wgpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wgpu")
            .field("adapter", &self.device.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WgpuCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgpuCall").finish_non_exhaustive()
    }
}

impl Backend for Wgpu {
    type Weight = WgpuWeight;
    type Memory = Arc<WgpuMemory>;
    type Launch = WgpuCall;
    type Lane = ();

    fn name(&self) -> &'static str {
        "wgpu"
    }

    fn load(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<WgpuWeight, RuntimeError> {
        let name = weight.sources.first().map_or("", |source| &source.name);
        let products = self.stored(weight.dtype, &format!("weight `{name}`"))?;
        let (element, bytes) = pack(weight, products, &elements(checkpoint, weight)?)?;
        if bytes.len() as u64 > self.device.limit {
            return Err(DeviceFault::WeightSize {
                weight: name.to_owned(),
                bytes: bytes.len(),
                limit: self.device.limit,
                device: self.device.name.clone(),
            }
            .into());
        }
        Ok(CubeWeight {
            operand: self.device.constants(element, &bytes)?,
            layout: weight.layout,
        })
    }

    fn allocate(
        &self,
        rank: Rank,
        plan: &RankPlan,
        _: &[Weight],
    ) -> Result<Self::Memory, RuntimeError> {
        for buffer in &plan.buffers {
            self.stored(buffer.dtype, &format!("a buffer of rank {rank}"))?;
        }
        WgpuMemory::allocate(&self.device, rank, plan).map(Arc::new)
    }

    fn view(&self, memory: &Self::Memory, buffer: BufferId) -> Option<View> {
        memory.view(buffer)
    }

    fn lane(&self, _: Rank, _: &Self::Memory, _: usize) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn prepare(
        &self,
        memory: &Self::Memory,
        weights: &[Arc<WgpuWeight>],
        call: &KernelCall,
    ) -> Result<WgpuCall, RuntimeError> {
        let queue = &self.device.queue;
        let places = Places {
            device: &self.device,
            memory,
        };
        let binder = Binder::new(&self.device.floats, &places, weights, call)?;
        let launches = calls(&binder, queue.device(), call)?
            .iter()
            .map(|call| queue.prepare(call))
            .collect::<Result<_, _>>()?;
        Ok(WgpuCall {
            launches,
            _memory: Arc::clone(memory),
        })
    }

    fn enter<R, F>(&self, (): &(), job: F) -> R
    where
        R: Send,
        F: FnOnce() -> R + Send,
    {
        job()
    }

    unsafe fn launch(&self, (): &(), launch: &WgpuCall) -> Result<(), KernelError> {
        for launch in &launch.launches {
            // SAFETY: the binder has checked that results overlap other operands only as the call
            // allows; the caller rules out other access, and the queue keeps the order.
            unsafe { self.device.queue.launch(launch) }?;
        }
        Ok(())
    }

    unsafe fn copy(
        &self,
        (): &(),
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::between(&self.device, src, dst, boxes) }
    }

    fn finish(&self, (): &()) -> Result<(), RuntimeError> {
        Ok(self.device.queue.synchronise()?)
    }

    unsafe fn upload(
        &self,
        (): &(),
        host: &[u8],
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::upload(&self.device, host, dst, boxes) }
    }

    unsafe fn download(
        &self,
        (): &(),
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { copy::download(&self.device, src, host, boxes) }
    }
}
