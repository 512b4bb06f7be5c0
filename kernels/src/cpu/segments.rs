//! Rows that belong to segments (text, video), each with its own place in a modulation vector.
//!
//! Invariant: the offsets of every segment are checked against the modulation data before any row is
//! computed.

use crate::KernelError;
use crate::args::ModsShape;

/// Modulation vectors, one per batch item: item `b` starts at `data[b * stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Mods<'a> {
    /// All vectors; at least `(batch - 1) * stride + offset + width` elements.
    pub data: &'a [f32],
    /// Elements from one batch item to the next; 0 shares one vector.
    pub stride: usize,
}

impl<'a> Mods<'a> {
    /// The `width` values of item `b` at `offset`; `check` has proved that they exist.
    pub(super) fn get(&self, b: usize, offset: usize, width: usize) -> &'a [f32] {
        let first = b * self.stride + offset;
        &self.data[first..first + width]
    }

    /// Refuses data that do not hold `width` values at each of `offsets` for every batch item.
    pub(super) fn check(
        &self,
        kernel: &'static str,
        batch: usize,
        width: usize,
        offsets: impl IntoIterator<Item = usize>,
    ) -> Result<(), KernelError> {
        let shape = ModsShape {
            found: self.data.len(),
            stride: self.stride,
        };
        shape.check(kernel, batch, width, offsets)
    }
}

/// The segment that holds `row`, given the segments' row counts, or `None` behind the last one.
pub(super) fn locate(rows: impl IntoIterator<Item = usize>, row: usize) -> Option<usize> {
    let mut end = 0;
    for (segment, count) in rows.into_iter().enumerate() {
        end += count;
        if row < end {
            return Some(segment);
        }
    }
    None
}
