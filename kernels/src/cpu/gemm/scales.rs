//! The scales of rows that become numbers of 8 bits, found in one pass before the product.
//!
//! Invariant: the memory that holds them stays with the thread, so that a product allocates only when it
//! has more rows than any before it.

use std::cell::Cell;

use rayon::prelude::*;

use super::Product;
use super::panels::{DEPTH, Panels};
use crate::cpu::split::multiversion;
use crate::scale::{Scale, raised};

/// Rows of a task.
const ROWS: usize = 16;

thread_local! {
    static SCALES: Cell<Vec<Scale>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with the scales of all rows; with none when the weight does not need them.
pub(super) fn with_scales(
    rows: usize,
    weight: &Panels,
    product: &impl Product,
    f: impl FnOnce(&[Scale]),
) {
    let Some(limit) = weight.operands().limit() else {
        return f(&[]);
    };
    let mut scales = SCALES.take();
    scales.resize(rows, Scale::default());
    let tasks = scales.par_chunks_mut(ROWS).enumerate();
    tasks.for_each(|(task, scales)| {
        for (row, scale) in scales.iter_mut().enumerate() {
            *scale = row_scale(task * ROWS + row, weight.k(), limit, product);
        }
    });
    f(&scales);
    SCALES.set(scales);
}

fn row_scale(row: usize, k: usize, limit: f32, product: &impl Product) -> Scale {
    let (mut largest, mut terms) = (0, [0.0; DEPTH]);
    for first in (0..k).step_by(DEPTH) {
        let count = DEPTH.min(k - first);
        product.pack(row, first..first + count, &mut terms[..count]);
        raise(&mut largest, &terms[..count]);
    }
    Scale::of(largest, limit)
}

multiversion! {
    /// Raises `largest` to the bits of the largest magnitude of `row`.
    fn raise(largest: &mut u32, row: &[f32]) {
        *largest = raised(*largest, row);
    }
}
