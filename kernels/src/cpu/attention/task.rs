//! One task of attention: query rows of a head against all its keys.
//!
//! Invariants: keys in blocks of [`KEYS`], each a row of the left operand; queries are the columns of
//! both products, so a query's arithmetic is that of its lane. Scores live for one group of queries
//! and one block. A task copies the keys and values of its head once, close together and in the form that is
//! multiplied, and runs over them for some query rows after the other.

use rayon::prelude::*;

use super::AttentionProducts;
use super::buffers::{Buffers, KEYS, PART, Sizes};
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
use std::ops::Range;

/// Queries of the widest group; a multiple of the width of every instruction set.
pub(super) const MAX_WIDTH: usize = 48;

/// Query rows that are at hand at a time: their sums stay in the second-level cache.
const ROWS: usize = 10 * MAX_WIDTH;

/// Tasks per thread that the work is divided into at least, if it is large enough.
const TASKS_PER_THREAD: usize = 4;

/// Tasks per thread that may be missing at the end, as a part of all: one of so many.
const MISSING: usize = 25;

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
    let most = q_rows.div_ceil(MAX_WIDTH);
    let parts = parts(heads, rayon::current_num_threads(), most);
    let rows = q_rows.div_ceil(parts).next_multiple_of(MAX_WIDTH);
    let parts = q_rows.div_ceil(rows);
    let size = Sizes {
        queries: rows.min(ROWS),
        dim: inputs.dim,
        blocks: inputs.kv_rows.div_ceil(KEYS),
    };
    let work = inputs
        .dim
        .saturating_mul(inputs.kv_rows)
        .saturating_mul(rows);
    let together = (GRAIN / work.max(1)).max(1);
    (0..heads * parts)
        .into_par_iter()
        .with_min_len(together)
        .with_max_len(together)
        .for_each(|task| {
            let (head, first) = (task / parts, task % parts * rows);
            with_scratch(size.lines(), |lines| {
                set.run(Task {
                    inputs,
                    output,
                    b: head / inputs.heads,
                    head: head % inputs.heads,
                    all: first..q_rows.min(first + rows),
                    rows: 0..0,
                    size,
                    buffers: size.split(flat(lines)),
                });
            });
        });
}

/// Parts, of `most`, that the queries of each head are divided into: as few as keep all threads at work to
/// the end, since each copies the keys and values.
fn parts(heads: usize, threads: usize, most: usize) -> usize {
    let least = (TASKS_PER_THREAD * threads).div_ceil(heads).min(most);
    let even = |&parts: &usize| {
        let tasks = heads * parts;
        (tasks.next_multiple_of(threads) - tasks) * MISSING <= tasks
    };
    (least..=most).find(even).unwrap_or(least)
}

/// Query rows of one head of one batch item.
pub(super) struct Task<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) output: &'a Output<'a>,
    pub(super) b: usize,
    pub(super) head: usize,
    /// The task's query rows.
    all: Range<usize>,
    /// Those at hand.
    pub(super) rows: Range<usize>,
    pub(super) size: Sizes,
    pub(super) buffers: Buffers<'a>,
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<S: Micro>(mut self, simd: S) {
        let form = Form::of::<S>(self.inputs.products);
        self.load_keys(simd, form);
        self.load_values(simd, form);
        for first in self.all.clone().step_by(ROWS) {
            self.rows = first..self.all.end.min(first + ROWS);
            self.attend(simd, form);
        }
    }
}

impl Task<'_> {
    /// Computes the query rows at hand.
    #[inline(always)]
    fn attend<S: Micro>(&mut self, simd: S, form: Form) {
        let width = S::NARROW_PANELS * LANES;
        self.load_queries(form, width);
        self.load_state(width);
        let (kv_rows, groups) = (self.inputs.kv_rows, self.rows.len().div_ceil(width));
        for (block, key) in (0..kv_rows).step_by(KEYS).enumerate() {
            let count = KEYS.min(kv_rows - key);
            for group in 0..groups {
                self.prefetch(simd, form, block + 1, [group, groups]);
                self.score(simd, form, [block, group], count);
                self.add_bias(width, group, key, count);
                self.weigh(simd, form, group, count);
                self.accumulate(simd, form, [block, group], count);
            }
        }
        self.store(width);
    }

    /// Asks for a group's share of a block of keys and values, if there is such a block.
    #[inline(always)]
    fn prefetch<S: Micro>(&self, simd: S, form: Form, block: usize, [group, groups]: [usize; 2]) {
        let (keys, values) = (self.size.key_block(form), self.size.value_block(form));
        for (all, len) in [(&self.buffers.k, keys), (&self.buffers.v, values)] {
            let share = (len / LANES).div_ceil(groups) * LANES;
            let (first, end) = (group * share, len.min((group + 1) * share));
            if block < self.size.blocks {
                for line in (first..end).step_by(LANES) {
                    simd.prefetch_second(all.as_ptr().wrapping_add(block * len + line));
                }
            }
        }
    }

    /// The scores of a group of queries.
    #[inline(always)]
    fn score<S: Micro>(&mut self, simd: S, form: Form, [block, group]: [usize; 2], count: usize) {
        let (dim, width) = (self.size.dim, S::NARROW_PANELS * LANES);
        let (keys, stride) = (block * self.size.key_block(form), form.key_stride());
        for key in (0..count).step_by(S::NARROW_ROWS) {
            for part in 0..self.size.parts() {
                let channel = part * PART;
                let tile = Tile {
                    depth: form.terms(PART.min(dim - channel)),
                    a: self.buffers.k[keys + (part * KEYS + key) * stride..].as_ptr(),
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
                unsafe { form.score_tile(simd, &tile) };
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
        for (lane, row) in (first..self.rows.len().min(first + width)).enumerate() {
            let row = self.head * q_rows + self.rows.start + row;
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
    fn accumulate<S: Micro>(
        &mut self,
        simd: S,
        form: Form,
        [block, group]: [usize; 2],
        count: usize,
    ) {
        let (dim, width) = (self.size.dim, S::NARROW_PANELS * LANES);
        let values = block * self.size.value_block(form);
        let first = group * self.size.padded_dim();
        for channel in (0..dim).step_by(S::NARROW_ROWS) {
            let tile = Tile {
                depth: form.terms(count),
                a: self.buffers.v[values + channel..].as_ptr(),
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
            unsafe { form.value_tile(simd, &tile) };
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
