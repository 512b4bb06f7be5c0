//! Arguments that the kernels of every kind of device take: segments of rows, strided heads.
//!
//! Invariant: offsets and strides count elements, and are checked against the operand that they lead
//! into before a kernel runs.

use crate::KernelError;
use crate::check;

/// A range of rows that share a scale and a shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModSegment {
    /// Rows of the segment in each batch item.
    pub rows: usize,
    /// Offset of the shift in a batch item's modulation vector.
    pub shift: usize,
    /// Offset of the scale in a batch item's modulation vector.
    pub scale: usize,
}

/// A range of rows that share a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSegment {
    /// Rows of the segment in each batch item.
    pub rows: usize,
    /// Offset of the gate in a batch item's modulation vector.
    pub gate: usize,
}

/// Whether an attention step begins a running state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepStage {
    /// The state is written without being read.
    First,
    /// The state is merged into.
    Next,
}

/// `[batch, rows, heads, head_dim]` of a strided view of heads.
pub(crate) type HeadsShape = [usize; 4];

/// Modulation vectors as numbers: how many elements there are and how far batch items are apart.
#[derive(Clone, Copy)]
pub(crate) struct ModsShape {
    pub found: usize,
    pub stride: usize,
}

impl ModsShape {
    /// Refuses data that do not hold `width` values at each of `offsets` for every batch item.
    pub(crate) fn check(
        self,
        kernel: &'static str,
        batch: usize,
        width: usize,
        offsets: impl IntoIterator<Item = usize>,
    ) -> Result<(), KernelError> {
        let Self { found, stride } = self;
        let Some(last) = batch.checked_sub(1) else {
            return Ok(());
        };
        let start = check::product(kernel, "mods.stride", &[last, stride])?;
        for offset in offsets {
            let expected = check::sum(kernel, "segments", [start, offset, width])?;
            if found < expected {
                return Err(KernelError::Length {
                    kernel,
                    operand: "mods.data",
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// Refuses gate segments that do not add up to `rows` with `batch` items.
pub(crate) fn gate_rows(
    kernel: &'static str,
    batch: usize,
    segments: &[GateSegment],
    rows: usize,
) -> Result<(), KernelError> {
    let item = check::sum(kernel, "gate.segments", segments.iter().map(|s| s.rows))?;
    let total = check::product(kernel, "gate.batch, gate.segments", &[batch, item])?;
    if total == rows {
        return Ok(());
    }
    let expected = format!("batch x rows of the segments = {rows} rows");
    let found = format!("{batch} x {item}");
    Err(check::argument(kernel, "gate.segments", expected, found))
}

/// Refuses `found` elements that end before a view of heads with the strides of batch items, rows and
/// heads does.
pub(crate) fn heads_fit(
    kernel: &'static str,
    operand: &'static str,
    shape: HeadsShape,
    strides: [usize; 3],
    found: usize,
) -> Result<(), KernelError> {
    if shape.contains(&0) {
        return Ok(());
    }
    let mut last = [shape[3], 0, 0, 0];
    for (i, stride) in strides.into_iter().enumerate() {
        last[i + 1] = check::product(kernel, operand, &[shape[i] - 1, stride])?;
    }
    let expected = check::sum(kernel, operand, last)?;
    if found < expected {
        return Err(KernelError::Length {
            kernel,
            operand,
            expected,
            found,
        });
    }
    Ok(())
}

/// Refuses a view of heads, which has passed [`heads_fit`], that may have an element twice: each
/// dimension, the narrowest stride first, must step over all that the narrower ones span.
pub(crate) fn heads_apart(
    kernel: &'static str,
    operand: &'static str,
    shape: HeadsShape,
    strides: [usize; 3],
) -> Result<(), KernelError> {
    if shape.contains(&0) {
        return Ok(());
    }
    let mut steps = [0, 1, 2].map(|i| (strides[i], shape[i] - 1));
    steps.sort_unstable();
    let mut span = shape[3];
    for (stride, count) in steps.into_iter().filter(|&(_, count)| count > 0) {
        if stride < span {
            let expected = format!("strides that keep the elements of {shape:?} apart");
            let found = format!("{strides:?}");
            return Err(check::argument(kernel, operand, expected, found));
        }
        span += stride * count;
    }
    Ok(())
}
