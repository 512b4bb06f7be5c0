//! What a task of attention copies in and out: the keys and values of its head, then queries and sums of the rows
//! at hand.
//!
//! Invariants: keys and values lie close together and in the form that is multiplied; queries and sums are columns.
//! What is read of a state is written again for the same rows only.

use super::buffers::{KEYS, PART, Sizes};
use super::finish::divide;
use super::form::Form;
use super::task::{Inputs, Output, Task};
use super::transpose::{Block, SIDE, to_columns, to_rows};
use super::view::HeadsView;
use crate::cpu::gemm::{LANES, Micro};

/// Keys and values that are asked for ahead.
const AHEAD: usize = 8;

impl Task<'_> {
    /// Copies the keys in parts of 64 channels.
    #[inline(always)]
    pub(super) fn load_keys<S: Micro>(&mut self, simd: S, form: Form) {
        let (dim, stride) = (self.size.dim, form.key_stride());
        for key in 0..self.inputs.kv_rows {
            self.ask(simd, &self.inputs.k, key + AHEAD);
            let k = self.inputs.k.head(self.b, key, self.head, dim);
            let block = &mut self.buffers.k[key / KEYS * self.size.key_block(form)..];
            for (part, channels) in k.chunks(PART).enumerate() {
                let row = &mut block[(part * KEYS + key % KEYS) * stride..][..stride];
                form.key(simd, channels, row);
            }
        }
    }

    /// Copies the values; channels behind the last are zero.
    #[inline(always)]
    pub(super) fn load_values<S: Micro>(&mut self, simd: S, form: Form) {
        let (dim, stride) = (self.size.dim, self.size.value_stride());
        let (kv_rows, numbers) = (self.inputs.kv_rows, form.numbers());
        let value = |key| self.inputs.v.head(self.b, key, self.head, dim);
        for key in (0..kv_rows).step_by(numbers) {
            for key in key..key + numbers {
                self.ask(simd, &self.inputs.v, key + AHEAD);
            }
            let block = &mut self.buffers.v[key / KEYS * self.size.value_block(form)..];
            let row = &mut block[key % KEYS / numbers * stride..][..stride];
            let second = (key + 1 < kv_rows).then(|| value(key + 1));
            form.values(simd, value(key), second, row);
        }
    }

    /// Asks for a row of keys or values. Such rows lie far apart, where no prefetcher of a processor
    /// finds them.
    #[inline(always)]
    fn ask<S: Micro>(&self, simd: S, view: &HeadsView<'_>, key: usize) {
        let Inputs { kv_rows, dim, .. } = *self.inputs;
        if key < kv_rows {
            let row = view.head(self.b, key, self.head, dim);
            for channel in (0..dim).step_by(LANES) {
                simd.prefetch(&raw const row[channel]);
            }
        }
    }

    /// Transposes the queries into the groups' columns, scaled; columns behind the last are zero.
    #[inline(always)]
    pub(super) fn load_queries(&mut self, form: Form, width: usize) {
        let Inputs { dim, scale, .. } = *self.inputs;
        let groups = self.buffers.q.chunks_exact_mut(form.terms(dim) * width);
        for (first, group) in self.rows.clone().step_by(width).zip(groups) {
            for (lane, channel) in blocks(width, dim) {
                let channels = channel..dim.min(channel + PART);
                let mut block: Block = [[0.0; PART]; SIDE];
                for (row, out) in (first + lane..self.rows.end).zip(&mut block) {
                    let q = self.inputs.q.head(self.b, row, self.head, dim);
                    form.scaled(&q[channels.clone()], scale, out);
                }
                let columns = &mut group[form.terms(channel) * width + lane..];
                to_columns(&block, form.terms(channels.len()), width, columns);
            }
        }
    }

    /// Begins the running state, or reads it.
    #[inline(always)]
    pub(super) fn load_state(&mut self, width: usize) {
        let (dim, rows) = (self.size.dim, self.rows.len());
        self.buffers.sums.fill(0.0);
        self.buffers.maxima.fill(f32::NEG_INFINITY);
        self.buffers.totals.fill(0.0);
        let Output::State(state) = self.output else {
            return;
        };
        for (first, channel) in blocks(rows, dim) {
            let channels = channel..dim.min(channel + PART);
            let mut block: Block = [[0.0; PART]; SIDE];
            for (row, out) in (first..rows).zip(&mut block) {
                // SAFETY: this task alone handles this row and head.
                let sums = unsafe { state.slice(self.state_index(row), dim) };
                out[..channels.len()].copy_from_slice(&sums[channels.clone()]);
            }
            let columns = &mut self.buffers.sums[column(self.size, width, first)..];
            to_columns(
                &block,
                channels.len(),
                width,
                &mut columns[channel * width..],
            );
        }
        for row in 0..rows {
            // SAFETY: as above.
            let rest = unsafe { state.slice(self.state_index(row) + dim, 2) };
            (self.buffers.maxima[row], self.buffers.totals[row]) = (rest[0], rest[1]);
        }
    }

    fn state_index(&self, row: usize) -> usize {
        let Inputs {
            heads, q_rows, dim, ..
        } = *self.inputs;
        ((self.b * q_rows + self.rows.start + row) * heads + self.head) * (dim + 2)
    }

    /// Writes the sums as rows, and what completes them.
    #[inline(always)]
    pub(super) fn store(&mut self, width: usize) {
        let (dim, rows) = (self.size.dim, self.rows.len());
        for (first, channel) in blocks(rows, dim) {
            let channels = channel..dim.min(channel + PART);
            let mut block: Block = [[0.0; PART]; SIDE];
            let columns = &self.buffers.sums[column(self.size, width, first)..];
            to_rows(
                &columns[channel * width..],
                channels.len(),
                width,
                &mut block,
            );
            for (row, sums) in (first..rows).zip(&block) {
                self.result(row)[channels.clone()].copy_from_slice(&sums[..channels.len()]);
            }
        }
        for row in 0..rows {
            let (maximum, total) = (self.buffers.maxima[row], self.buffers.totals[row]);
            match self.output {
                Output::Rows(_) => divide(self.result(row), total),
                Output::NewState(state) | Output::State(state) => {
                    // SAFETY: this task alone handles this row and head.
                    let rest = unsafe { state.slice(self.state_index(row) + dim, 2) };
                    rest.copy_from_slice(&[maximum, total]);
                }
            }
        }
    }

    /// Where the sums of a row go.
    #[inline(always)]
    fn result(&mut self, row: usize) -> &mut [f32] {
        let dim = self.size.dim;
        // SAFETY: this task alone handles this row and head, and it is borrowed.
        unsafe {
            match self.output {
                Output::Rows(y) => y.head(self.b, self.rows.start + row, self.head, dim),
                Output::NewState(state) | Output::State(state) => {
                    state.slice(self.state_index(row), dim)
                }
            }
        }
    }
}

/// First row and first channel of every block.
#[inline(always)]
fn blocks(rows: usize, dim: usize) -> impl Iterator<Item = (usize, usize)> {
    let first = move |row| (0..dim).step_by(PART).map(move |channel| (row, channel));
    (0..rows).step_by(SIDE).flat_map(first)
}

/// Where the sums of a query begin.
fn column(size: Sizes, width: usize, row: usize) -> usize {
    row / width * size.padded_dim() * width + row % width
}
