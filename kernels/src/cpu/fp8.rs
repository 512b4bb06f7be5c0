//! Rounding to FP8: a scale for all terms of a row, and the numbers of FP8 nearest to the scaled terms, as
//! f32 or, in pairs, as bf16.
//!
//! Invariants: every step rounds the same on every instruction set; see [`crate::f8e4m3`].

use super::split::multiversion;
use crate::f8e4m3::nearest;

multiversion! {
    /// Scales and rounds every element of a row.
    pub(super) fn round_row(row: &mut [f32], inverse: f32) {
        for v in row.iter_mut() {
            *v = nearest(*v * inverse);
        }
    }
}

multiversion! {
    /// Multiplies the sums of a row by its scale and those of the columns.
    pub(super) fn scale_sums(sums: &mut [f32], row: f32, columns: &[f32]) {
        for (sum, &column) in sums.iter_mut().zip(columns) {
            *sum = *sum * row * column;
        }
    }
}
