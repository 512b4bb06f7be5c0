//! What a unit knows of its four query rows, and where it comes from and goes to.
//!
//! Invariants: sums are `[block of 32 channels][row]`, in fours of channels; `bounds` holds the maxima of
//! the four rows, then their totals.

use cubecl::prelude::*;

use super::tile::{ROWS, Stage, Tile};
use super::views::{Head, row_of};
use crate::cube::fours::{Four, load, store};

/// Stands for minus infinity, which shading languages do not promise.
pub(super) const LOWEST: f32 = f32::MIN;

/// The unit's rows: the first one, how many there are in all, where the first one's state begins, and
/// how far the states of rows are apart.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Rows {
    pub first: usize,
    pub count: usize,
    state: usize,
    step: usize,
}

/// The unit's rows, with states of `entry` elements in `[batch, rows, heads, entry]`.
#[cube]
pub(super) fn rows_of(lead: u32, heads: u32, count: u32, #[comptime] entry: usize) -> Rows {
    let (heads, count) = (heads as usize, count as usize);
    let first = CUBE_POS_X as usize * ROWS + 4 * UNIT_POS_Y as usize;
    let row = CUBE_POS_Z as usize * count + first;
    Rows {
        first,
        count,
        state: lead as usize + (row * heads + CUBE_POS_Y as usize) * entry,
        step: heads * entry,
    }
}

/// Sets the unit's sums, maxima and totals to those of no key, or of the state.
#[cube]
pub(super) fn begin(
    sums: &mut Array<Four>,
    bounds: &mut Array<Four>,
    state: &Array<Vector<f32, Const<1>>>,
    rows: Rows,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..comptime!(4 * tile.blocks()) {
        sums[i] = Four::new(0.0f32);
    }
    let mut maxima = Four::new(LOWEST);
    let mut totals = Four::new(0.0f32);
    if comptime!(tile.stage == Stage::Next) {
        #[unroll]
        for i in 0..4usize {
            if rows.first + i < rows.count {
                let at = rows.state + i * rows.step;
                #[unroll]
                for c in 0..tile.blocks() {
                    let channel = comptime!(c * ROWS) + 4 * UNIT_POS_X as usize;
                    let four = load::<f32, Const<1>>(state, at, channel, tile.dim, 0.0f32);
                    sums[comptime!(4 * c + i)] = four;
                }
                maxima[i] = state[at + tile.dim][0];
                totals[i] = state[at + comptime!(tile.dim + 1)][0];
            }
        }
    }
    bounds[0] = maxima;
    bounds[1] = totals;
}

/// Writes the quotients of sums and totals; zeros where there was no key.
#[cube]
pub(super) fn store_rows<E: Float, N: Size>(
    sums: &Array<Four>,
    totals: Four,
    y: &mut Array<Vector<E, N>>,
    head: Head,
    rows: Rows,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..4usize {
        if rows.first + i < rows.count {
            let at = row_of::<N>(head, rows.first + i);
            #[unroll]
            for c in 0..tile.blocks() {
                let channel = comptime!(c * ROWS) + 4 * UNIT_POS_X as usize;
                if channel < tile.dim {
                    let mut quotient = Four::new(0.0f32);
                    if totals[i] != 0.0f32 {
                        quotient = sums[comptime!(4 * c + i)] / Four::new(totals[i]);
                    }
                    store::<E, N>(y, at, channel, tile.dim, quotient);
                }
            }
        }
    }
}

/// Writes the state that the next step continues.
#[cube]
pub(super) fn store_state(
    sums: &Array<Four>,
    bounds: &Array<Four>,
    state: &mut Array<Vector<f32, Const<1>>>,
    rows: Rows,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..4usize {
        if rows.first + i < rows.count {
            let at = rows.state + i * rows.step;
            #[unroll]
            for c in 0..tile.blocks() {
                let channel = comptime!(c * ROWS) + 4 * UNIT_POS_X as usize;
                let sum = sums[comptime!(4 * c + i)];
                store::<f32, Const<1>>(state, at, channel, tile.dim, sum);
            }
            if UNIT_POS_X == 0 {
                let last = at + tile.dim;
                state[last] = Vector::<f32, Const<1>>::new(bounds[0][i]);
                state[last + 1] = Vector::<f32, Const<1>>::new(bounds[1][i]);
            }
        }
    }
}
