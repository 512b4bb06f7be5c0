//! Heads of strided views, brought to shared memory block by block.
//!
//! Invariant: what lies outside a view arrives as 0.

use cubecl::prelude::*;

use super::tile::{ROWS, SIDE};
use crate::cube::fours::{Four, load};

/// One head of a strided view: its first vector, the elements between rows, and how many rows.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Head {
    at: usize,
    step: usize,
    rows: usize,
}

/// The cube's head in the view of `rows` rows whose strides begin at `first`.
#[cube]
pub(super) fn head_of<N: Size>(
    lead: u32,
    strides: &Sequence<u32>,
    #[comptime] first: usize,
    rows: u32,
) -> Head {
    let item = CUBE_POS_Z * strides[first];
    let head = CUBE_POS_Y * strides[comptime!(first + 2)];
    Head {
        at: lead as usize + (item + head) as usize / N::value(),
        step: strides[comptime!(first + 1)] as usize,
        rows: rows as usize,
    }
}

/// The first vector of a row.
#[cube]
pub(super) fn row_of<N: Size>(head: Head, row: usize) -> usize {
    head.at + row * head.step / N::value()
}

/// Brings 32 rows of a head from `row` on, channels of block `c`, to shared memory from `to` on as
/// `[channel][four of rows]`, multiplied by `scale`. What lies outside the view is 0.
#[cube]
pub(super) fn columns<E: Float, N: Size>(
    shared: &mut SharedMemory<Four>,
    to: usize,
    x: &Array<Vector<E, N>>,
    head: Head,
    row: usize,
    c: usize,
    scale: f32,
    #[comptime] dim: usize,
) {
    // Neighbouring units read neighbouring channels.
    let (four, channel) = (UNIT_POS_Y as usize, 4 * UNIT_POS_X as usize);
    let first = c * ROWS + channel;
    let mut lines = Array::<Four>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        let row = row + 4 * four + i;
        lines[i] = Four::new(0.0f32);
        if row < head.rows && first < dim {
            let at = row_of::<N>(head, row);
            lines[i] = load::<E, N>(x, at, first, dim, 0.0f32) * Four::new(scale);
        }
    }
    #[unroll]
    for j in 0..4usize {
        let mut v = Four::new(0.0f32);
        #[unroll]
        for i in 0..4usize {
            v[i] = lines[i][j];
        }
        shared[to + (channel + j) * SIDE + four] = v;
    }
}

/// Brings 32 rows of a head from `row` on, channels of block `c`, to shared memory as
/// `[row][four of channels]`. What lies outside the view is 0.
#[cube]
pub(super) fn lines<E: Float, N: Size>(
    shared: &mut SharedMemory<Four>,
    x: &Array<Vector<E, N>>,
    head: Head,
    row: usize,
    c: usize,
    #[comptime] dim: usize,
) {
    let first = c * ROWS + 4 * UNIT_POS_X as usize;
    #[unroll]
    for i in 0..4usize {
        let line = comptime!(i * SIDE) + UNIT_POS_Y as usize;
        let mut v = Four::new(0.0f32);
        if row + line < head.rows && first < dim {
            let at = row_of::<N>(head, row + line);
            v = load::<E, N>(x, at, first, dim, 0.0f32);
        }
        shared[line * SIDE + UNIT_POS_X as usize] = v;
    }
}
