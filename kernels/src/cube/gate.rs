//! Residual additions: plain, and with an adaptive gate.
//!
//! Invariants: elementwise, so independent of any cut. Refused: operands whose lengths or element
//! types disagree, and gate offsets outside their data.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::operand::{Operand, width};
use super::segments::{Mods, gate_vector};
use crate::{GateSegment, KernelError, check};

/// Units of a cube.
const UNITS: usize = 256;

/// y = residual + gate * x over rows, all of shape `[batch, sum of the segments' rows, width]`; `y` may
/// be `residual` or `x` itself. See [`cpu::GateAdd`](crate::cpu::GateAdd).
#[derive(Debug, Clone)]
pub struct GateAdd<'a, B> {
    /// Batch items.
    pub batch: usize,
    /// Elements of a row.
    pub width: usize,
    /// Consecutive ranges of rows and where their gate lies.
    pub segments: &'a [GateSegment],
    /// Gate vectors.
    pub mods: Mods<B>,
    /// What is added to.
    pub residual: Operand<B>,
    /// What is gated.
    pub x: Operand<B>,
    /// Output.
    pub y: Operand<B>,
}

/// y = a + b, elementwise; `y` may be `a` or `b` itself.
#[derive(Debug, Clone)]
pub struct Add<B> {
    /// First term.
    pub a: Operand<B>,
    /// Second term.
    pub b: Operand<B>,
    /// Sum.
    pub y: Operand<B>,
}

impl<B: Clone> GateAdd<'_, B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an offset or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "gate_add";
        let Self { residual, x, y, .. } = self;
        let rows = check::sum(KERNEL, "segments", self.segments.iter().map(|s| s.rows))?;
        let shape = [self.batch, rows, self.width];
        let all = check::product(KERNEL, "batch, rows, width", &shape)?;
        for (name, operand) in [("residual", residual), ("x", x), ("y", y)] {
            operand.length(KERNEL, name, all)?;
        }
        let offsets = || self.segments.iter().map(|s| s.gate);
        self.mods.check(KERNEL, self.batch, self.width, offsets())?;
        let data = &self.mods.data;
        let others = [("x", x), ("y", y), ("mods.data", data)];
        let element = same_element(KERNEL, ("residual", residual), &others)?;
        let begins = [residual, x, y, data].map(|operand| operand.offset);
        let sizes = [self.width, self.mods.stride];
        let n = width(begins.into_iter().chain(sizes).chain(offsets()));
        let kernel = gate_add::GateAdd::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            list(4),
            (),
            (),
            (),
            (),
            list(2 * self.segments.len()),
            n,
            self.segments.len(),
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(residual, n)
            .array(x, n)
            .array(data, n)
            .array(y, n)
            .u32s([all / n, self.width / n, rows, self.mods.stride / n])
            .u32s(self.segments.iter().flat_map(|s| [s.rows, s.gate / n]))
            .over(line((all / n).div_ceil(UNITS)), kernel)
    }
}

impl<B: Clone> Add<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when the operands differ in length or element type.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "add";
        let Self { a, b, y } = self;
        b.length(KERNEL, "b", a.len)?;
        y.length(KERNEL, "y", a.len)?;
        let element = same_element(KERNEL, ("a", a), &[("b", b), ("y", y)])?;
        let n = width([a.len, a.offset, b.offset, y.offset]);
        let count = a.len / n;
        let kernel = add::Add::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            (),
            n,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(a, n)
            .array(b, n)
            .array(y, n)
            .u32(count)
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

#[cube(launch_unchecked)]
fn gate_add<E: Float, N: Size>(
    residual: &mut Array<Vector<E, N>>,
    x: &mut Array<Vector<E, N>>,
    mods: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    count: u32,
    width: u32,
    item_rows: u32,
    stride: u32,
    segments: &Sequence<u32>,
    #[comptime] segment_count: usize,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let (row, column) = (i / width as usize, i % width as usize);
        let item = item_rows as usize;
        let offset = gate_vector(segments, segment_count, (row % item) as u32);
        let vector = row / item * stride as usize + offset as usize + column;
        let gate = Vector::<f32, N>::cast_from(mods[lead[2] as usize + vector]);
        let value = Vector::<f32, N>::cast_from(x[lead[1] as usize + i]);
        let base = Vector::<f32, N>::cast_from(residual[lead[0] as usize + i]);
        let to = lead[3] as usize + i;
        y[to] = Vector::<E, N>::cast_from(base + gate * value);
    }
}

#[cube(launch_unchecked)]
fn add<E: Float, N: Size>(
    a: &mut Array<Vector<E, N>>,
    b: &mut Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    count: u32,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let a = Vector::<f32, N>::cast_from(a[lead[0] as usize + i]);
        let b = Vector::<f32, N>::cast_from(b[lead[1] as usize + i]);
        let to = lead[2] as usize + i;
        y[to] = Vector::<E, N>::cast_from(a + b);
    }
}
