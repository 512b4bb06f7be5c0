//! One task of attention: some query rows of a head against all keys.
//!
//! Invariants: keys in blocks of [`KEYS`]; both products are micro-tiles of `gemm`; scores live for a
//! few rows and one block. Keys behind the last weigh nothing: they are masked before the maximum and
//! after the exponential.

use rayon::prelude::*;

use super::finish::divide;
use super::view::{Heads, HeadsView, Shape};
use crate::KernelError;
use crate::cpu::check;
use crate::cpu::gemm::{LANES, Micro, Store, Tile, flat};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::{InstructionSet, Kernel, exp_nonpositive};
use crate::cpu::split::Scattered;

/// Keys of a block, and channels of a part of a query: what one row of a micro-tile's left operand
/// holds.
const KEYS: usize = 64;

/// Elements between the rows of a left operand: a line more, so that rows use different cache sets.
const STRIDE: usize = KEYS + LANES;

/// What the query rows of a task are a multiple of: the tile rows of every instruction set divide it.
const ROW_STEP: usize = 42;

/// Query rows of a task at most.
const ROWS: usize = 6 * ROW_STEP;

/// Rows of the largest tile, at most.
const TILE_ROWS: usize = 16;

/// Tasks per thread that the work is divided into at least, if it is large enough.
const TASKS_PER_THREAD: usize = 4;

/// The operands that are read.
pub(super) struct Inputs<'a> {
    pub batch: usize,
    pub heads: usize,
    pub q_rows: usize,
    pub kv_rows: usize,
    pub dim: usize,
    pub scale: f32,
    pub q: HeadsView<'a>,
    pub k: HeadsView<'a>,
    pub v: HeadsView<'a>,
    pub bias: Option<&'a [f32]>,
}

/// Where the result goes.
pub(super) enum Output<'a> {
    /// The quotient, into a view.
    Rows(Heads<'a>),
    /// A running state that is begun.
    NewState(Scattered<'a>),
    /// A running state that is continued.
    State(Scattered<'a>),
}

impl Inputs<'_> {
    /// `[batch, q_rows, heads, dim]`.
    pub(super) fn q_shape(&self) -> Shape {
        [self.batch, self.q_rows, self.heads, self.dim]
    }

    /// Refuses operands that are too short, and heads without channels.
    pub(super) fn check(&self, kernel: &'static str) -> Result<(), KernelError> {
        if self.dim == 0 {
            return Err(check::argument(kernel, "head_dim", "at least 1", "0"));
        }
        let shape = [self.batch, self.heads, self.q_rows, self.dim];
        check::product(kernel, "batch, heads, q_rows, head_dim", &shape)?;
        self.q.check(kernel, "q", self.q_shape())?;
        let keys = [self.batch, self.kv_rows, self.heads, self.dim];
        self.k.check(kernel, "k", keys)?;
        self.v.check(kernel, "v", keys)?;
        let shape = [self.heads, self.q_rows, self.kv_rows];
        let bias = check::product(kernel, "heads, q_rows, kv_rows", &shape)?;
        check::optional_length(kernel, "bias", bias, self.bias)
    }
}

/// Computes all heads of all query rows.
pub(super) fn attend(set: InstructionSet, inputs: &Inputs<'_>, output: &Output<'_>) {
    let (heads, q_rows) = (inputs.batch * inputs.heads, inputs.q_rows);
    if heads == 0 || q_rows == 0 {
        return;
    }
    let wanted = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(heads);
    let rows = q_rows.div_ceil(wanted).min(ROWS).next_multiple_of(ROW_STEP);
    let blocks = q_rows.div_ceil(rows);
    (0..heads * blocks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (head, first) = (task / blocks, task % blocks * rows);
            let size = Sizes::new(rows.min(q_rows - first), inputs.dim);
            with_scratch(size.lines(), |lines| {
                set.run(Task {
                    inputs,
                    output,
                    b: head / inputs.heads,
                    head: head % inputs.heads,
                    first,
                    size,
                    buffers: size.split(flat(lines)),
                });
            });
        });
}

/// Sizes of a task's buffers.
#[derive(Clone, Copy)]
struct Sizes {
    /// Query rows, without padding.
    rows: usize,
    /// Channels of a head.
    dim: usize,
    /// Panels of the values, `dim / 16` rounded up.
    panels: usize,
}

/// A task's working memory.
struct Buffers<'a> {
    /// Scaled queries, `[parts of 64 channels][rows][STRIDE]`.
    q: &'a mut [f32],
    /// Accumulator, `[rows][16 * panels]`.
    sums: &'a mut [f32],
    /// Maximum of each row.
    maxima: &'a mut [f32],
    /// Sum of the weights of each row.
    totals: &'a mut [f32],
    /// Keys of a block in panels of 16 keys, `[4][dim][16]`.
    k: &'a mut [f32],
    /// Values of a block in panels of 16 channels, `[panels][KEYS][16]`.
    v: &'a mut [f32],
    /// Scores, then weights of the rows of a tile, `[TILE_ROWS][STRIDE]`.
    scores: &'a mut [f32],
    /// What the old sums of the rows of a tile are multiplied by.
    factors: &'a mut [f32],
}

impl Sizes {
    fn new(rows: usize, dim: usize) -> Self {
        Self {
            rows,
            dim,
            panels: dim.div_ceil(LANES),
        }
    }

    /// Rows with room for the last tile.
    fn padded(&self) -> usize {
        self.rows.next_multiple_of(LANES) + TILE_ROWS
    }

    fn lengths(&self) -> [usize; 8] {
        let rows = self.padded();
        [
            self.dim.div_ceil(KEYS) * rows * STRIDE,
            rows * self.panels * LANES,
            rows,
            rows,
            KEYS * self.dim,
            self.panels * KEYS * LANES,
            TILE_ROWS * STRIDE,
            TILE_ROWS,
        ]
    }

    fn lines(&self) -> usize {
        self.lengths().iter().sum::<usize>() / LANES
    }

    fn split<'a>(&self, all: &'a mut [f32]) -> Buffers<'a> {
        let mut rest = all;
        let [q, sums, maxima, totals, k, v, scores, factors] = self.lengths().map(|length| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(length);
            rest = behind;
            part
        });
        Buffers {
            q,
            sums,
            maxima,
            totals,
            k,
            v,
            scores,
            factors,
        }
    }
}

/// Query rows of one head of one batch item.
struct Task<'a> {
    inputs: &'a Inputs<'a>,
    output: &'a Output<'a>,
    b: usize,
    head: usize,
    first: usize,
    size: Sizes,
    buffers: Buffers<'a>,
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<S: Micro>(mut self, simd: S) {
        self.load_queries();
        self.load_state();
        let kv_rows = self.inputs.kv_rows;
        for key in (0..kv_rows).step_by(KEYS) {
            let count = KEYS.min(kv_rows - key);
            self.load_keys(key, count);
            self.load_values(key, count);
            for row in (0..self.size.rows).step_by(S::ROWS) {
                self.score(simd, row, count);
                self.weigh(simd, row, key, count);
                self.accumulate(simd, row, count);
            }
        }
        self.store();
    }
}

impl Task<'_> {
    /// Copies the queries, scaled, in parts of 64 channels; rows behind the last are zero.
    fn load_queries(&mut self) {
        let Inputs { dim, scale, .. } = *self.inputs;
        let part_len = self.size.padded() * STRIDE;
        for part in self.buffers.q.chunks_exact_mut(part_len) {
            part[self.size.rows * STRIDE..].fill(0.0);
        }
        for row in 0..self.size.rows {
            let q = self.inputs.q.head(self.b, self.first + row, self.head, dim);
            for (part, channels) in q.chunks(KEYS).enumerate() {
                let out = &mut self.buffers.q[part * part_len + row * STRIDE..];
                for (out, &v) in out.iter_mut().zip(channels) {
                    *out = v * scale;
                }
            }
        }
    }

    /// Begins the running state, or reads it.
    fn load_state(&mut self) {
        let (dim, width) = (self.size.dim, self.size.panels * LANES);
        self.buffers.sums.fill(0.0);
        self.buffers.maxima.fill(f32::NEG_INFINITY);
        self.buffers.totals.fill(0.0);
        let Output::State(state) = self.output else {
            return;
        };
        for row in 0..self.size.rows {
            // SAFETY: this task alone handles this row and head.
            let entry = unsafe { state.slice(self.state_index(row), dim + 2) };
            self.buffers.sums[row * width..][..dim].copy_from_slice(&entry[..dim]);
            self.buffers.maxima[row] = entry[dim];
            self.buffers.totals[row] = entry[dim + 1];
        }
    }

    fn state_index(&self, row: usize) -> usize {
        let Inputs {
            heads, q_rows, dim, ..
        } = *self.inputs;
        ((self.b * q_rows + self.first + row) * heads + self.head) * (dim + 2)
    }

    /// Transposes a block of keys into panels of 16 keys; keys behind the last are zero.
    fn load_keys(&mut self, key: usize, count: usize) {
        let dim = self.size.dim;
        for (panel, out) in self.buffers.k.chunks_exact_mut(dim * LANES).enumerate() {
            for lane in 0..LANES {
                let index = panel * LANES + lane;
                if index < count {
                    let k = self.inputs.k.head(self.b, key + index, self.head, dim);
                    for (line, &v) in out.chunks_exact_mut(LANES).zip(k) {
                        line[lane] = v;
                    }
                } else {
                    for line in out.chunks_exact_mut(LANES) {
                        line[lane] = 0.0;
                    }
                }
            }
        }
    }

    /// Copies a block of values into panels of 16 channels; channels behind the last are zero.
    fn load_values(&mut self, key: usize, count: usize) {
        let dim = self.size.dim;
        for index in 0..count {
            let v = self.inputs.v.head(self.b, key + index, self.head, dim);
            for (panel, channels) in v.chunks(LANES).enumerate() {
                let line = &mut self.buffers.v[(panel * KEYS + index) * LANES..][..LANES];
                line[..channels.len()].copy_from_slice(channels);
                line[channels.len()..].fill(0.0);
            }
        }
    }

    /// The scores of the rows of a tile from `row` on.
    #[inline(always)]
    fn score<S: Micro>(&mut self, simd: S, row: usize, count: usize) {
        let (dim, panels) = (self.size.dim, count.div_ceil(LANES));
        let part_len = self.size.padded() * STRIDE;
        for panel in (0..panels).step_by(S::PANELS) {
            for part in 0..dim.div_ceil(KEYS) {
                let channel = part * KEYS;
                let tile = Tile {
                    depth: KEYS.min(dim - channel),
                    a: self.buffers.q[part * part_len + row * STRIDE..].as_ptr(),
                    b: self.buffers.k[(panel * dim + channel) * LANES..].as_ptr(),
                    b_panel: dim * LANES,
                    c: self.buffers.scores[panel * LANES..].as_mut_ptr(),
                    c_row: STRIDE,
                    store: if part == 0 { Store::Set } else { Store::Add },
                };
                // SAFETY: the buffers hold TILE_ROWS rows more than the task has, and 4 panels.
                unsafe { simd.tile::<STRIDE>(S::PANELS.min(panels - panel), &tile) };
            }
        }
    }

    /// Turns the scores of the rows of a tile into weights and updates their maxima and totals.
    #[inline(always)]
    fn weigh<S: Micro>(&mut self, simd: S, row: usize, key: usize, count: usize) {
        for r in 0..S::ROWS.min(self.size.rows - row) {
            let padded = count.next_multiple_of(LANES);
            let scores = &mut self.buffers.scores[r * STRIDE..][..padded];
            if let Some(bias) = self.inputs.bias {
                let Inputs {
                    q_rows, kv_rows, ..
                } = *self.inputs;
                let first = (self.head * q_rows + self.first + row + r) * kv_rows + key;
                for (score, &b) in scores.iter_mut().zip(&bias[first..first + count]) {
                    *score += b;
                }
            }
            scores[count..].fill(f32::NEG_INFINITY);
            let old = self.buffers.maxima[row + r];
            let new = larger(old, largest(simd, scores));
            // A row that is masked so far has no maximum to subtract.
            let base = if new == f32::NEG_INFINITY { 0.0 } else { new };
            weights(simd, scores, base);
            scores[count..].fill(0.0);
            let factor = simd.largest(exp_nonpositive(simd, simd.splat(old - base)));
            let total = &mut self.buffers.totals[row + r];
            *total = *total * factor + total_of(simd, scores);
            self.buffers.maxima[row + r] = new;
            self.buffers.factors[r] = factor;
        }
    }

    /// Adds the weighted values to the sums of the rows of a tile, which are scaled first.
    #[inline(always)]
    fn accumulate<S: Micro>(&mut self, simd: S, row: usize, count: usize) {
        let panels = self.size.panels;
        for panel in (0..panels).step_by(S::PANELS) {
            let tile = Tile {
                depth: count,
                a: self.buffers.scores.as_ptr(),
                b: self.buffers.v[panel * KEYS * LANES..].as_ptr(),
                b_panel: KEYS * LANES,
                c: self.buffers.sums[(row * panels + panel) * LANES..].as_mut_ptr(),
                c_row: panels * LANES,
                store: Store::Scale(self.buffers.factors.as_ptr()),
            };
            // SAFETY: the buffers hold TILE_ROWS rows more than the task has; the rows of the scores
            // hold KEYS weights; a factor exists for each row of a tile.
            unsafe { simd.tile::<STRIDE>(S::PANELS.min(panels - panel), &tile) };
        }
    }

    fn store(&mut self) {
        let (dim, width) = (self.size.dim, self.size.panels * LANES);
        for row in 0..self.size.rows {
            let sums = &self.buffers.sums[row * width..][..dim];
            let (maximum, total) = (self.buffers.maxima[row], self.buffers.totals[row]);
            match self.output {
                Output::Rows(y) => {
                    // SAFETY: this task alone handles this row and head.
                    let y = unsafe { y.head(self.b, self.first + row, self.head, dim) };
                    divide(sums, total, y);
                }
                Output::NewState(state) | Output::State(state) => {
                    // SAFETY: this task alone handles this row and head.
                    let entry = unsafe { state.slice(self.state_index(row), dim + 2) };
                    entry[..dim].copy_from_slice(sums);
                    entry[dim..].copy_from_slice(&[maximum, total]);
                }
            }
        }
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The largest of the scores, a multiple of 16 in number.
#[inline(always)]
fn largest<S: Micro>(s: S, scores: &[f32]) -> f32 {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for chunk in scores.chunks_exact(S::LANES) {
        // SAFETY: a chunk has LANES elements.
        largest = s.max(largest, unsafe { s.load(chunk.as_ptr()) });
    }
    s.largest(largest)
}

/// Replaces every score by e^(score - base).
#[inline(always)]
fn weights<S: Micro>(s: S, scores: &mut [f32], base: f32) {
    let base = s.splat(base);
    for chunk in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: a chunk has LANES elements.
        unsafe {
            let score = s.load(chunk.as_ptr());
            s.store(exp_nonpositive(s, s.sub(score, base)), chunk.as_mut_ptr());
        }
    }
}

/// The sum of the weights: element `i` goes to lane `i % 16`, then halves are added to each other.
#[inline(always)]
fn total_of<S: Micro>(s: S, weights: &[f32]) -> f32 {
    let mut lanes = [s.splat(0.0); 2];
    for line in weights.chunks_exact(LANES) {
        for (lanes, chunk) in lanes.iter_mut().zip(line.chunks_exact(S::LANES)) {
            // SAFETY: a chunk has LANES elements.
            *lanes = s.add(*lanes, unsafe { s.load(chunk.as_ptr()) });
        }
    }
    s.sum(s.add(lanes[0], lanes[1]))
}
