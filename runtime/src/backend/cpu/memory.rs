//! Arena and state of a rank in host memory.
//!
//! Invariants: a region is zeroed pages, aligned to more than the plan's buffers are, owned until the
//! last user of the rank's memory is gone; every view lies inside its region. All access is through
//! raw addresses, so ranks may read each other's buffers while other buffers are written.

use crate::RuntimeError;
use crate::backend::View;
use crate::backend::resolved::view_in;
use terrace_kernels::cpu::Pages;
use terrace_plan::{Buffer, BufferId, DType, Rank, RankPlan, Region};

/// Memory of one rank.
#[derive(Debug)]
pub struct CpuMemory {
    views: Vec<View>,
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
            _arena: arena,
            _state: state,
        })
    }

    pub(super) fn view(&self, buffer: BufferId) -> Option<View> {
        self.views.get(buffer.0).copied()
    }
}

/// The pages of a region.
#[derive(Debug)]
struct Block {
    address: usize,
    pages: Pages,
}

impl Block {
    fn new(rank: Rank, region: Region, bytes: usize) -> Result<Self, RuntimeError> {
        let mut pages = Pages::zeroed(bytes).map_err(|_| RuntimeError::OutOfMemory {
            rank,
            region,
            bytes,
        })?;
        // Nothing has no address, but views of an empty block must have one; it is never dereferenced.
        let address = match bytes {
            0 => Buffer::ALIGNMENT,
            _ => pages.bytes_mut().as_mut_ptr().expose_provenance(),
        };
        Ok(Self { address, pages })
    }

    fn view(&self, rank: Rank, id: BufferId, buffer: &Buffer) -> Result<View, RuntimeError> {
        debug_assert!(buffer.dtype.bytes() <= DType::F32.bytes());
        // SAFETY: `CpuMemory` keeps the block allocated, and a session keeps the memory of all ranks
        // until the last of its threads has ended.
        unsafe { view_in(self.address, self.pages.bytes().len(), rank, id, buffer) }
    }
}
