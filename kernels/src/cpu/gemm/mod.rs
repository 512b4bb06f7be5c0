//! The matrix product behind `Linear` and `Conv3d`: packed weights, rows that are copied block by block
//! into a small buffer, micro-tiles in registers, and an epilogue that writes each row once.
//!
//! Invariants: one element of the result is the sum over blocks of [`DEPTH`] columns, in order, of a
//! sum over the columns of a block, in order. Neither depends on the other rows and columns, on the
//! instruction set's tile, on the division into tasks or on the number of threads.

mod panels;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use super::bf16;
use super::scratch::with_scratch;
use super::simd::{InstructionSet, Kernel, Simd};
use super::split::Scattered;
use panels::DEPTH;
pub(super) use panels::{LANES, Line, Panels, Precision, flat};
pub(super) use tile::{Micro, Store, Tile};

/// Elements between the buffered rows: not a power of two, so that they use different cache sets.
const STRIDE: usize = DEPTH + LANES;

/// Rows of the largest tile, at most: what is added to the rows of a buffer.
const TILE_ROWS: usize = 16;

/// Rows of a task at most; a multiple of the tile rows of every instruction set.
const ROWS: usize = 168;

/// Columns of a task at most.
const COLUMNS: usize = 1024;

/// Columns of a task at least, and what they are a multiple of.
const COLUMN_STEP: usize = 2 * LANES;

/// Tasks per thread that the work is divided into at least, if it is large enough.
const TASKS_PER_THREAD: usize = 3;

/// Multiplications of a task at least, so that scheduling stays cheap beside the work.
const GRAIN: usize = 1 << 18;

/// A product `y[row] = finish(x[row] W^T)`.
pub(super) trait Product: Sync {
    /// Copies the elements `k` of row `row` of `x` to `out`, which has `k.len()` elements.
    fn pack(&self, row: usize, k: Range<usize>, out: &mut [f32]);
    /// Writes the elements of `y` from column `first` of row `row` on, given their sums, which it may
    /// overwrite.
    fn finish(&self, row: usize, first: usize, sums: &mut [f32], y: &mut [f32]);
}

/// Computes `rows` rows of `y`, `[rows, weight.n()]`. The caller has checked the length of `y`.
pub(super) fn multiply(
    set: InstructionSet,
    rows: usize,
    weight: &Panels,
    product: &impl Product,
    y: &mut [f32],
) {
    let n = weight.n();
    if rows == 0 || n == 0 {
        return;
    }
    let grid = Grid::new(rows, n, weight.k());
    let y = Scattered::new(y);
    (0..grid.tasks())
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (rows, columns) = grid.task(task);
            let height = rows.len() + TILE_ROWS;
            let lines = height * (STRIDE + sums_stride(&columns)) / LANES;
            with_scratch(lines, |scratch| {
                let (x, sums) = flat(scratch).split_at_mut(height * STRIDE);
                set.run(Block {
                    rows,
                    columns,
                    weight,
                    product,
                    x,
                    sums,
                    y: &y,
                });
            });
        });
}

/// Elements between the rows of the sums: the columns' panels, and a line so that it is no power of two.
fn sums_stride(columns: &Range<usize>) -> usize {
    (columns.len().div_ceil(LANES) + 1) * LANES
}

/// The division of the result into tasks, equal but for the last row block and column block.
struct Grid {
    rows: usize,
    columns: usize,
    block_rows: usize,
    block_columns: usize,
}

impl Grid {
    fn new(rows: usize, columns: usize, k: usize) -> Self {
        let row_blocks = rows.div_ceil(ROWS);
        let wanted = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(row_blocks);
        let column_blocks = wanted
            .min(columns.div_ceil(COLUMN_STEP))
            .min(columns.saturating_mul(k).saturating_mul(rows.min(ROWS)) / GRAIN)
            .max(columns.div_ceil(COLUMNS));
        let block_columns = columns
            .div_ceil(column_blocks)
            .next_multiple_of(COLUMN_STEP);
        Self {
            rows,
            columns,
            block_rows: ROWS,
            block_columns,
        }
    }

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.block_rows) * self.columns.div_ceil(self.block_columns)
    }

    /// Rows and columns of a task; tasks that share weights follow each other.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let row_blocks = self.rows.div_ceil(self.block_rows);
        let row = task % row_blocks * self.block_rows;
        let column = task / row_blocks * self.block_columns;
        (
            row..self.rows.min(row + self.block_rows),
            column..self.columns.min(column + self.block_columns),
        )
    }
}

/// One task: a block of rows and columns of the result.
struct Block<'a, P> {
    rows: Range<usize>,
    columns: Range<usize>,
    weight: &'a Panels,
    product: &'a P,
    /// The rows of x in the current block of columns, [`STRIDE`] apart.
    x: &'a mut [f32],
    /// Sums of all rows and columns.
    sums: &'a mut [f32],
    y: &'a Scattered<'a>,
}

impl<P: Product> Kernel for Block<'_, P> {
    #[inline(always)]
    fn run<S: Micro>(mut self, simd: S) {
        let k = self.weight.k();
        // Without columns of x there is still one block, which sets the sums to zero.
        for block in 0..k.div_ceil(DEPTH).max(1) {
            let depth = block * DEPTH..k.min((block + 1) * DEPTH);
            self.pack::<S>(depth.clone());
            let store = if block == 0 { Store::Set } else { Store::Add };
            self.tiles(simd, depth, store);
        }
        self.finish();
    }
}

impl<P: Product> Block<'_, P> {
    /// Copies a block of the rows' columns. Rows behind the last are zero, so that tiles which hang
    /// over compute with ordinary numbers.
    fn pack<S: Simd>(&mut self, depth: Range<usize>) {
        self.x[self.rows.len() * STRIDE..].fill(0.0);
        for (row, out) in self.rows.clone().zip(self.x.chunks_exact_mut(STRIDE)) {
            self.product
                .pack(row, depth.clone(), &mut out[..depth.len()]);
            match self.weight.precision() {
                Precision::F32 => {}
                Precision::Bf16 => {
                    let even = depth.len().next_multiple_of(2);
                    out[depth.len()..even].fill(0.0);
                    if S::DOT {
                        bf16::pair_up(&mut out[..even]);
                    } else {
                        bf16::round_all(&mut out[..even]);
                    }
                }
            }
        }
    }

    /// Adds the block of columns to the sums. A panel of the weight stays in the cache for all rows,
    /// while the next one is fetched.
    #[inline(always)]
    fn tiles<S: Micro>(&mut self, simd: S, depth: Range<usize>, store: Store) {
        let rows = self.rows.len().next_multiple_of(S::ROWS);
        let panels = self.columns.len().div_ceil(LANES);
        let (first, stride) = (self.columns.start / LANES, sums_stride(&self.columns));
        let precision = self.weight.precision();
        let lines = precision.lines(depth.len());
        let a_depth = match precision {
            Precision::Bf16 if !S::DOT => 2,
            Precision::F32 | Precision::Bf16 => 1,
        };
        let ahead = (S::PANELS * lines).div_ceil(rows / S::ROWS);
        for panel in (0..panels).step_by(S::PANELS) {
            let b = self.weight.lines(depth.clone(), first + panel);
            let mut next = b.as_ptr().wrapping_add(S::PANELS * lines);
            for row in (0..rows).step_by(S::ROWS) {
                for _ in 0..ahead {
                    simd.prefetch(next.cast());
                    next = next.wrapping_add(1);
                }
                let tile = Tile {
                    depth: lines,
                    a: self.x[row * STRIDE..].as_ptr(),
                    a_depth,
                    b: b.as_ptr().cast(),
                    b_depth: LANES,
                    b_panel: lines * LANES,
                    c: self.sums[row * stride + panel * LANES..].as_mut_ptr(),
                    c_row: stride,
                    store,
                };
                let panels = S::PANELS.min(panels - panel);
                // SAFETY: `x` and `sums` hold all rows of a tile, TILE_ROWS being at least S::ROWS;
                // that many panels follow in the weight and in the sums, each of `lines` lines.
                unsafe {
                    match precision {
                        Precision::F32 => simd.tile::<STRIDE>(panels, &tile),
                        Precision::Bf16 => simd.pair_tile::<STRIDE>(panels, &tile),
                    }
                }
            }
        }
    }

    fn finish(&mut self) {
        let (n, stride) = (self.weight.n(), sums_stride(&self.columns));
        let (first, count) = (self.columns.start, self.columns.len());
        for (row, sums) in self.rows.clone().zip(self.sums.chunks_exact_mut(stride)) {
            // SAFETY: tasks have different rows or columns, so no other one holds these elements.
            let y = unsafe { self.y.slice(row * n + first, count) };
            self.product.finish(row, first, &mut sums[..count], y);
        }
    }
}
