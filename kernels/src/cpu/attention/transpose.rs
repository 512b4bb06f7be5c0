//! Rows of channels to columns of queries and back.
//!
//! Invariant: a few rows at a time, in squares that registers hold, so that every line of memory is touched once.

use std::array::from_fn;

use super::buffers::PART;

/// Rows and columns of a square; a divisor of the width of every group of queries.
pub(super) const SIDE: usize = 8;

/// A part of the channels of some rows.
pub(super) type Block = [[f32; PART]; SIDE];

type Square = [[f32; SIDE]; SIDE];

/// Writes the first `count` elements of the rows as columns, those of an element `width` behind the last.
#[inline(always)]
pub(super) fn to_columns(rows: &Block, count: usize, width: usize, out: &mut [f32]) {
    for first in (0..count).step_by(SIDE) {
        let square: Square = from_fn(|row| rows[row].as_chunks().0[first / SIDE]);
        let columns = transposed(&square);
        for (element, column) in (first..count).zip(&columns) {
            out[element * width..][..SIDE].copy_from_slice(column);
        }
    }
}

/// The opposite of [`to_columns`]. There are whole squares of columns.
#[inline(always)]
pub(super) fn to_rows(columns: &[f32], count: usize, width: usize, rows: &mut Block) {
    for first in (0..count).step_by(SIDE) {
        let square: Square =
            from_fn(|column| from_fn(|row| columns[(first + column) * width + row]));
        for (row, elements) in rows.iter_mut().zip(transposed(&square)) {
            row.as_chunks_mut().0[first / SIDE] = elements;
        }
    }
}

#[inline(always)]
fn transposed(square: &Square) -> Square {
    from_fn(|row| from_fn(|column| square[column][row]))
}
