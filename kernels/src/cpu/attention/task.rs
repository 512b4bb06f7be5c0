//! One task of attention: some query rows of a head against all keys.
//!
//! Invariants: keys in blocks of [`KEYS`], each a row of the left operand; queries are the columns of
//! both products, so a query's arithmetic is that of its lane. Scores live for one group of queries
//! and one block.

use rayon::prelude::*;

use super::AttentionProducts;
use super::buffers::{Buffers, KEYS, PART, STRIDE, Sizes};
use super::finish::divide;
use super::form::Form;
use super::view::{Heads, HeadsView};
use crate::KernelError;
use crate::args::HeadsShape;
use crate::cpu::check;
use crate::cpu::gemm::{LANES, Micro, Store, Tile, flat};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::{EXP2, InstructionSet, Kernel, exp2_nonpositive};
use crate::cpu::split::Scattered;
use std::f32::consts::LOG2_E;

/// Queries of the widest group; a multiple of the width of every instruction set.
pub(super) const MAX_WIDTH: usize = 48;

/// Query rows of a task at most.
const ROWS: usize = 10 * MAX_WIDTH;

/// Tasks per thread that the work is divided into at least, if it is large enough.
const TASKS_PER_THREAD: usize = 4;

/// Multiplications of a job at least, so that scheduling stays cheap beside the work.
const GRAIN: usize = 1 << 18;

/// The operands that are read.
pub(super) struct Inputs<'a> {
    pub batch: usize,
    pub heads: usize,
    pub q_rows: usize,
    pub kv_rows: usize,
    pub dim: usize,
    pub scale: f32,
    pub products: AttentionProducts,
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
    pub(super) fn q_shape(&self) -> HeadsShape {
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
    let rows = q_rows
        .div_ceil(wanted)
        .min(ROWS)
        .next_multiple_of(MAX_WIDTH);
    let blocks = q_rows.div_ceil(rows);
    let work = inputs
        .dim
        .saturating_mul(inputs.kv_rows)
        .saturating_mul(rows);
    let together = (GRAIN / work.max(1)).max(1);
    (0..heads * blocks)
        .into_par_iter()
        .with_min_len(together)
        .with_max_len(together)
        .for_each(|task| {
            let (head, first) = (task / blocks, task % blocks * rows);
            let rows = rows.min(q_rows - first);
            let size = Sizes {
                queries: rows.next_multiple_of(MAX_WIDTH),
                dim: inputs.dim,
            };
            with_scratch(size.lines(), |lines| {
                set.run(Task {
                    inputs,
                    output,
                    b: head / inputs.heads,
                    head: head % inputs.heads,
                    first,
                    rows,
                    size,
                    buffers: size.split(flat(lines)),
                });
            });
        });
}

/// Query rows of one head of one batch item.
struct Task<'a> {
    inputs: &'a Inputs<'a>,
    output: &'a Output<'a>,
    b: usize,
    head: usize,
    /// First query row.
    first: usize,
    /// Query rows.
    rows: usize,
    size: Sizes,
    buffers: Buffers<'a>,
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<S: Micro>(mut self, simd: S) {
        let width = S::NARROW_PANELS * LANES;
        let form = Form::of::<S>(self.inputs.products);
        self.load_queries(form, width);
        self.load_state(width);
        let (kv_rows, groups) = (self.inputs.kv_rows, self.rows.div_ceil(width));
        for key in (0..kv_rows).step_by(KEYS) {
            let count = KEYS.min(kv_rows - key);
            self.load_keys(simd, form, key, count);
            self.load_values(simd, form, key, count);
            for group in 0..groups {
                self.prefetch(simd, key + count, group, groups);
                self.score(simd, form, group, count);
                self.add_bias(width, group, key, count);
                self.weigh(simd, form, group, count);
                self.accumulate(simd, form, group, count);
            }
        }
        self.store(width);
    }
}

impl Task<'_> {
    /// Transposes the queries into the groups' columns, scaled; columns behind the last are zero.
    fn load_queries(&mut self, form: Form, width: usize) {
        let Inputs { dim, scale, .. } = *self.inputs;
        let groups = self.buffers.q.chunks_exact_mut(form.terms(dim) * width);
        let used = self.rows.div_ceil(width);
        for (group, out) in groups.take(used).enumerate() {
            for lane in 0..width {
                let row = group * width + lane;
                let column = out.iter_mut().skip(lane).step_by(width);
                if row < self.rows {
                    let q = self.inputs.q.head(self.b, self.first + row, self.head, dim);
                    form.scaled_column(q, scale, column);
                } else {
                    column.for_each(|out| *out = 0.0);
                }
            }
        }
    }

    /// Begins the running state, or reads it.
    fn load_state(&mut self, width: usize) {
        let dim = self.size.dim;
        self.buffers.sums.fill(0.0);
        self.buffers.maxima.fill(f32::NEG_INFINITY);
        self.buffers.totals.fill(0.0);
        let Output::State(state) = self.output else {
            return;
        };
        for row in 0..self.rows {
            // SAFETY: this task alone handles this row and head.
            let entry = unsafe { state.slice(self.state_index(row), dim + 2) };
            let sums = &mut self.buffers.sums[column(self.size, width, row)..];
            for (sum, &v) in sums.iter_mut().step_by(width).zip(&entry[..dim]) {
                *sum = v;
            }
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

    /// Asks for a group's share of the block of keys and values that begins with `key`. Their rows lie far
    /// apart, where no prefetcher of a processor finds them.
    #[inline(always)]
    fn prefetch<S: Micro>(&self, simd: S, key: usize, group: usize, groups: usize) {
        let Inputs { kv_rows, dim, .. } = *self.inputs;
        let share = KEYS.div_ceil(groups);
        let first = key + (group * share).min(KEYS);
        for key in first..kv_rows.min(first + share) {
            for view in [&self.inputs.k, &self.inputs.v] {
                let row = view.head(self.b, key, self.head, dim);
                for channel in (0..dim).step_by(LANES) {
                    simd.prefetch_second(&raw const row[channel]);
                }
            }
        }
    }

    /// Copies a block of keys in parts of 64 channels.
    #[inline(always)]
    fn load_keys<S: Micro>(&mut self, simd: S, form: Form, key: usize, count: usize) {
        let dim = self.size.dim;
        for index in 0..count {
            let k = self.inputs.k.head(self.b, key + index, self.head, dim);
            for (part, channels) in k.chunks(PART).enumerate() {
                let row = &mut self.buffers.k[(part * KEYS + index) * STRIDE..][..STRIDE];
                form.key(simd, channels, row);
            }
        }
    }

    /// Copies a block of values; channels behind the last are zero.
    #[inline(always)]
    fn load_values<S: Micro>(&mut self, simd: S, form: Form, key: usize, count: usize) {
        let (dim, stride) = (self.size.dim, self.size.value_stride());
        let value = |index| self.inputs.v.head(self.b, key + index, self.head, dim);
        let rows = self.buffers.v.chunks_exact_mut(stride);
        for (index, row) in (0..count).step_by(form.numbers()).zip(rows) {
            let second = (index + 1 < count).then(|| value(index + 1));
            form.values(simd, value(index), second, row);
        }
    }

    /// The scores of a group of queries.
    #[inline(always)]
    fn score<S: Micro>(&mut self, simd: S, form: Form, group: usize, count: usize) {
        let (dim, width) = (self.size.dim, S::NARROW_PANELS * LANES);
        for key in (0..count).step_by(S::NARROW_ROWS) {
            for part in 0..self.size.parts() {
                let channel = part * PART;
                let tile = Tile {
                    depth: form.terms(PART.min(dim - channel)),
                    a: self.buffers.k[(part * KEYS + key) * STRIDE..].as_ptr(),
                    a_depth: 1,
                    b: self.buffers.q[(group * form.terms(dim) + form.terms(channel)) * width..]
                        .as_ptr(),
                    b_depth: width,
                    b_panel: LANES,
                    c: self.buffers.scores[key * width..].as_mut_ptr(),
                    c_row: width,
                    store: if part == 0 { Store::Set } else { Store::Add },
                };
                // SAFETY: the keys and the scores have KEYS rows, a multiple of the tile's; a group
                // of queries has the tile's width.
                unsafe { form.tile::<S, STRIDE>(simd, &tile) };
            }
        }
    }

    fn add_bias(&mut self, width: usize, group: usize, key: usize, count: usize) {
        let Some(bias) = self.inputs.bias else {
            return;
        };
        let Inputs {
            q_rows, kv_rows, ..
        } = *self.inputs;
        let first = group * width;
        for (lane, row) in (first..self.rows.min(first + width)).enumerate() {
            let row = self.head * q_rows + self.first + row;
            let terms = &bias[row * kv_rows + key..][..count];
            let scores = self.buffers.scores.iter_mut().skip(lane).step_by(width);
            scores.zip(terms).for_each(|(score, &b)| *score += b);
        }
    }

    /// Turns the scores of a group into weights and updates its maxima and totals.
    #[inline(always)]
    fn weigh<S: Micro>(&mut self, simd: S, form: Form, group: usize, count: usize) {
        let width = S::NARROW_PANELS * LANES;
        for lane in (0..width).step_by(S::LANES) {
            let query = group * width + lane;
            let maxima = &mut self.buffers.maxima[query..query + S::LANES];
            let totals = &mut self.buffers.totals[query..query + S::LANES];
            let factors = &mut self.buffers.factors[lane..lane + S::LANES];
            let scores = self.buffers.scores[lane..count * width].as_mut_ptr();
            // SAFETY: the slices hold a vector each.
            let (old, total) = unsafe { (simd.load(maxima.as_ptr()), simd.load(totals.as_ptr())) };
            // SAFETY: every row has `width` elements, and `lane` begins a vector of them.
            let new = simd.max(old, unsafe { maximum(simd, scores, width, count) });
            let (old_base, new_base) = (base(simd, old), base(simd, new));
            // SAFETY: as above.
            let sum = unsafe { form.weights(simd, scores, [width, count], new_base) };
            let factor = exp2_nonpositive(simd, simd.sub(old_base, new_base), EXP2);
            // SAFETY: the slices hold a vector each.
            unsafe {
                simd.store(new, maxima.as_mut_ptr());
                simd.store(simd.mul_add(total, factor, sum), totals.as_mut_ptr());
                simd.store(factor, factors.as_mut_ptr());
            }
        }
    }

    /// Adds the weighted values to the sums of a group, which are scaled first.
    #[inline(always)]
    fn accumulate<S: Micro>(&mut self, simd: S, form: Form, group: usize, count: usize) {
        let (dim, width) = (self.size.dim, S::NARROW_PANELS * LANES);
        let first = group * self.size.padded_dim();
        for channel in (0..dim).step_by(S::NARROW_ROWS) {
            let tile = Tile {
                depth: form.terms(count),
                a: self.buffers.v[channel..].as_ptr(),
                a_depth: self.size.value_stride(),
                b: self.buffers.scores.as_ptr(),
                b_depth: width,
                b_panel: LANES,
                c: self.buffers.sums[(first + channel) * width..].as_mut_ptr(),
                c_row: width,
                store: Store::Scale(self.buffers.factors.as_ptr()),
            };
            // SAFETY: the values and the sums have room for a tile behind the last channel; the
            // weights have as many rows of the tile's width, and the factors one.
            unsafe { form.tile::<S, 1>(simd, &tile) };
        }
    }

    fn store(&mut self, width: usize) {
        let dim = self.size.dim;
        for row in 0..self.rows {
            let (maximum, total) = (self.buffers.maxima[row], self.buffers.totals[row]);
            let sums = &self.buffers.sums[column(self.size, width, row)..];
            let sums = sums.iter().step_by(width).copied();
            match self.output {
                Output::Rows(y) => {
                    // SAFETY: this task alone handles this row and head.
                    let y = unsafe { y.head(self.b, self.first + row, self.head, dim) };
                    y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum);
                    divide(y, total);
                }
                Output::NewState(state) | Output::State(state) => {
                    // SAFETY: this task alone handles this row and head.
                    let entry = unsafe { state.slice(self.state_index(row), dim + 2) };
                    let (accumulator, rest) = entry.split_at_mut(dim);
                    accumulator
                        .iter_mut()
                        .zip(sums)
                        .for_each(|(a, sum)| *a = sum);
                    rest.copy_from_slice(&[maximum, total]);
                }
            }
        }
    }
}

/// What is subtracted from scores in units of powers of two, given their maximum. The product is rounded
/// for all weights of a maximum alike. A query that is masked so far has no maximum; anything finite may
/// be subtracted.
#[inline(always)]
fn base<S: Micro>(simd: S, maximum: S::V) -> S::V {
    let product = simd.mul_add(maximum, simd.splat(LOG2_E), simd.splat(0.0));
    simd.max(simd.splat(f32::MIN), product)
}

/// The larger of `count` vectors, `width` elements apart, in four chains.
///
/// # Safety
/// `scores` is valid for a read of each of them.
#[inline(always)]
unsafe fn maximum<S: Micro>(simd: S, scores: *const f32, width: usize, count: usize) -> S::V {
    let row = |key: usize| scores.wrapping_add(key * width);
    let mut chains = [simd.splat(f32::NEG_INFINITY); 4];
    let whole = count - count % chains.len();
    // SAFETY: rows, by the caller's promise.
    unsafe {
        for first in (0..whole).step_by(chains.len()) {
            for (offset, chain) in chains.iter_mut().enumerate() {
                *chain = simd.max(*chain, simd.load(row(first + offset)));
            }
        }
        for key in whole..count {
            chains[0] = simd.max(chains[0], simd.load(row(key)));
        }
    }
    let [a, b, c, d] = chains;
    simd.max(simd.max(a, b), simd.max(c, d))
}

/// Where the sums of a query begin.
fn column(size: Sizes, width: usize, row: usize) -> usize {
    row / width * size.padded_dim() * width + row % width
}
