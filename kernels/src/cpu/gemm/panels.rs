//! Weights in the layout that the micro-tiles read: panels of 16 output columns.
//!
//! Invariants: the layout is the same for every instruction set; columns behind the last are zero.
//! Refused: sizes whose product does not fit the address space.

use std::ops::Range;

use rayon::prelude::*;

use crate::KernelError;
use crate::cpu::check;

/// Columns of a panel: one AVX-512 register, two of AVX2.
pub(in crate::cpu) const LANES: usize = 16;

/// Terms that are summed before they are added to the result: a panel of that many lines stays in the
/// first-level cache.
pub(super) const DEPTH: usize = 256;

/// The elements of one row in one panel; a cache line, and aligned to one.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Line(pub(in crate::cpu) [f32; LANES]);

/// The elements of consecutive lines.
pub(in crate::cpu) fn flat(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is exactly 16 f32 without padding, 64 bytes of alignment 64.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// A weight `[n, k]` as `[k / 256][n / 16][256][16]`, so that a block of terms is read in one go; the
/// last block of terms is shorter.
#[derive(Debug)]
pub(in crate::cpu) struct Panels {
    n: usize,
    k: usize,
    lines: Box<[Line]>,
}

impl Panels {
    /// Packs the weight whose element (column, k) is `at(column, k)`.
    pub(in crate::cpu) fn pack(
        kernel: &'static str,
        n: usize,
        k: usize,
        at: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Result<Self, KernelError> {
        let panels = n.div_ceil(LANES);
        let bytes = check::product(kernel, "n, k", &[panels, k, size_of::<Line>()])?;
        if bytes > isize::MAX as usize {
            let expected = "small enough for the address space";
            return Err(check::argument(
                kernel,
                "n, k",
                expected,
                format!("{n}, {k}"),
            ));
        }
        let mut lines = vec![Line([0.0; LANES]); panels * k];
        let pack_panel = |block: usize, panel: usize, lines: &mut [Line]| {
            let first = panel * LANES;
            for lane in 0..LANES.min(n - first) {
                for (k, line) in (block * DEPTH..).zip(lines.iter_mut()) {
                    line.0[lane] = at(first + lane, k);
                }
            }
        };
        if !lines.is_empty() {
            let blocks = lines.par_chunks_mut(DEPTH * panels).enumerate();
            blocks.for_each(|(block, lines)| {
                let panels = lines.par_chunks_exact_mut(lines.len() / panels);
                panels
                    .enumerate()
                    .for_each(|(panel, lines)| pack_panel(block, panel, lines));
            });
        }
        Ok(Self {
            n,
            k,
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

    /// The lines of a block of terms from a panel on, to the end of the weight.
    pub(super) fn lines(&self, block: Range<usize>, panel: usize) -> &[Line] {
        let panels = self.n.div_ceil(LANES);
        &self.lines[block.start * panels + block.len() * panel..]
    }
}
