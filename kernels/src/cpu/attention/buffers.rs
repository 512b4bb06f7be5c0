//! Working memory of one task of attention.
//!
//! Invariants: queries are columns everywhere, in groups as wide as a micro-tile, so that maxima, sums
//! and factors are vectors; keys and values are rows, as they come. All parts begin at cache lines.
//! Where bf16 are multiplied in pairs, two channels of queries and keys or two keys of weights and values
//! share an element, so that rows of keys are shorter and values half as many.

use super::form::Form;
use crate::cpu::gemm::LANES;

/// Keys of a block; a multiple of the rows of every narrow tile.
pub(super) const KEYS: usize = 96;

/// Channels of a part of a key: what one row of a left operand holds.
pub(super) const PART: usize = 64;

/// Elements between the rows of a part: a line more, so that rows use different cache sets.
pub(super) const STRIDE: usize = PART + LANES;

/// As [`STRIDE`], where two channels share an element.
pub(super) const PAIRED_STRIDE: usize = PART / 2 + LANES;

/// Rows of the largest narrow tile, at most.
const TILE_ROWS: usize = 8;

/// Sizes of a task's working memory.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Query rows, a multiple of the width of a group.
    pub queries: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Blocks of keys.
    pub blocks: usize,
}

/// A task's working memory. `W` is the width of a group of queries.
pub(super) struct Buffers<'a> {
    /// Scaled queries, `[groups][dim][W]`.
    pub q: &'a mut [f32],
    /// Accumulators, `[groups][padded dim][W]`.
    pub sums: &'a mut [f32],
    /// Maximum of each query's scores.
    pub maxima: &'a mut [f32],
    /// Sum of each query's weights.
    pub totals: &'a mut [f32],
    /// Keys, `[blocks][parts of 64 channels][KEYS][STRIDE]`.
    pub k: &'a mut [f32],
    /// Values, `[blocks][KEYS][value stride]`.
    pub v: &'a mut [f32],
    /// Scores, then weights of a group, `[KEYS][W]`.
    pub scores: &'a mut [f32],
    /// What the old sums of a group are multiplied by, `[W]`.
    pub factors: &'a mut [f32],
}

impl Sizes {
    /// Channels with room for the last tile.
    pub(super) fn padded_dim(&self) -> usize {
        self.dim.next_multiple_of(LANES) + TILE_ROWS
    }

    /// Elements between the values of a block: an odd number of lines, so that consecutive values use
    /// different cache sets.
    pub(super) fn value_stride(&self) -> usize {
        (self.padded_dim().div_ceil(LANES) | 1) * LANES
    }

    /// Elements of a block of keys.
    pub(super) fn key_block(&self, form: Form) -> usize {
        self.parts() * KEYS * form.key_stride()
    }

    /// Elements of a block of values.
    pub(super) fn value_block(&self, form: Form) -> usize {
        form.terms(KEYS) * self.value_stride()
    }

    /// Parts of 64 channels.
    pub(super) fn parts(&self) -> usize {
        self.dim.div_ceil(PART)
    }

    fn lengths(&self) -> [usize; 8] {
        [
            self.queries * self.dim,
            self.queries * self.padded_dim(),
            self.queries,
            self.queries,
            self.blocks * self.parts() * KEYS * STRIDE,
            self.blocks * KEYS * self.value_stride(),
            KEYS * super::task::MAX_WIDTH,
            super::task::MAX_WIDTH,
        ]
    }

    /// Lines of the whole memory.
    pub(super) fn lines(&self) -> usize {
        self.lengths().iter().sum::<usize>() / LANES
    }

    /// Divides the memory.
    pub(super) fn split<'a>(&self, all: &'a mut [f32]) -> Buffers<'a> {
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
