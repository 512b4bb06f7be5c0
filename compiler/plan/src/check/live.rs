//! Live ranges: which buffers of a rank hold something, and that no two of them share bytes.
//!
//! A buffer of the arena comes to life when it is first written and dies when it is freed; one
//! that has died stays dead for the rest of its list. A buffer of the state comes to life once
//! and stays. A first write counts for the whole buffer.

use super::rank::span;
use super::step_fault::StepFault;
use crate::{Buffer, Region};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Unwritten,
    Live,
    Freed,
}

/// Live ranges of one rank at one point of its list.
pub(super) struct Live<'a> {
    buffers: &'a [Buffer],
    lives: Vec<Life>,
    /// First byte -> one past the last, and the buffer; live arena buffers alone.
    bytes: BTreeMap<usize, (usize, usize)>,
}

impl<'a> Live<'a> {
    pub(super) fn new(buffers: &'a [Buffer]) -> Self {
        Self {
            buffers,
            lives: vec![Life::Unwritten; buffers.len()],
            bytes: BTreeMap::new(),
        }
    }

    /// A new list begins: the arena holds nothing.
    pub(super) fn clear_arena(&mut self) {
        self.bytes.clear();
        for (life, buffer) in self.lives.iter_mut().zip(self.buffers) {
            match buffer.region {
                Region::Arena => *life = Life::Unwritten,
                Region::State => {}
            }
        }
    }

    pub(super) fn is_live(&self, buffer: usize) -> bool {
        self.lives.get(buffer) == Some(&Life::Live)
    }

    /// Reading needs a live buffer. An unwritten one is reported once.
    pub(super) fn read(&mut self, buffer: usize) -> Result<(), StepFault> {
        match self.lives[buffer] {
            Life::Live => Ok(()),
            Life::Freed => Err(StepFault::Freed { buffer }),
            Life::Unwritten => {
                self.lives[buffer] = Life::Live;
                Err(StepFault::Unwritten { buffer })
            }
        }
    }

    /// Writing brings a buffer to life.
    pub(super) fn write(&mut self, buffer: usize) -> Result<(), StepFault> {
        match self.lives[buffer] {
            Life::Live => Ok(()),
            Life::Freed => Err(StepFault::Freed { buffer }),
            Life::Unwritten => {
                self.lives[buffer] = Life::Live;
                self.occupy(buffer)
            }
        }
    }

    pub(super) fn free(&mut self, buffer: usize) -> Result<(), StepFault> {
        match self.buffers[buffer].region {
            Region::State => return Err(StepFault::FreeState { buffer }),
            Region::Arena => {}
        }
        if self.lives[buffer] != Life::Live {
            return Err(StepFault::FreeDead { buffer });
        }
        self.lives[buffer] = Life::Freed;
        if let Some((begin, _)) = span(&self.buffers[buffer]) {
            // Another buffer may sit here when an overlap has been reported.
            if self
                .bytes
                .get(&begin)
                .is_some_and(|(_, who)| *who == buffer)
            {
                self.bytes.remove(&begin);
            }
        }
        Ok(())
    }

    fn occupy(&mut self, buffer: usize) -> Result<(), StepFault> {
        let it = &self.buffers[buffer];
        let (Region::Arena, Some((begin, end))) = (it.region, span(it)) else {
            return Ok(());
        };
        // Live buffers are disjoint, so only the last one that begins before `end` can reach in.
        let neighbour = self.bytes.range(..end).next_back();
        if let Some((_, &(_, other))) = neighbour.filter(|(_, (reach, _))| *reach > begin) {
            return Err(StepFault::LiveOverlap { buffer, other });
        }
        self.bytes.insert(begin, (end, buffer));
        Ok(())
    }
}
