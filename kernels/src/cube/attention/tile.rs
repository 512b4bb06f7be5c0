//! One tile of attention: 32 query rows of a head against all keys, 32 keys at a time.
//!
//! Invariants: a cube of 8 x 8 units; unit (x, y) holds the scores of four rows (y) to four keys (x),
//! and of the sums of these rows every eighth four of channels. Maxima and totals are those of four rows,
//! computed alike by the eight units that share them.

use cubecl::prelude::*;

use super::state::{LOWEST, Rows, begin, rows_of, store_rows, store_state};
use super::views::{Head, columns, head_of, lines};
use crate::cube::fours::Four;

/// Query rows of a tile, and keys of a block.
pub(super) const ROWS: usize = 32;

/// Units along each side of a cube; each has four rows and four keys.
pub(super) const SIDE: usize = ROWS / 4;

/// What is chosen when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub dim: usize,
    pub stage: Stage,
    pub bias: bool,
}

impl Tile {
    /// Blocks of 32 channels, the last one perhaps in part.
    pub(super) fn blocks(self) -> usize {
        self.dim.div_ceil(ROWS)
    }
}

/// Where sums come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// The quotient goes to a view.
    Whole,
    /// The state is begun.
    First,
    /// The state is continued.
    Next,
}

/// Shared memory of a cube, in fours.
#[derive(CubeType)]
struct Shared {
    /// Scaled queries, `[channel][four of rows]`.
    queries: SharedMemory<Four>,
    /// 32 channels of a block of keys as `[channel][four of keys]`, then of its values as
    /// `[key][four of channels]`.
    part: SharedMemory<Four>,
    /// Weights of a block, `[key][four of rows]`.
    weights: SharedMemory<Four>,
    /// What the units that share rows bring together, `[x][y]`.
    partial: SharedMemory<Four>,
}

#[cube(launch_unchecked)]
pub(super) fn attention_tile<E: Float, N: Size>(
    q: &Array<Vector<E, N>>,
    k: &Array<Vector<E, N>>,
    v: &Array<Vector<E, N>>,
    bias: &Array<f32>,
    state: &mut Array<Vector<f32, Const<1>>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    heads: u32,
    q_rows: u32,
    kv_rows: u32,
    strides: &Sequence<u32>,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(E)] _element: StorageType,
) {
    let rows = rows_of(lead[4], heads, q_rows, comptime!(tile.dim + 2));
    let q_head = head_of::<N>(lead[0], strides, 0usize, q_rows);
    let k_head = head_of::<N>(lead[1], strides, 3usize, kv_rows);
    let v_head = head_of::<N>(lead[2], strides, 6usize, kv_rows);
    let mut shared = shared(tile);
    let row = CUBE_POS_X as usize * ROWS;
    for c in 0..tile.blocks() {
        let to = c * ROWS * SIDE;
        columns::<E, N>(&mut shared.queries, to, q, q_head, row, c, scale, tile.dim);
    }
    let mut sums = Array::<Four>::new(comptime!(4 * tile.blocks()));
    let mut bounds = Array::<Four>::new(2usize);
    begin(&mut sums, &mut bounds, state, rows, tile);
    let kv_rows = kv_rows as usize;
    let mut key = 0usize;
    while key < kv_rows {
        let mut scores = Array::<Four>::new(4usize);
        score::<E, N>(&mut scores, &mut shared, k, k_head, key, tile);
        if comptime!(tile.bias) {
            add_bias(&mut scores, bias, lead[3], rows, key, kv_rows);
        }
        let factor = weigh(&mut scores, &mut bounds, &mut shared, key, kv_rows);
        accumulate::<E, N>(&mut sums, factor, &mut shared, v, v_head, key, tile);
        key += ROWS;
    }
    if comptime!(tile.stage == Stage::Whole) {
        let y_head = head_of::<N>(lead[5], strides, 9usize, q_rows);
        store_rows::<E, N>(&sums, bounds[1], y, y_head, rows, tile);
    } else {
        store_state(&sums, &bounds, state, rows, tile);
    }
}

#[cube]
fn shared(#[comptime] tile: Tile) -> Shared {
    Shared {
        queries: SharedMemory::<Four>::new(comptime!(tile.blocks() * ROWS * SIDE)),
        part: SharedMemory::<Four>::new(ROWS * SIDE),
        weights: SharedMemory::<Four>::new(ROWS * SIDE),
        partial: SharedMemory::<Four>::new(SIDE * SIDE),
    }
}

/// The scores of the unit's four rows to its four keys of the block.
#[cube]
fn score<E: Float, N: Size>(
    scores: &mut Array<Four>,
    shared: &mut Shared,
    k: &Array<Vector<E, N>>,
    head: Head,
    key: usize,
    #[comptime] tile: Tile,
) {
    let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    #[unroll]
    for i in 0..4usize {
        scores[i] = Four::new(0.0f32);
    }
    for c in 0..tile.blocks() {
        sync_cube();
        columns::<E, N>(&mut shared.part, 0usize, k, head, key, c, 1.0f32, tile.dim);
        sync_cube();
        for d in 0..ROWS {
            let a = shared.queries[c * ROWS * SIDE + d * SIDE + uy];
            let b = shared.part[d * SIDE + ux];
            #[unroll]
            for i in 0..4usize {
                scores[i] = fma(Four::new(a[i]), b, scores[i]);
            }
        }
    }
}

#[cube]
fn add_bias(
    scores: &mut Array<Four>,
    bias: &Array<f32>,
    lead: u32,
    rows: Rows,
    key: usize,
    kv_rows: usize,
) {
    let first = key + 4 * UNIT_POS_X as usize;
    #[unroll]
    for i in 0..4usize {
        // Rows behind the last read the last one's bias; their result is dropped.
        let row = min(rows.first + i, rows.count - 1);
        let line = CUBE_POS_Y as usize * rows.count + row;
        let mut score = scores[i];
        #[unroll]
        for j in 0..4usize {
            if first + j < kv_rows {
                score[j] += bias[lead as usize + line * kv_rows + first + j];
            }
        }
        scores[i] = score;
    }
}

/// Turns the scores of a block into shared weights, updates maxima and totals, and returns what the
/// old sums of the unit's rows are to be multiplied by.
#[cube]
fn weigh(
    scores: &mut Array<Four>,
    bounds: &mut Array<Four>,
    shared: &mut Shared,
    key: usize,
    kv_rows: usize,
) -> Four {
    let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let first = key + 4 * ux;
    let mut highest = Four::new(LOWEST);
    #[unroll]
    for j in 0..4usize {
        if first + j < kv_rows {
            #[unroll]
            for i in 0..4usize {
                highest[i] = max(highest[i], scores[i][j]);
            }
        }
    }
    shared.partial[ux * SIDE + uy] = highest;
    sync_cube();
    let old = bounds[0];
    let mut new = old;
    for x in 0..SIDE {
        new = max(new, shared.partial[x * SIDE + uy]);
    }
    sync_cube();
    let mut sum = Four::new(0.0f32);
    #[unroll]
    for j in 0..4usize {
        let mut column = Four::new(0.0f32);
        if first + j < kv_rows {
            #[unroll]
            for i in 0..4usize {
                column[i] = f32::exp(scores[i][j] - new[i]);
            }
        }
        sum += column;
        shared.weights[(4 * ux + j) * SIDE + uy] = column;
    }
    shared.partial[ux * SIDE + uy] = sum;
    sync_cube();
    let mut all = Four::new(0.0f32);
    for x in 0..SIDE {
        all += shared.partial[x * SIDE + uy];
    }
    let factor = Four::exp(old - new);
    bounds[0] = new;
    bounds[1] = fma(bounds[1], factor, all);
    factor
}

/// Adds the weighted values of a block to the sums, which are scaled first.
#[cube]
fn accumulate<E: Float, N: Size>(
    sums: &mut Array<Four>,
    factor: Four,
    shared: &mut Shared,
    v: &Array<Vector<E, N>>,
    head: Head,
    key: usize,
    #[comptime] tile: Tile,
) {
    let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    #[unroll]
    for c in 0..tile.blocks() {
        sync_cube();
        lines::<E, N>(&mut shared.part, v, head, key, c, tile.dim);
        sync_cube();
        #[unroll]
        for i in 0..4usize {
            let sum = comptime!(4 * c + i);
            sums[sum] = sums[sum] * Four::new(factor[i]);
        }
        for d in 0..ROWS {
            let a = shared.weights[d * SIDE + uy];
            let b = shared.part[d * SIDE + ux];
            #[unroll]
            for i in 0..4usize {
                let sum = comptime!(4 * c + i);
                sums[sum] = fma(Four::new(a[i]), b, sums[sum]);
            }
        }
    }
}
