//! The matrix product behind `Linear` and `Conv3d`: packed weights, rows that are copied block by block
//! into a small buffer, micro-tiles in registers, and an epilogue that writes each row once.
//!
//! Invariants: one element of the result is the sum over blocks of columns, in order, of a sum over the
//! columns of a block, in order; sums of integers are exact. Neither depends on the other rows and
//! columns, on the instruction set's tile, on the division into tasks or on the number of threads.

mod panels;
mod scales;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use super::bf16;
use super::fp8;
use super::int8;
use super::scratch::with_scratch;
use super::simd::{InstructionSet, Kernel, Simd};
use super::split::Scattered;
use crate::scale::Scale;
use panels::DEPTH;
pub use panels::Operands;
use panels::elements;
pub(super) use panels::{LANES, Line, Panels, flat};
use scales::with_scales;
pub(super) use tile::{Micro, Store, Terms, Tile, tile_rows};

/// Elements of a buffered row: a block of f32, or of integers widened to 16 bits.
const WORDS: usize = 256;

/// Elements between the buffered rows: not a power of two, so that they use different cache sets.
pub(super) const STRIDE: usize = WORDS + LANES;

/// Rows of the largest tile, at most: what is added to the rows of a buffer.
const TILE_ROWS: usize = 16;

/// Panels of the largest tile.
const TILE_PANELS: usize = 2;

/// Rows that are computed one at a time, at most: their product waits for the weights, not for the arithmetic, of
/// which a tile of more rows does as much for one.
const ROWS_ALONE: usize = 2;

/// Rows of a task at most, but for a tile's.
const ROWS: usize = 168;

/// Columns of a task at most.
const COLUMNS: usize = 1024;

/// Columns of a task at least, and what they are a multiple of.
const COLUMN_STEP: usize = 2 * LANES;

/// Tasks per thread that the work is divided into at least, if it is large enough.
pub(super) const TASKS_PER_THREAD: usize = 3;

/// Multiplications of a task at least, so that scheduling stays cheap beside the work.
pub(super) const GRAIN: usize = 1 << 18;

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
    let y = Scattered::new(y);
    with_scales(rows, weight, product, |scales| {
        divide(set, rows, weight, product, scales, &y);
    });
}

/// Computes the rows in tasks, given the scales of rows that become numbers of 8 bits.
fn divide(
    set: InstructionSet,
    rows: usize,
    weight: &Panels,
    product: &impl Product,
    scales: &[Scale],
    y: &Scattered<'_>,
) {
    let grid = Grid::new(rows, weight.n(), weight.k(), tile_rows(set));
    (0..grid.tasks())
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (rows, columns) = grid.task(task);
            let height = rows.len() + TILE_ROWS;
            let wide = wide_lines(weight.operands()) * LANES;
            let lines = (height * (STRIDE + sums_stride(&columns)) + wide) / LANES;
            with_scratch(lines, |scratch| {
                let (panels, rest) = flat(scratch).split_at_mut(wide);
                let (x, sums) = rest.split_at_mut(height * STRIDE);
                set.run(Block {
                    rows,
                    columns,
                    weight,
                    product,
                    scales,
                    panels,
                    x,
                    sums,
                    y,
                });
            });
        });
}

/// Lines of the panels that a task widens where the processor has no products of their numbers.
fn wide_lines(operands: Operands) -> usize {
    match operands {
        Operands::F32 => 0,
        Operands::Bf16 | Operands::I8 | Operands::F8E4M3 => {
            TILE_PANELS * 2 * operands.lines(operands.depth())
        }
    }
}

/// Elements between the rows of the sums: the columns' panels, and a line so that it is no power of two.
fn sums_stride(columns: &Range<usize>) -> usize {
    (columns.len().div_ceil(LANES) + 1) * LANES
}

/// The division of the result into tasks, equal but for the last row block and column block. No row
/// block is much lower than the others: one that is fetches the weights for little work.
struct Grid {
    rows: usize,
    columns: usize,
    block_rows: usize,
    block_columns: usize,
}

impl Grid {
    fn new(rows: usize, columns: usize, k: usize, tile_rows: usize) -> Self {
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
            block_rows: rows.div_ceil(row_blocks).next_multiple_of(tile_rows),
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
    /// Scales of all rows, when they become numbers of 8 bits.
    scales: &'a [Scale],
    /// A few panels of the current block, widened where that is needed.
    panels: &'a mut [f32],
    /// The rows of x in the current block of columns, [`STRIDE`] apart.
    x: &'a mut [f32],
    /// Sums of all rows and columns.
    sums: &'a mut [f32],
    y: &'a Scattered<'a>,
}

impl<P: Product> Kernel for Block<'_, P> {
    #[inline(always)]
    fn run<S: Micro>(mut self, simd: S) {
        let (k, depth) = (self.weight.k(), self.weight.operands().depth());
        // Without columns of x there is still one block, which sets the sums to zero.
        for block in 0..k.div_ceil(depth).max(1) {
            let terms = block * depth..k.min((block + 1) * depth);
            self.pack(simd, terms.clone());
            let store = match (block, self.weight.operands()) {
                (0, _) => Store::Set,
                (_, Operands::F32 | Operands::Bf16 | Operands::F8E4M3) => Store::Add,
                (_, Operands::I8) => Store::AddIntegers,
            };
            self.tiles(simd, terms, store);
        }
        self.finish::<S>();
    }
}

impl<P: Product> Block<'_, P> {
    /// Copies a block of the rows' columns. Rows behind the last are zero, so that tiles which hang
    /// over compute with ordinary numbers.
    #[inline(always)]
    fn pack<S: Simd>(&mut self, simd: S, depth: Range<usize>) {
        self.x[self.rows.len() * STRIDE..].fill(0.0);
        for (row, out) in self.rows.clone().zip(self.x.chunks_exact_mut(STRIDE)) {
            match self.weight.operands() {
                Operands::F32 => self
                    .product
                    .pack(row, depth.clone(), &mut out[..depth.len()]),
                Operands::Bf16 | Operands::F8E4M3 => {
                    let even = depth.len().next_multiple_of(2);
                    let terms = &mut out[..depth.len()];
                    self.product.pack(row, depth.clone(), terms);
                    if let Some(scale) = self.scales.get(row) {
                        fp8::round_row(terms, scale.inverse);
                    }
                    out[depth.len()..even].fill(0.0);
                    if S::DOT {
                        bf16::pair_up(simd, &mut out[..even]);
                    } else {
                        bf16::round_pairs(&mut out[..even]);
                    }
                }
                Operands::I8 => {
                    let mut terms = [0.0; DEPTH];
                    let terms = &mut terms[..depth.len()];
                    self.product.pack(row, depth.clone(), terms);
                    pack_integers::<S>(terms, self.scales[row], out);
                }
            }
        }
    }

    /// Adds the block of columns to the sums. A panel of the weight stays in the cache for all rows,
    /// while the next one is fetched.
    #[inline(always)]
    fn tiles<S: Micro>(&mut self, simd: S, depth: Range<usize>, store: Store) {
        let alone = self.rows.len() <= ROWS_ALONE;
        let panels = self.columns.len().div_ceil(LANES);
        let (first, stride) = (self.columns.start / LANES, sums_stride(&self.columns));
        let operands = self.weight.operands();
        let stored = operands.lines(depth.len());
        let (lines, terms) = match operands {
            Operands::F32 => (stored, Terms::Whole),
            Operands::Bf16 | Operands::F8E4M3 if S::DOT => (stored, Terms::Pairs),
            Operands::Bf16 | Operands::F8E4M3 => (2 * stored, Terms::Whole),
            Operands::I8 if S::QUADS => (stored, Terms::Integers),
            Operands::I8 => (2 * stored, Terms::Integers),
        };
        let width = if alone && lines == stored {
            S::ROW_PANELS
        } else {
            S::PANELS
        };
        for panel in (0..panels).step_by(width) {
            let count = width.min(panels - panel);
            let weight = self.weight.lines(depth.clone(), first + panel);
            let b = if lines == stored {
                weight.as_ptr().cast()
            } else {
                widen_panels(
                    simd,
                    operands,
                    &weight[..count * stored],
                    stored,
                    self.panels,
                )
            };
            let tile = Tile {
                depth: lines,
                a: self.x.as_ptr(),
                a_depth: 1,
                b,
                b_depth: LANES,
                b_panel: lines * LANES,
                c: self.sums[panel * LANES..].as_mut_ptr(),
                c_row: stride,
                store,
            };
            // SAFETY: `x` and `sums` hold all rows of a tile, TILE_ROWS being at least S::ROWS; that many
            // panels follow in the weight or its widened copy and in the sums, each of `lines` lines.
            unsafe {
                if alone {
                    for row in 0..self.rows.len() {
                        simd.row_tile::<STRIDE>(count, &tile.row(row, STRIDE), terms);
                    }
                } else {
                    let rows = self.rows.len().next_multiple_of(S::ROWS);
                    sweep(simd, rows, count, tile, terms, weight, width * stored);
                }
            };
        }
    }

    fn finish<S: Simd>(&mut self) {
        let (n, stride) = (self.weight.n(), sums_stride(&self.columns));
        let (first, count) = (self.columns.start, self.columns.len());
        for (row, sums) in self.rows.clone().zip(self.sums.chunks_exact_mut(stride)) {
            let sums = &mut sums[..count];
            match self.weight.operands() {
                Operands::F32 | Operands::Bf16 => {}
                Operands::I8 => {
                    if S::QUADS {
                        int8::take_excess(sums, self.weight.excess(self.columns.clone()));
                    }
                    let columns = self.weight.factors(self.columns.clone());
                    int8::scale_sums(sums, self.scales[row].factor, columns);
                }
                Operands::F8E4M3 => {
                    let columns = self.weight.factors(self.columns.clone());
                    fp8::scale_sums(sums, self.scales[row].factor, columns);
                }
            }
            // SAFETY: tasks have different rows or columns, so no other one holds these elements.
            let y = unsafe { self.y.slice(row * n + first, count) };
            self.product.finish(row, first, sums, y);
        }
    }
}

/// Computes the tiles of `panels` panels for `rows` rows, a multiple of a tile's, `tile` being that of the first
/// ones. Meanwhile it asks for as many lines of the weight as lie behind its first `lines`, which are these panels.
///
/// # Safety
/// As for [`Micro::tile`], for every tile; rows of `a` are [`STRIDE`] apart.
#[inline(always)]
pub(super) unsafe fn sweep<S: Micro>(
    simd: S,
    rows: usize,
    panels: usize,
    tile: Tile,
    terms: Terms,
    weight: &[Line],
    lines: usize,
) {
    let ahead = lines.div_ceil(rows / S::ROWS);
    let mut next = weight.as_ptr().wrapping_add(lines);
    for row in (0..rows).step_by(S::ROWS) {
        for _ in 0..ahead {
            simd.prefetch(next.cast());
            next = next.wrapping_add(1);
        }
        // SAFETY: the caller's promise.
        unsafe { simd.tile::<STRIDE>(panels, &tile.row(row, STRIDE), terms) };
    }
}

/// Rounds the terms of a row to integers, as [`Simd::dot_integers`] takes them.
#[inline(always)]
fn pack_integers<S: Simd>(terms: &[f32], scale: Scale, out: &mut [f32]) {
    let quads = terms.len().div_ceil(4);
    if S::QUADS {
        let bytes = int8::bytes_mut(&mut out[..quads]);
        bytes[terms.len()..].fill(0);
        int8::round_row(terms, scale.inverse, bytes);
        int8::make_unsigned(bytes);
    } else {
        let mut rounded = [0.0; DEPTH / 4];
        int8::round_row(terms, scale.inverse, int8::bytes_mut(&mut rounded));
        int8::widen(&rounded[..quads], &mut out[..2 * quads]);
    }
}

/// Widens panels of `stored` lines to `wide`, and returns where they begin.
#[inline(always)]
fn widen_panels<S: Simd>(
    simd: S,
    operands: Operands,
    panels: &[Line],
    stored: usize,
    wide: &mut [f32],
) -> *const f32 {
    let stored = stored * LANES;
    if stored > 0 {
        let panels = elements(panels).chunks_exact(stored);
        for (panel, wide) in panels.zip(wide.chunks_exact_mut(2 * stored)) {
            match operands {
                Operands::F32 | Operands::Bf16 | Operands::F8E4M3 => bf16::widen(simd, panel, wide),
                Operands::I8 => int8::widen(panel, wide),
            }
        }
    }
    wide.as_ptr()
}
