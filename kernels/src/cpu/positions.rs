//! Position tables of the video tokens: 3-D sines and cosines, or rotary angles.
//!
//! Invariants: a table row depends on its own (t, h, w) only, so a rank computes just the rows of its
//! cells and gets the same bits as one that computes all. Refused: odd dimensions, an empty grid row
//! with cells, operands whose lengths disagree.
//!
//! The 3-D sin-cos embedding of diffusers 0.42 (`get_3d_sincos_pos_embed`) is the columns T (D/4), W
//! (3D/8), H (3D/8): its 2-D grid puts w first. Its rotary table (`get_3d_rotary_pos_embed`) is the
//! columns T (D/4), H (3D/8), W (3D/8).

use std::ops::Range;

use super::check;
use super::split::for_rows;
use crate::KernelError;

const KERNEL: &str = "position_table";

/// A table with `zero_rows` rows of zeros, then a row for each `t` and, within it, each cell.
///
/// Cell `i` of the raster lies at `h = i / grid_w`, `w = i % grid_w`. A row has the sum of the columns'
/// dimensions as its width, for rotary tables twice that: cosines, then sines.
#[derive(Debug)]
pub struct PositionTable<'a> {
    /// What is tabulated.
    pub kind: PositionKind,
    /// Consecutive column blocks of a row.
    pub columns: &'a [Axis],
    /// Positions in time.
    pub t: usize,
    /// Cells of a raster row.
    pub grid_w: usize,
    /// The cells of the raster that the table holds.
    pub cells: Range<usize>,
    /// Leading rows of zeros, for text.
    pub zero_rows: usize,
    /// `[zero_rows + t * cells, width]`.
    pub out: &'a mut [f32],
}

/// What a position table holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PositionKind {
    /// Per column `[sin | cos]` of `pos * 10000^(-i / (dim / 2))`, in f64.
    SinCos,
    /// Angles `pos / theta^(2 i / dim)`, each twice in a row, with f32 frequencies and angles.
    Rotary {
        /// Base of the frequencies.
        theta: f64,
    },
}

impl PositionKind {
    /// Tables side by side in a row.
    pub(crate) fn halves(self) -> usize {
        match self {
            Self::SinCos => 1,
            Self::Rotary { .. } => 2,
        }
    }
}

/// A column block: one grid axis at `position = start + index * step`, rounded to f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// The axis that gives the index.
    pub axis: GridAxis,
    /// Columns of the block, even.
    pub dim: usize,
    /// Position of index 0.
    pub start: f64,
    /// Distance between neighbours.
    pub step: f64,
}

/// An axis of the token grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GridAxis {
    /// Time.
    T,
    /// Height, the raster row.
    H,
    /// Width, the raster column.
    W,
}

impl PositionTable<'_> {
    /// Computes `out`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an argument does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let [width, total] = self.sizes()?;
        check::length(KERNEL, "out", total, self.out.len())?;
        let Self {
            kind,
            columns,
            t,
            grid_w,
            cells,
            zero_rows,
            out,
        } = self;
        let (zeros, video) = out.split_at_mut(zero_rows * width);
        zeros.fill(0.0);
        if video.is_empty() {
            return Ok(());
        }
        let first_h = cells.start / grid_w;
        let table = |axis| AxisTable::new(kind, axis, t, grid_w, &cells);
        let tables: Vec<AxisTable> = columns.iter().map(table).collect();
        for_rows(video, width, |row, out| {
            let (time, cell) = (row / cells.len(), row % cells.len());
            let halves = kind.halves();
            for (half, out) in out.chunks_exact_mut(width / halves).enumerate() {
                let mut rest = out;
                for table in &tables {
                    let index = match table.axis {
                        GridAxis::T => time,
                        GridAxis::H => (cells.start + cell) / grid_w - first_h,
                        GridAxis::W => cell % grid_w,
                    };
                    let (block, tail) = rest.split_at_mut(table.dim);
                    block.copy_from_slice(table.row(index * halves + half));
                    rest = tail;
                }
            }
        });
        Ok(())
    }

    /// Checks every argument but the output; returns the width of a row and the elements of all rows.
    pub(crate) fn sizes(&self) -> Result<[usize; 2], KernelError> {
        if self.cells.start > self.cells.end {
            let found = format!("{:?}", self.cells);
            return Err(check::argument(
                KERNEL,
                "cells",
                "a range that does not run backwards",
                found,
            ));
        }
        let cells = self.cells.len();
        if cells > 0 && self.grid_w == 0 {
            return Err(check::argument(KERNEL, "grid_w", "at least 1", "0"));
        }
        if let Some(axis) = self.columns.iter().find(|axis| axis.dim % 2 == 1) {
            return Err(check::argument(
                KERNEL,
                "columns.dim",
                "even",
                axis.dim.to_string(),
            ));
        }
        if let PositionKind::Rotary { theta } = self.kind
            && !(theta.is_finite() && theta > 0.0)
        {
            let found = theta.to_string();
            return Err(check::argument(
                KERNEL,
                "theta",
                "finite and positive",
                found,
            ));
        }
        let columns = check::sum(KERNEL, "columns", self.columns.iter().map(|axis| axis.dim))?;
        let width = check::product(KERNEL, "columns", &[self.kind.halves(), columns])?;
        let video_rows = check::product(KERNEL, "t, cells", &[self.t, cells])?;
        let rows = check::sum(KERNEL, "zero_rows", [self.zero_rows, video_rows])?;
        let total = check::product(KERNEL, "rows, columns", &[rows, width])?;
        Ok([width, total])
    }
}

/// The rows of one column block for every index that the cells use: `halves` rows of `dim` each.
pub(crate) struct AxisTable {
    pub axis: GridAxis,
    pub dim: usize,
    pub values: Vec<f32>,
}

impl AxisTable {
    /// Tabulates only indices that occur, so the size is bounded by that of the output: W starts at
    /// the first cell's column and wraps around, H starts at the first cell's row.
    pub fn new(
        kind: PositionKind,
        axis: &Axis,
        t: usize,
        grid_w: usize,
        cells: &Range<usize>,
    ) -> Self {
        let indices: Vec<usize> = match axis.axis {
            GridAxis::T => (0..t).collect(),
            GridAxis::H => (cells.start / grid_w..=(cells.end - 1) / grid_w).collect(),
            GridAxis::W => {
                let first = cells.start % grid_w;
                let wrap = grid_w - first;
                let count = cells.len().min(grid_w);
                (0..count)
                    .map(|i| if i < wrap { first + i } else { i - wrap })
                    .collect()
            }
        };
        let mut values = Vec::new();
        for index in indices {
            let position = (axis.start + index as f64 * axis.step) as f32;
            match kind {
                PositionKind::SinCos => sin_cos(position, axis.dim, &mut values),
                PositionKind::Rotary { theta } => rotary(position, axis.dim, theta, &mut values),
            }
        }
        Self {
            axis: axis.axis,
            dim: axis.dim,
            values,
        }
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }
}

/// Appends the sines, then the cosines, of one position.
fn sin_cos(position: f32, dim: usize, values: &mut Vec<f32>) {
    let half = dim / 2;
    let angle = |i: usize| {
        let omega = 1.0 / libm::pow(10_000.0, i as f64 / half as f64);
        f64::from(position) * omega
    };
    values.extend((0..half).map(|i| libm::sin(angle(i)) as f32));
    values.extend((0..half).map(|i| libm::cos(angle(i)) as f32));
}

/// Appends the cosines, then the sines, of one position, each angle twice in a row.
fn rotary(position: f32, dim: usize, theta: f64, values: &mut Vec<f32>) {
    let angle = |column: usize| {
        let exponent = (column / 2 * 2) as f32 / dim as f32;
        let frequency = 1.0 / (libm::pow(theta, f64::from(exponent)) as f32);
        f64::from(position * frequency)
    };
    values.extend((0..dim).map(|column| libm::cos(angle(column)) as f32));
    values.extend((0..dim).map(|column| libm::sin(angle(column)) as f32));
}
