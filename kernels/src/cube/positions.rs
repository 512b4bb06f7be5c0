//! Position tables of the video tokens: 3-D sines and cosines, or rotary angles.
//!
//! The angles need f64, which few devices have. They depend on the sizes alone, and each on one axis:
//! the host computes a small table per axis as the CPU kernel does, once, and the device spreads these
//! over the cells. Invariants: the bits of the CPU kernel; a row depends on its own (t, h, w) only.
//! Refused: odd dimensions, an empty grid row with cells, operands whose lengths or element types
//! disagree.

use std::ops::Range;

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::operand::{Element, Operand};
use crate::cpu::positions::AxisTable;
use crate::cpu::{self, Axis, GridAxis, PositionKind};
use crate::{KernelError, check};

const KERNEL: &str = "position_table";

/// Units of a cube.
const UNITS: usize = 256;

/// What a position table holds; see [`cpu::PositionTable`].
#[derive(Debug, Clone, PartialEq)]
pub struct PositionShape {
    /// What is tabulated.
    pub kind: PositionKind,
    /// Consecutive column blocks of a row.
    pub columns: Vec<Axis>,
    /// Positions in time.
    pub t: usize,
    /// Cells of a raster row.
    pub grid_w: usize,
    /// The cells of the raster that the table holds.
    pub cells: Range<usize>,
    /// Leading rows of zeros, for text.
    pub zero_rows: usize,
}

/// What the host computes for a position table, constant for its sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionConstants {
    /// For each column its axis (0: time, 1: row, 2: column), its first entry, and the entries from one
    /// position of the axis to the next.
    pub map: Vec<u32>,
    /// Sines and cosines of every axis.
    pub entries: Vec<f32>,
}

impl PositionShape {
    /// The host's part; empty when no row but those of zeros exists.
    ///
    /// # Errors
    /// [`KernelError`] when an argument does not fit.
    pub fn constants(&self) -> Result<PositionConstants, KernelError> {
        let [width, _] = self.sizes()?;
        let (mut map, mut entries) = (Vec::new(), Vec::new());
        if width == 0 || self.t == 0 || self.cells.is_empty() {
            return Ok(PositionConstants { map, entries });
        }
        let halves = self.kind.halves();
        let mut firsts = Vec::new();
        for axis in &self.columns {
            firsts.push(entries.len());
            let table = AxisTable::new(self.kind, axis, self.t, self.grid_w, &self.cells);
            entries.extend(table.values);
        }
        for half in 0..halves {
            for (axis, first) in self.columns.iter().zip(&firsts) {
                for column in 0..axis.dim {
                    let axis_number = match axis.axis {
                        GridAxis::T => 0,
                        GridAxis::H => 1,
                        GridAxis::W => 2,
                    };
                    let entry = first + half * axis.dim + column;
                    let step = halves * axis.dim;
                    map.extend([axis_number, entry, step].map(|number| number as u32));
                }
            }
        }
        Ok(PositionConstants { map, entries })
    }

    /// Elements of a row and of all rows.
    fn sizes(&self) -> Result<[usize; 2], KernelError> {
        let table = cpu::PositionTable {
            kind: self.kind,
            columns: &self.columns,
            t: self.t,
            grid_w: self.grid_w,
            cells: self.cells.clone(),
            zero_rows: self.zero_rows,
            out: &mut [],
        };
        table.sizes()
    }

    /// Entries of the host's table.
    fn entries(&self) -> Result<usize, KernelError> {
        let rows = |axis: &Axis| match axis.axis {
            GridAxis::T => self.t,
            GridAxis::H => (self.cells.end - 1) / self.grid_w - self.cells.start / self.grid_w + 1,
            GridAxis::W => self.cells.len().min(self.grid_w),
        };
        let halves = self.kind.halves();
        let sizes = self
            .columns
            .iter()
            .map(|axis| rows(axis) * halves * axis.dim);
        check::sum(KERNEL, "columns", sizes)
    }
}

/// A table with `zero_rows` rows of zeros, then a row for each `t` and, within it, each cell.
#[derive(Debug, Clone)]
pub struct PositionTable<B> {
    /// What the table holds.
    pub shape: PositionShape,
    /// [`PositionConstants::map`], u32.
    pub map: Operand<B>,
    /// [`PositionConstants::entries`], f32.
    pub entries: Operand<B>,
    /// `[zero_rows + t * cells, width]` f32.
    pub y: Operand<B>,
}

impl<B: Clone> PositionTable<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an argument or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self {
            shape,
            map,
            entries,
            y,
        } = self;
        let [width, total] = shape.sizes()?;
        map.is(KERNEL, "map", Element::U32)?;
        entries.is(KERNEL, "entries", Element::F32)?;
        y.is(KERNEL, "y", Element::F32)?;
        y.length(KERNEL, "y", total)?;
        let placed = total > shape.zero_rows * width;
        if placed {
            map.length(
                KERNEL,
                "map",
                check::product(KERNEL, "columns", &[width, 3])?,
            )?;
            entries.length(KERNEL, "entries", shape.entries()?)?;
        }
        let kernel = spread::Spread::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            list(6),
        );
        let cells = &shape.cells;
        let first_column = cells.start.checked_rem(shape.grid_w).unwrap_or(0);
        Builder::new(KERNEL, device)
            .maybe(placed.then_some(map), y, 1)
            .maybe(placed.then_some(entries), y, 1)
            .array(y, 1)
            .u32s([total, width, shape.zero_rows])
            .u32s([cells.len(), shape.grid_w, first_column])
            .over(line(total.div_ceil(UNITS)), kernel)
    }
}

/// `sizes`: elements of the result, of a row, rows of zeros, cells, cells of a raster row, column of the
/// first cell.
#[cube(launch_unchecked)]
fn spread(
    map: &Array<u32>,
    entries: &Array<f32>,
    y: &mut Array<f32>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (row, column) = (i as u32 / sizes[1], i as u32 % sizes[1]);
        let mut value = 0.0f32;
        if row >= sizes[2] {
            let (time, cell) = ((row - sizes[2]) / sizes[3], (row - sizes[2]) % sizes[3]);
            let at = lead[0] as usize + column as usize * 3;
            let in_row = select(map[at] == 1, (sizes[5] + cell) / sizes[4], cell % sizes[4]);
            let place = select(map[at] == 0, time, in_row);
            let entry = map[at + 1] + place * map[at + 2];
            value = entries[lead[1] as usize + entry as usize];
        }
        let to = lead[2] as usize + i;
        y[to] = value;
    }
}
