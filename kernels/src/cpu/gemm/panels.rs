//! Weights in the layout that the micro-tiles read: panels of 16 output columns.
//!
//! Invariants: the layout is the same for every instruction set; columns behind the last are zero.
//! Refused: sizes whose product does not fit the address space.

use std::ops::Range;

use rayon::prelude::*;

use crate::KernelError;
use crate::cpu::{bf16, check};

/// Columns of a panel: one AVX-512 register, two of AVX2.
pub(in crate::cpu) const LANES: usize = 16;

/// Terms that are summed before they are added to the result: a panel of that many lines stays in the
/// first-level cache.
pub(super) const DEPTH: usize = 256;

/// What the terms of a product are rounded to before they are multiplied; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) enum Precision {
    /// Nothing is rounded.
    F32,
    /// Weights when they are packed, inputs when they are copied.
    Bf16,
}

impl Precision {
    /// Lines that hold so many terms of a panel; pairs of bf16 share one.
    #[inline(always)]
    pub(super) fn lines(self, terms: usize) -> usize {
        match self {
            Precision::F32 => terms,
            Precision::Bf16 => terms.div_ceil(2),
        }
    }
}

/// The elements of one row in one panel, or of a pair of rows in bf16; a cache line, and aligned to one.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Line(pub(in crate::cpu) [f32; LANES]);

/// The elements of consecutive lines.
pub(in crate::cpu) fn flat(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is exactly 16 f32 without padding, 64 bytes of alignment 64.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// A weight `[n, k]` as `[k / 256][n / 16][256][16]`, so that a block of terms is read in one go; the
/// last block of terms is shorter. In bf16 a line holds two terms, `[k / 256][n / 16][128][16][2]`.
#[derive(Debug)]
pub(in crate::cpu) struct Panels {
    n: usize,
    k: usize,
    precision: Precision,
    lines: Box<[Line]>,
}

impl Panels {
    /// Packs the weight whose element (column, k) is `at(column, k)`.
    pub(in crate::cpu) fn pack(
        kernel: &'static str,
        precision: Precision,
        [n, k]: [usize; 2],
        at: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Result<Self, KernelError> {
        let panels = n.div_ceil(LANES);
        // A block but the last has an even number of terms.
        let shape = [panels, precision.lines(k), size_of::<Line>()];
        let bytes = check::product(kernel, "n, k", &shape)?;
        if bytes > isize::MAX as usize {
            let expected = "small enough for the address space";
            let found = format!("{n}, {k}");
            return Err(check::argument(kernel, "n, k", expected, found));
        }
        let mut lines = vec![Line([0.0; LANES]); bytes / size_of::<Line>()];
        if !lines.is_empty() {
            let block = precision.lines(DEPTH) * panels;
            let blocks = lines.par_chunks_mut(block).enumerate();
            blocks.for_each(|(block, lines)| {
                let count = lines.len() / panels;
                let panels = lines.par_chunks_exact_mut(count).enumerate();
                panels.for_each(|(panel, lines)| {
                    let columns = panel * LANES..n.min((panel + 1) * LANES);
                    pack_panel(precision, columns, block * DEPTH..k, &at, lines);
                });
            });
        }
        Ok(Self {
            n,
            k,
            precision,
            lines: lines.into_boxed_slice(),
        })
    }

    /// Output columns.
    pub(in crate::cpu) fn n(&self) -> usize {
        self.n
    }

    /// Input columns.
    pub(in crate::cpu) fn k(&self) -> usize {
        self.k
    }

    /// Bytes of the packed weight.
    pub(in crate::cpu) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// What the terms are rounded to.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// The lines of a block of terms from a panel on, to the end of the weight.
    pub(super) fn lines(&self, block: Range<usize>, panel: usize) -> &[Line] {
        let (before, own) = (
            self.precision.lines(block.start),
            self.precision.lines(block.len()),
        );
        &self.lines[before * self.n.div_ceil(LANES) + own * panel..]
    }
}

/// Fills the lines of a panel's block with the terms from `terms.start` on; terms behind the last are
/// zero.
fn pack_panel(
    precision: Precision,
    columns: Range<usize>,
    terms: Range<usize>,
    at: &impl Fn(usize, usize) -> f32,
    lines: &mut [Line],
) {
    for (lane, column) in columns.enumerate() {
        match precision {
            Precision::F32 => {
                for (k, line) in terms.clone().zip(lines.iter_mut()) {
                    line.0[lane] = at(column, k);
                }
            }
            Precision::Bf16 => {
                for (k, line) in terms.clone().step_by(2).zip(lines.iter_mut()) {
                    let second = if k + 1 < terms.end {
                        at(column, k + 1)
                    } else {
                        0.0
                    };
                    line.0[lane] = bf16::pair(at(column, k), second);
                }
            }
        }
    }
}
