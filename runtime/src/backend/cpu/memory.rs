//! Arena and state of a rank in host memory.
//!
//! Invariants: a region is one zeroed allocation, aligned as the plan's buffers are, owned until the
//! last user of the rank's memory is gone; every view lies inside its region. All access is through
//! raw addresses, so ranks may read each other's buffers while other buffers are written.

use crate::RuntimeError;
use crate::backend::View;
use crate::backend::resolved::view_in;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::{Mutex, MutexGuard, PoisonError};
use terrace_plan::{Buffer, BufferId, DType, Rank, RankPlan, Region};

/// Memory of one rank.
#[derive(Debug)]
pub struct CpuMemory {
    views: Vec<View>,
    scratch: Mutex<Vec<f32>>,
    // The views point into these.
    _arena: Block,
    _state: Block,
}

impl CpuMemory {
    pub(super) fn allocate(rank: Rank, plan: &RankPlan) -> Result<Self, RuntimeError> {
        let arena = Block::new(rank, Region::Arena, plan.arena_bytes)?;
        let state = Block::new(rank, Region::State, plan.state_bytes)?;
        let views = plan
            .buffers
            .iter()
            .enumerate()
            .map(|(id, buffer)| {
                let block = match buffer.region {
                    Region::Arena => &arena,
                    Region::State => &state,
                };
                block.view(rank, BufferId(id), buffer)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            views,
            scratch: Mutex::default(),
            _arena: arena,
            _state: state,
        })
    }

    pub(super) fn view(&self, buffer: BufferId) -> Option<View> {
        self.views.get(buffer.0).copied()
    }

    /// Makes sure that [`CpuMemory::scratch`] holds `len` elements.
    pub(super) fn reserve_scratch(&self, len: usize) {
        let mut scratch = self.scratch();
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
    }

    /// Room for the input of a kernel that cannot work in place.
    pub(super) fn scratch(&self) -> MutexGuard<'_, Vec<f32>> {
        // Its contents are meaningless between calls, so a panic cannot have spoilt them.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One allocation; empty blocks have no memory.
#[derive(Debug)]
struct Block {
    address: usize,
    layout: Layout,
}

impl Block {
    fn new(rank: Rank, region: Region, bytes: usize) -> Result<Self, RuntimeError> {
        let out_of_memory = || RuntimeError::OutOfMemory {
            rank,
            region,
            bytes,
        };
        let layout =
            Layout::from_size_align(bytes, Buffer::ALIGNMENT).map_err(|_| out_of_memory())?;
        if bytes == 0 {
            // Never dereferenced: all views of an empty block are empty.
            return Ok(Self {
                address: Buffer::ALIGNMENT,
                layout,
            });
        }
        // SAFETY: the size of the layout is not zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(out_of_memory());
        }
        Ok(Self {
            address: pointer.expose_provenance(),
            layout,
        })
    }

    fn view(&self, rank: Rank, id: BufferId, buffer: &Buffer) -> Result<View, RuntimeError> {
        debug_assert!(buffer.dtype.bytes() <= DType::F32.bytes());
        // SAFETY: `CpuMemory` keeps the block allocated, and a session keeps the memory of all ranks
        // until the last of its threads has ended.
        unsafe { view_in(self.address, self.layout.size(), rank, id, buffer) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            let pointer = std::ptr::with_exposed_provenance_mut(self.address);
            // SAFETY: allocated by `Block::new` with this layout, and freed once.
            unsafe { dealloc(pointer, self.layout) };
        }
    }
}
