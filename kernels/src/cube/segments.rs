//! Rows that belong to segments (text, video), each with its own place in a modulation vector.
//!
//! Invariant: the offsets of every segment are checked against the modulation data before a call is
//! made. A kernel gets the segments as scalars, so their number is part of its identity, their sizes
//! are not.

use cubecl::prelude::*;

use super::operand::Operand;
use crate::KernelError;
use crate::args::ModsShape;

/// Modulation vectors, one per batch item: item `b` starts at element `b * stride` of `data`. They
/// have the element type of the activations.
#[derive(Debug, Clone)]
pub struct Mods<B> {
    /// All vectors; at least `(batch - 1) * stride + offset + width` elements.
    pub data: Operand<B>,
    /// Elements from one batch item to the next; 0 shares one vector.
    pub stride: usize,
}

impl<B> Mods<B> {
    pub(super) fn check(
        &self,
        kernel: &'static str,
        batch: usize,
        width: usize,
        offsets: impl IntoIterator<Item = usize>,
    ) -> Result<(), KernelError> {
        let (found, stride) = (self.data.len, self.stride);
        ModsShape { found, stride }.check(kernel, batch, width, offsets)
    }
}

/// Shift and scale of the segment that holds `row`, from triples of rows, shift and scale.
#[cube]
pub(super) fn mod_vectors(
    segments: &Sequence<u32>,
    #[comptime] count: usize,
    row: u32,
) -> (u32, u32) {
    let mut shift = 0u32;
    let mut scale = 0u32;
    let mut begin = 0u32;
    #[unroll]
    for s in 0..count {
        // A segment without rows is passed over, since the next one begins at the same row.
        if row >= begin {
            shift = segments[3 * s + 1];
            scale = segments[3 * s + 2];
        }
        begin += segments[3 * s];
    }
    (shift, scale)
}

/// Gate of the segment that holds `row`, from pairs of rows and gate.
#[cube]
pub(super) fn gate_vector(segments: &Sequence<u32>, #[comptime] count: usize, row: u32) -> u32 {
    let mut gate = 0u32;
    let mut begin = 0u32;
    #[unroll]
    for s in 0..count {
        if row >= begin {
            gate = segments[2 * s + 1];
        }
        begin += segments[2 * s];
    }
    gate
}
