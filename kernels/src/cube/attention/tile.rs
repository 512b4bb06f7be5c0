//! One tile of attention: 32 query rows of a head against all keys, 32 keys at a time.
//!
//! Invariants: a cube of 8 x 8 units; unit (x, y) holds the scores of four rows (y) to four keys (x),
//! and of the sums of these rows every eighth four of channels. Maxima and totals are those of four rows,
//! computed alike by the eight units that share them.

use cubecl::prelude::*;

use crate::cube::fours::{Four, load, store};

/// Query rows of a tile, and keys of a block.
pub(super) const ROWS: usize = 32;

/// Units along each side of a cube; each has four rows and four keys.
pub(super) const UNITS_OF_A_SIDE: usize = ROWS / 4;

/// Units along a side, in a short name for index arithmetic.
const SIDE: usize = UNITS_OF_A_SIDE;

/// Stands for minus infinity, which shading languages do not promise.
const LOWEST: f32 = f32::MIN;

/// What is chosen when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub dim: usize,
    pub stage: Stage,
    pub bias: bool,
}

impl Tile {
    /// Blocks of 32 channels, the last one perhaps in part.
    fn blocks(self) -> usize {
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

/// One head of a strided view: its first vector and the elements between rows.
#[derive(CubeType, Clone, Copy)]
struct Head {
    at: usize,
    step: usize,
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
    let (q_rows, kv_rows) = (q_rows as usize, kv_rows as usize);
    let row = CUBE_POS_X as usize * ROWS;
    let first_row = row + 4 * UNIT_POS_Y as usize;
    let q_head = head_of::<N>(lead[0], strides, 0usize);
    let k_head = head_of::<N>(lead[1], strides, 3usize);
    let v_head = head_of::<N>(lead[2], strides, 6usize);
    // Where the state of the unit's first row begins, and how far rows are apart.
    let state_step = heads as usize * comptime!(tile.dim + 2);
    let state_row = CUBE_POS_Z as usize * q_rows + first_row;
    let state_head = CUBE_POS_Y as usize * comptime!(tile.dim + 2);
    let state_at = lead[4] as usize + state_row * state_step + state_head;

    let mut shared = Shared {
        queries: SharedMemory::<Four>::new(comptime!(tile.blocks() * ROWS * SIDE)),
        part: SharedMemory::<Four>::new(ROWS * SIDE),
        weights: SharedMemory::<Four>::new(ROWS * SIDE),
        partial: SharedMemory::<Four>::new(SIDE * SIDE),
    };
    for c in 0..tile.blocks() {
        let to = c * ROWS * SIDE;
        columns::<E, N>(
            &mut shared.queries,
            to,
            q,
            q_head,
            row,
            q_rows,
            c,
            scale,
            tile.dim,
        );
    }
    let mut sums = Array::<Four>::new(comptime!(4 * tile.blocks()));
    // Maxima and totals of the unit's four rows.
    let mut bounds = Array::<Four>::new(2usize);
    begin(
        &mut sums,
        &mut bounds,
        state,
        state_at,
        state_step,
        first_row,
        q_rows,
        tile,
    );

    let mut key = 0usize;
    while key < kv_rows {
        let mut scores = Array::<Four>::new(4usize);
        score::<E, N>(&mut scores, &mut shared, k, k_head, key, kv_rows, tile);
        if comptime!(tile.bias) {
            // Rows behind the last read the last one's bias; their result is dropped.
            let line = CUBE_POS_Y as usize * q_rows;
            add_bias(
                &mut scores,
                bias,
                lead[3] as usize,
                line,
                first_row,
                q_rows,
                key,
                kv_rows,
            );
        }
        let factor = weigh(&mut scores, &mut bounds, &mut shared, key, kv_rows);
        accumulate::<E, N>(
            &mut sums,
            factor,
            &mut shared,
            v,
            v_head,
            key,
            kv_rows,
            tile,
        );
        key += ROWS;
    }

    if comptime!(tile.stage == Stage::Whole) {
        let y_head = head_of::<N>(lead[5], strides, 9usize);
        store_rows::<E, N>(&sums, bounds[1], y, y_head, first_row, q_rows, tile);
    } else {
        store_state(
            &sums, &bounds, state, state_at, state_step, first_row, q_rows, tile,
        );
    }
}

/// The cube's head in the view whose strides begin at `first`.
#[cube]
fn head_of<N: Size>(lead: u32, strides: &Sequence<u32>, #[comptime] first: usize) -> Head {
    let item = CUBE_POS_Z * strides[first];
    let head = CUBE_POS_Y * strides[comptime!(first + 2)];
    Head {
        at: lead as usize + (item + head) as usize / N::value(),
        step: strides[comptime!(first + 1)] as usize,
    }
}

/// Brings 32 rows of a head from `row` on, channels of block `c`, to shared memory from `to` on as
/// `[channel][four of rows]`, multiplied by `scale`. What lies outside the view is 0.
#[cube]
fn columns<E: Float, N: Size>(
    shared: &mut SharedMemory<Four>,
    to: usize,
    x: &Array<Vector<E, N>>,
    head: Head,
    row: usize,
    rows: usize,
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
        if row < rows && first < dim {
            let at = head.at + row * head.step / N::value();
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

/// Sets the unit's sums, maxima and totals to those of no key, or of the state.
#[cube]
fn begin(
    sums: &mut Array<Four>,
    bounds: &mut Array<Four>,
    state: &Array<Vector<f32, Const<1>>>,
    state_at: usize,
    state_step: usize,
    first_row: usize,
    q_rows: usize,
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
            if first_row + i < q_rows {
                let at = state_at + i * state_step;
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

/// The scores of the unit's four rows to its four keys of the block.
#[cube]
fn score<E: Float, N: Size>(
    scores: &mut Array<Four>,
    shared: &mut Shared,
    k: &Array<Vector<E, N>>,
    head: Head,
    key: usize,
    kv_rows: usize,
    #[comptime] tile: Tile,
) {
    let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    #[unroll]
    for i in 0..4usize {
        scores[i] = Four::new(0.0f32);
    }
    for c in 0..tile.blocks() {
        sync_cube();
        columns::<E, N>(
            &mut shared.part,
            0usize,
            k,
            head,
            key,
            kv_rows,
            c,
            1.0f32,
            tile.dim,
        );
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
    at: usize,
    line: usize,
    first_row: usize,
    q_rows: usize,
    key: usize,
    kv_rows: usize,
) {
    let first = key + 4 * UNIT_POS_X as usize;
    #[unroll]
    for i in 0..4usize {
        let row = line + min(first_row + i, q_rows - 1);
        let mut score = scores[i];
        #[unroll]
        for j in 0..4usize {
            if first + j < kv_rows {
                score[j] += bias[at + row * kv_rows + first + j];
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
    kv_rows: usize,
    #[comptime] tile: Tile,
) {
    let (ux, uy) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    #[unroll]
    for c in 0..tile.blocks() {
        sync_cube();
        lines::<E, N>(&mut shared.part, v, head, key, kv_rows, c, tile.dim);
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

/// Brings 32 rows of a head from `row` on, channels of block `c`, to shared memory as
/// `[row][four of channels]`. What lies outside the view is 0.
#[cube]
fn lines<E: Float, N: Size>(
    shared: &mut SharedMemory<Four>,
    x: &Array<Vector<E, N>>,
    head: Head,
    row: usize,
    rows: usize,
    c: usize,
    #[comptime] dim: usize,
) {
    let first = c * ROWS + 4 * UNIT_POS_X as usize;
    #[unroll]
    for i in 0..4usize {
        let line = comptime!(i * SIDE) + UNIT_POS_Y as usize;
        let mut v = Four::new(0.0f32);
        if row + line < rows && first < dim {
            let at = head.at + (row + line) * head.step / N::value();
            v = load::<E, N>(x, at, first, dim, 0.0f32);
        }
        shared[line * SIDE + UNIT_POS_X as usize] = v;
    }
}

/// Writes the quotients of sums and totals; zeros where there was no key.
#[cube]
fn store_rows<E: Float, N: Size>(
    sums: &Array<Four>,
    totals: Four,
    y: &mut Array<Vector<E, N>>,
    head: Head,
    first_row: usize,
    q_rows: usize,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..4usize {
        if first_row + i < q_rows {
            let at = head.at + (first_row + i) * head.step / N::value();
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

#[cube]
fn store_state(
    sums: &Array<Four>,
    bounds: &Array<Four>,
    state: &mut Array<Vector<f32, Const<1>>>,
    state_at: usize,
    state_step: usize,
    first_row: usize,
    q_rows: usize,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for i in 0..4usize {
        if first_row + i < q_rows {
            let at = state_at + i * state_step;
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
