//! Arena, state and scratch of a rank on its GPU.
//!
//! Invariants: each is one allocation, made when a session is created, after all of them together were
//! compared with what is free; every view lies inside its region. Scratch belongs to one launch at a
//! time, since the launches of a rank run in order.

use super::lane::Lane;
use super::need::scratch;
use crate::backend::View;
use crate::backend::cube::{self, Buffer as BufferOf, element};
use crate::backend::resolved::view_in;
use crate::{ResolveFault, RuntimeError};
use std::cell::RefCell;
use std::sync::Arc;
use terrace_kernels::cube::{Element, Operand};
use terrace_kernels::cuda::{
    CudaBuffer, CudaFault, CudaQueue, DeviceAddress, DeviceMemory, WORKSPACE,
};
use terrace_plan::{BufferId, Rank, RankPlan, Region, Weight};

/// Bytes at whose multiples buffers of kernels begin.
const ALIGNMENT: usize = 16;

/// Memory of one rank.
#[derive(Debug)]
pub struct CudaMemory {
    lane: Arc<Lane>,
    views: Vec<View>,
    /// [`WORKSPACE`] bytes for cublasLt, then what single launches need.
    scratch: DeviceMemory,
    // The views point into these.
    _arena: DeviceMemory,
    _state: DeviceMemory,
}

impl CudaMemory {
    pub(super) fn allocate(
        lane: Arc<Lane>,
        rank: Rank,
        plan: &RankPlan,
        weights: &[Weight],
    ) -> Result<Self, RuntimeError> {
        let device = lane.gpu().device();
        let extra = scratch(plan, weights, &lane)?.saturating_add(WORKSPACE);
        let regions = [plan.arena_bytes, plan.state_bytes, extra];
        let what = format!(
            "rank {rank} ({} bytes of activations, {} of state, {} of scratch)",
            regions[0], regions[1], regions[2]
        );
        let bytes = regions.into_iter().fold(0, usize::saturating_add);
        let memory = device.memory()?;
        if bytes > memory.free {
            return Err(CudaFault::OutOfMemory {
                ordinal: device.ordinal(),
                what,
                bytes,
                free: memory.free,
                total: memory.total,
            }
            .into());
        }
        let allocate = |bytes| device.allocate(&what, bytes);
        let (arena, state) = (allocate(plan.arena_bytes)?, allocate(plan.state_bytes)?);
        let views = plan.buffers.iter().enumerate();
        let views = views
            .map(|(id, buffer)| {
                let region = match buffer.region {
                    Region::Arena => &arena,
                    Region::State => &state,
                };
                let base = usize::try_from(region.address().0).unwrap_or(usize::MAX);
                // SAFETY: `CudaMemory` keeps the region allocated, and a session keeps the memory of
                // all ranks until the last of its threads has ended.
                unsafe { view_in(base, region.bytes(), rank, BufferId(id), buffer) }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            views,
            scratch: allocate(extra)?,
            lane,
            _arena: arena,
            _state: state,
        })
    }

    pub(super) const fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    pub(super) fn view(&self, buffer: BufferId) -> Option<View> {
        self.views.get(buffer.0).copied()
    }

    /// Scratch of cublasLt.
    pub(super) const fn product_scratch(&self) -> DeviceAddress {
        self.scratch.address()
    }

    /// Scratch of one launch, `bytes` bytes of which it uses.
    ///
    /// # Errors
    /// When the plan's scratch was computed for less.
    pub(super) fn scratch(&self, bytes: usize) -> Result<DeviceAddress, RuntimeError> {
        if WORKSPACE.saturating_add(bytes) > self.scratch.bytes() {
            return Err(ResolveFault::Scratch {
                expected: bytes,
                found: self.scratch.bytes().saturating_sub(WORKSPACE),
            }
            .into());
        }
        Ok(self.scratch.address().plus(WORKSPACE))
    }
}

/// Memory of a rank as the kernels by kernel call ask for it, with what a call adds.
pub(super) struct Places<'a> {
    pub(super) memory: &'a CudaMemory,
    pub(super) added: RefCell<Vec<DeviceMemory>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(memory: &'a CudaMemory) -> Self {
        Self {
            memory,
            added: RefCell::default(),
        }
    }

    fn add(
        &self,
        element: Element,
        len: usize,
        bytes: Option<&[u8]>,
    ) -> Result<Operand<CudaBuffer>, RuntimeError> {
        let device = self.memory.lane.gpu().device();
        let size = len.saturating_mul(element.bytes()).max(ALIGNMENT);
        let mut memory = device.allocate("the constants of a kernel", size)?;
        if let Some(bytes) = bytes {
            memory.fill(bytes)?;
        }
        let operand = at(memory.address(), len, element);
        self.added.borrow_mut().push(memory);
        Ok(operand)
    }
}

impl cube::Places for Places<'_> {
    type Queue = CudaQueue;

    fn view(&self, buffer: BufferId) -> Option<View> {
        self.memory.view(buffer)
    }

    fn operand(&self, view: View) -> Result<Operand<BufferOf<Self>>, RuntimeError> {
        let element = element(view.dtype()).ok_or(ResolveFault::NoElement {
            dtype: view.dtype(),
        })?;
        let address = DeviceAddress(view.address() as u64);
        Ok(at(address, view.len(), element))
    }

    fn scratch(&self, len: usize) -> Result<Operand<BufferOf<Self>>, RuntimeError> {
        self.add(Element::F32, len, None)
    }

    fn constants(
        &self,
        element: Element,
        bytes: &[u8],
    ) -> Result<Operand<BufferOf<Self>>, RuntimeError> {
        self.add(element, bytes.len() / element.bytes(), Some(bytes))
    }
}

/// `len` elements at an address. Kernels rely on buffers that begin at multiples of 16 bytes.
pub(super) const fn at(
    address: DeviceAddress,
    len: usize,
    element: Element,
) -> Operand<CudaBuffer> {
    let lead = (address.0 % ALIGNMENT as u64) as usize;
    Operand {
        buffer: CudaBuffer {
            address: DeviceAddress(address.0 - lead as u64),
            bytes: lead + len * element.bytes(),
        },
        offset: lead / element.bytes(),
        len,
        element,
    }
}
