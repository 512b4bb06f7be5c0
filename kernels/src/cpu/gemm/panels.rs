//! Weights in the layout that the micro-tiles read: panels of 16 output columns.
//!
//! Invariants: the layout is the same for every instruction set; columns behind the last are zero.
//! Refused: sizes whose product does not fit the address space.

use std::ops::Range;

use rayon::prelude::*;

use crate::KernelError;
use crate::cpu::pages::Pages;
use crate::cpu::{bf16, check, int8};
use crate::f8e4m3;
use crate::scale::{Scale, raised};

/// Columns of a panel: one AVX-512 register, two of AVX2.
pub(in crate::cpu) const LANES: usize = 16;

/// Terms that are summed at most before they are added to the result: a panel of that many lines stays
/// in the first-level cache.
pub(super) const DEPTH: usize = 512;

/// What the terms of a product are rounded to before they are multiplied; sums are f32, or exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// Nothing is rounded.
    F32,
    /// Weights when they are packed, inputs when they are copied.
    Bf16,
    /// Integers of 8 bits with a scale for each column of the weight and each row of the input, when
    /// they are packed and copied; sums are exact in 32 bits.
    I8,
    /// Numbers of FP8 (E4M3) with such scales, multiplied as bf16.
    F8E4M3,
}

impl Operands {
    /// Terms of a block, [`DEPTH`] at most.
    #[inline(always)]
    pub(in crate::cpu) const fn depth(self) -> usize {
        match self {
            Operands::F32 | Operands::Bf16 | Operands::F8E4M3 => 256,
            // Their sums are exact, so that blocks may be as large as the cache allows.
            Operands::I8 => 512,
        }
    }

    /// Lines that hold so many terms of a panel; pairs of bf16 and quads of integers share one.
    #[inline(always)]
    pub(super) fn lines(self, terms: usize) -> usize {
        match self {
            Operands::F32 => terms,
            Operands::Bf16 | Operands::F8E4M3 => terms.div_ceil(2),
            Operands::I8 => terms.div_ceil(4),
        }
    }

    /// The largest number of 8 bits, to which rows are scaled; absent where nothing is scaled.
    pub(super) fn limit(self) -> Option<f32> {
        match self {
            Operands::F32 | Operands::Bf16 => None,
            Operands::I8 => Some(int8::LIMIT),
            Operands::F8E4M3 => Some(f8e4m3::LARGEST),
        }
    }
}

/// The elements of one row in one panel, of a pair of rows in bf16 or of four in integers; a cache line,
/// and aligned to one.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Line(pub(in crate::cpu) [f32; LANES]);

/// The elements of consecutive lines.
pub(in crate::cpu) fn flat(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is exactly 16 f32 without padding, 64 bytes of alignment 64.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// The elements of consecutive lines, for reading.
pub(super) fn elements(lines: &[Line]) -> &[f32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

/// The lines of zeroed or filled pages.
fn lines_of(pages: &Pages) -> &[Line] {
    let bytes = pages.bytes();
    if bytes.is_empty() {
        return &[];
    }
    // SAFETY: pages are aligned to more than a line, which any bytes are.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<Line>()) }
}

/// As [`lines_of`], to be changed.
fn lines_of_mut(pages: &mut Pages) -> &mut [Line] {
    let bytes = pages.bytes_mut();
    if bytes.is_empty() {
        return &mut [];
    }
    let count = bytes.len() / size_of::<Line>();
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), count) }
}

/// A weight `[n, k]` as `[k / 256][n / 16][256][16]`, so that a block of terms is read in one go; the
/// last block of terms is shorter. In bf16 a line holds two terms, `[k / 256][n / 16][128][16][2]`, and
/// of integers four, `[k / 512][n / 16][128][16][4]`.
#[derive(Debug)]
pub(in crate::cpu) struct Panels {
    n: usize,
    k: usize,
    operands: Operands,
    lines: Pages,
    columns: Columns,
}

/// What belongs to the columns of a weight of 8 bits; empty for other weights.
#[derive(Debug, Default)]
struct Columns {
    /// What the sums are multiplied by.
    factors: Vec<f32>,
    /// What the sums of integers have too much when the input is unsigned.
    excess: Vec<i32>,
}

impl Panels {
    /// Packs the weight `[n, k]` whose row of a number `read` writes.
    pub(in crate::cpu) fn pack(
        kernel: &'static str,
        operands: Operands,
        [n, k]: [usize; 2],
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, KernelError> {
        let panels = n.div_ceil(LANES);
        // A block but the last has an even number of terms.
        let shape = [panels, operands.lines(k), size_of::<Line>()];
        let bytes = check::product(kernel, "n, k", &shape)?;
        if bytes > isize::MAX as usize {
            let expected = "small enough for the address space";
            let found = format!("{n}, {k}");
            return Err(check::argument(kernel, "n, k", expected, found));
        }
        if operands == Operands::I8 && k > int8::MAX_TERMS {
            let expected = format!("at most {} in integers of 8 bits", int8::MAX_TERMS);
            return Err(check::argument(kernel, "k", expected, k.to_string()));
        }
        let mut lines =
            Pages::zeroed(bytes).map_err(|_| KernelError::OutOfMemory { kernel, bytes })?;
        let columns: Vec<Columns> = by_panel(lines_of_mut(&mut lines), operands, panels)
            .into_par_iter()
            .enumerate()
            .map_init(
                || Rows::new(k),
                |rows, (panel, blocks)| {
                    let columns = panel * LANES..n.min((panel + 1) * LANES);
                    rows.read(columns, &read);
                    rows.pack(operands, blocks)
                },
            )
            .collect();
        Ok(Self {
            n,
            k,
            operands,
            lines,
            columns: Columns {
                factors: columns.iter().flat_map(|c| &c.factors).copied().collect(),
                excess: columns.iter().flat_map(|c| &c.excess).copied().collect(),
            },
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
        let Columns { factors, excess } = &self.columns;
        self.lines.bytes().len() + size_of_val(&**factors) + size_of_val(&**excess)
    }

    /// What the sums of some columns of 8 bits are multiplied by.
    pub(super) fn factors(&self, columns: Range<usize>) -> &[f32] {
        &self.columns.factors[columns]
    }

    /// What the sums of integers of some columns have too much when the input is unsigned.
    pub(super) fn excess(&self, columns: Range<usize>) -> &[i32] {
        &self.columns.excess[columns]
    }

    /// What the terms are rounded to.
    pub(super) fn operands(&self) -> Operands {
        self.operands
    }

    /// The lines of a block of terms from a panel on, to the end of the weight.
    pub(in crate::cpu) fn lines(&self, block: Range<usize>, panel: usize) -> &[Line] {
        let (before, own) = (
            self.operands.lines(block.start),
            self.operands.lines(block.len()),
        );
        &lines_of(&self.lines)[before * self.n.div_ceil(LANES) + own * panel..]
    }
}

/// The lines of every panel, a slice for each block of terms.
fn by_panel(lines: &mut [Line], operands: Operands, panels: usize) -> Vec<Vec<&mut [Line]>> {
    let mut all: Vec<Vec<_>> = (0..panels).map(|_| Vec::new()).collect();
    let block = operands.lines(operands.depth()) * panels;
    for block in lines.chunks_mut(block.max(1)) {
        let own = block.len() / panels;
        for (panel, lines) in all.iter_mut().zip(block.chunks_exact_mut(own)) {
            panel.push(lines);
        }
    }
    all
}

/// The rows of a weight that become the columns of a panel.
struct Rows {
    k: usize,
    /// Elements between rows, which are followed by zeros: so far apart that they share no cache sets.
    stride: usize,
    count: usize,
    elements: Vec<f32>,
}

impl Rows {
    fn new(k: usize) -> Self {
        let stride = (k.div_ceil(LANES) | 1) * LANES;
        Self {
            k,
            stride,
            count: 0,
            elements: vec![0.0; LANES * stride],
        }
    }

    fn read(&mut self, rows: Range<usize>, read: &impl Fn(usize, &mut [f32])) {
        self.count = rows.len();
        for (row, elements) in rows.zip(self.elements.chunks_exact_mut(self.stride)) {
            read(row, &mut elements[..self.k]);
        }
    }

    /// Fills the lines of a panel with the rows, rounded; columns and terms behind the last are zero.
    fn pack(&mut self, operands: Operands, blocks: Vec<&mut [Line]>) -> Columns {
        match operands {
            Operands::F32 => {
                self.interleave::<1>(operands, blocks, |_, [x]| x);
                Columns::default()
            }
            Operands::Bf16 => {
                self.interleave::<2>(operands, blocks, |_, [a, b]| bf16::pair(a, b));
                Columns::default()
            }
            Operands::F8E4M3 => {
                let scales = self.scales(f8e4m3::LARGEST);
                self.interleave::<2>(operands, blocks, |lane, pair| {
                    let [a, b] = pair.map(|x| f8e4m3::nearest(x * scales[lane].inverse));
                    bf16::pair(a, b)
                });
                Columns::new(&scales, Vec::new())
            }
            Operands::I8 => {
                let scales = self.scales(int8::LIMIT);
                self.interleave::<4>(operands, blocks, |lane, quad| {
                    let bytes = quad.map(|x| int8::round(x, scales[lane].inverse) as u8);
                    f32::from_bits(u32::from_le_bytes(bytes))
                });
                let rows = self.elements.chunks_exact(self.stride).zip(&scales);
                let excess = rows.map(|(row, scale)| {
                    int8::excess(row.iter().map(|&x| int8::round(x, scale.inverse)))
                });
                let excess = excess.collect();
                Columns::new(&scales, excess)
            }
        }
    }

    /// Writes `element(column, terms)` for every `TERMS` terms of every column.
    #[inline(always)]
    fn interleave<const TERMS: usize>(
        &self,
        operands: Operands,
        blocks: Vec<&mut [Line]>,
        element: impl Fn(usize, [f32; TERMS]) -> f32,
    ) {
        let depth = operands.depth();
        for (block, lines) in blocks.into_iter().enumerate() {
            for lane in 0..self.count {
                let terms = &self.elements[lane * self.stride + block * depth..];
                for (line, &terms) in lines.iter_mut().zip(terms.as_chunks().0) {
                    line.0[lane] = element(lane, terms);
                }
            }
        }
    }

    fn scales(&self, limit: f32) -> Vec<Scale> {
        let rows = self.elements.chunks_exact(self.stride).take(self.count);
        rows.map(|row| Scale::of(raised(0, row), limit)).collect()
    }
}

impl Columns {
    fn new(scales: &[Scale], excess: Vec<i32>) -> Self {
        Self {
            factors: scales.iter().map(|scale| scale.factor).collect(),
            excess,
        }
    }
}
