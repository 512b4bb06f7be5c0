//! Addresses for memory that has none: which place of which buffer a view means.
//!
//! Invariants: every region begins at an address of its own, a multiple of what buffers are aligned to,
//! and no address is given twice in a process; a region stays known as long as its [`Region`] lives.

use super::Handle;
use crate::backend::View;
use crate::backend::cube::element;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terrace_kernels::cube::Operand;

/// Bytes between two regions: a view without elements may stand at the end of its region.
const GAP: usize = 1 << 12;

/// All regions of a device.
#[derive(Clone, Default)]
pub(super) struct Space(Arc<Mutex<Regions>>);

#[derive(Default)]
struct Regions {
    end: usize,
    buffers: BTreeMap<usize, Handle>,
}

/// A region that has addresses.
pub(super) struct Region {
    space: Space,
    base: usize,
}

impl Space {
    /// Gives `bytes` bytes of memory, and the place behind them, an address each.
    pub(super) fn map(&self, buffer: Handle, bytes: usize) -> Region {
        let mut regions = self.lock();
        let base = regions.end + GAP;
        regions.end = base + bytes.next_multiple_of(GAP);
        regions.buffers.insert(base, buffer);
        Region {
            space: self.clone(),
            base,
        }
    }

    /// Where a view lies, or `None` when no region is there.
    pub(super) fn operand(&self, view: View) -> Option<Operand<Handle>> {
        let element = element(view.dtype())?;
        let regions = self.lock();
        let (base, buffer) = regions.buffers.range(..=view.address()).next_back()?;
        let bytes = view.address() - base;
        Some(Operand {
            buffer: buffer.clone(),
            offset: bytes / element.bytes(),
            len: view.len(),
            element,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Regions> {
        // Regions come and go by single insertions and removals, so a panic elsewhere leaves them sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    /// Address of the first byte.
    pub(super) const fn base(&self) -> usize {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.space.lock().buffers.remove(&self.base);
    }
}
