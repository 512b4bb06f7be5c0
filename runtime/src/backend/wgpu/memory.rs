//! Arena and state of a rank on the device.
//!
//! Invariants: a region is one buffer of zeros with room behind its last byte, so that every view has a
//! place, views without elements too; it lives until the last user of the rank's memory is gone.

use super::space::Region as Mapped;
use super::{Device, Handle};
use crate::backend::View;
use crate::backend::cube::{self, Buffer as BufferOf};
use crate::backend::resolved::view_in;
use crate::{DeviceFault, RuntimeError};
use terrace_kernels::cube::{Element, Operand, Queue, WgpuQueue};
use terrace_plan::{Buffer, BufferId, Rank, RankPlan, Region};

/// Bytes behind a region.
const BEHIND: usize = 256;

/// Memory of one rank.
pub struct WgpuMemory {
    views: Vec<View>,
    // The views point into these.
    _arena: Mapped,
    _state: Mapped,
}

impl std::fmt::Debug for WgpuMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgpuMemory")
            .field("views", &self.views)
            .finish_non_exhaustive()
    }
}

impl WgpuMemory {
    pub(super) fn allocate(
        device: &Device,
        rank: Rank,
        plan: &RankPlan,
    ) -> Result<Self, RuntimeError> {
        let arena = device.region(rank, Region::Arena, plan.arena_bytes)?;
        let state = device.region(rank, Region::State, plan.state_bytes)?;
        let buffers = plan.buffers.iter().enumerate();
        let views = buffers
            .map(|(id, buffer)| {
                let (region, bytes) = match buffer.region {
                    Region::Arena => (&arena, plan.arena_bytes),
                    Region::State => (&state, plan.state_bytes),
                };
                view(region, bytes, rank, BufferId(id), buffer)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            views,
            _arena: arena,
            _state: state,
        })
    }

    pub(super) fn view(&self, buffer: BufferId) -> Option<View> {
        self.views.get(buffer.0).copied()
    }
}

fn view(
    region: &Mapped,
    bytes: usize,
    rank: Rank,
    id: BufferId,
    buffer: &Buffer,
) -> Result<View, RuntimeError> {
    // SAFETY: `WgpuMemory` keeps the region mapped, and a session keeps the memory of all ranks until
    // the last of its threads has ended.
    unsafe { view_in(region.base(), bytes, rank, id, buffer) }
}

impl Device {
    /// A region of zeros.
    fn region(&self, rank: Rank, region: Region, bytes: usize) -> Result<Mapped, RuntimeError> {
        let whole = bytes
            .div_ceil(BEHIND)
            .saturating_add(1)
            .saturating_mul(BEHIND);
        if whole as u64 > self.limit {
            return Err(DeviceFault::RegionSize {
                rank,
                region,
                bytes,
                limit: self.limit,
                device: self.name.clone(),
            }
            .into());
        }
        let buffer = self.zeros(whole)?;
        // Memory that the device does not have comes out here, not in the first step.
        self.queue.synchronise()?;
        Ok(self.space.map(buffer, bytes))
    }

    /// A buffer that holds `bytes`.
    pub(super) fn constants(
        &self,
        element: Element,
        bytes: &[u8],
    ) -> Result<Operand<Handle>, RuntimeError> {
        let buffer = match bytes.is_empty() {
            // Devices have no empty buffers.
            true => self.queue.upload(&[0; BEHIND])?,
            false => self.queue.upload(bytes)?,
        };
        Ok(Operand {
            buffer,
            offset: 0,
            len: bytes.len() / element.bytes(),
            element,
        })
    }

    /// Where a view lies.
    pub(super) fn operand(&self, view: View) -> Result<Operand<Handle>, RuntimeError> {
        self.space.operand(view).ok_or_else(|| {
            DeviceFault::Unmapped {
                address: view.address(),
                device: self.name.clone(),
            }
            .into()
        })
    }
}

/// Memory of a rank as the kernels by kernel call ask for it.
pub(super) struct Places<'a> {
    pub(super) device: &'a Device,
    pub(super) memory: &'a WgpuMemory,
}

impl cube::Places for Places<'_> {
    type Queue = WgpuQueue;

    fn view(&self, buffer: BufferId) -> Option<View> {
        self.memory.view(buffer)
    }

    fn operand(&self, view: View) -> Result<Operand<BufferOf<Self>>, RuntimeError> {
        self.device.operand(view)
    }

    fn scratch(&self, len: usize) -> Result<Operand<BufferOf<Self>>, RuntimeError> {
        let bytes = len.max(1).saturating_mul(Element::F32.bytes());
        Ok(Operand {
            buffer: self.device.queue.empty(bytes)?,
            offset: 0,
            len,
            element: Element::F32,
        })
    }

    fn constants(
        &self,
        element: Element,
        bytes: &[u8],
    ) -> Result<Operand<BufferOf<Self>>, RuntimeError> {
        self.device.constants(element, bytes)
    }
}
