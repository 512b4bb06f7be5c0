//! Exchanges between their issue and their wait, and the buffers that they hold.

use super::step_fault::StepFault;
use crate::{BufferId, CollectiveId};
use std::collections::{BTreeMap, VecDeque};

/// An exchange that is not yet waited for.
pub(super) struct Pending {
    pub(super) collective: CollectiveId,
    pub(super) src: BufferId,
    pub(super) dst: BufferId,
    /// The step that issued it.
    pub(super) step: usize,
}

/// All exchanges under way on a rank, oldest first.
#[derive(Default)]
pub(super) struct UnderWay {
    list: VecDeque<Pending>,
    /// How many of them read or write each buffer.
    held: BTreeMap<BufferId, usize>,
}

impl UnderWay {
    pub(super) fn begin(&mut self, pending: Pending) {
        for buffer in [pending.src, pending.dst] {
            *self.held.entry(buffer).or_default() += 1;
        }
        self.list.push_back(pending);
    }

    /// Ends an exchange, which must be the oldest.
    pub(super) fn wait(&mut self, id: CollectiveId) -> Result<(), StepFault> {
        let place = self.list.iter().position(|it| it.collective == id);
        let expected = self.list.front().map(|it| it.collective);
        let removed = place.and_then(|place| self.list.remove(place));
        let (Some(removed), Some(expected)) = (removed, expected) else {
            return Err(StepFault::WaitUnknown { collective: id.0 });
        };
        for buffer in [removed.src, removed.dst] {
            if let Some(count) = self.held.get_mut(&buffer) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&buffer);
                }
            }
        }
        if place == Some(0) {
            Ok(())
        } else {
            Err(StepFault::WaitOrder {
                collective: id.0,
                expected: expected.0,
            })
        }
    }

    /// Forgets all exchanges, oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Pending> + use<> {
        self.held.clear();
        std::mem::take(&mut self.list).into_iter()
    }

    /// What an exchange sends must not change.
    pub(super) fn not_sent(&self, buffer: BufferId) -> Result<(), StepFault> {
        match self.holder(buffer, |it| it.src) {
            Some(collective) => Err(StepFault::SourceChanged {
                buffer: buffer.0,
                collective,
            }),
            None => Ok(()),
        }
    }

    /// What an exchange fills must not be touched.
    pub(super) fn not_filled(&self, buffer: BufferId) -> Result<(), StepFault> {
        match self.holder(buffer, |it| it.dst) {
            Some(collective) => Err(StepFault::DestinationUsed {
                buffer: buffer.0,
                collective,
            }),
            None => Ok(()),
        }
    }

    fn holder(&self, buffer: BufferId, end: impl Fn(&Pending) -> BufferId) -> Option<usize> {
        // Few buffers are held, so the list is looked at only for those.
        self.held.get(&buffer)?;
        let holder = self.list.iter().find(|it| end(it) == buffer)?;
        Some(holder.collective.0)
    }
}
