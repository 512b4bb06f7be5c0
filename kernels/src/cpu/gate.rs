//! Residual additions: plain, and with an adaptive gate.
//!
//! Invariants: elementwise, so independent of any cut. Refused: operands whose lengths disagree, and
//! gate offsets outside their data.

use super::check;
use super::input::Input;
use super::segments::{Mods, locate};
use super::split::{for_blocks, for_rows, multiversion};
use crate::{GateSegment, KernelError};

/// y = residual + gate * x over rows, all of shape `[batch, sum of the segments' rows, width]`.
///
/// The gate of a row is the vector of its batch item at its segment's offset (diffusers 0.42,
/// `CogVideoXBlock`).
#[derive(Debug)]
pub struct GateAdd<'a> {
    /// Batch items.
    pub batch: usize,
    /// Elements of a row.
    pub width: usize,
    /// Consecutive ranges of rows and where their gate lies.
    pub segments: &'a [GateSegment],
    /// Gate vectors.
    pub mods: Mods<'a>,
    /// What is added to.
    pub residual: Input<'a>,
    /// What is gated.
    pub x: Input<'a>,
    /// Output.
    pub y: &'a mut [f32],
}

impl GateAdd<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an offset does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "gate_add";
        let rows = check::sum(KERNEL, "segments", self.segments.iter().map(|s| s.rows))?;
        let total = check::product(
            KERNEL,
            "batch, rows, width",
            &[self.batch, rows, self.width],
        )?;
        self.residual.check(KERNEL, "residual", total)?;
        self.x.check(KERNEL, "x", total)?;
        check::length(KERNEL, "y", total, self.y.len())?;
        let offsets = self.segments.iter().map(|s| s.gate);
        self.mods.check(KERNEL, self.batch, self.width, offsets)?;
        let Self {
            width,
            segments,
            mods,
            residual,
            x,
            y,
            ..
        } = self;
        for_rows(y, width, |row, out| {
            let segment = locate(segments.iter().map(|s| s.rows), row % rows);
            if let Some(index) = segment {
                let gate = mods.get(row / rows, segments[index].gate, width);
                with_both(residual, x, row * width, out, |residual, x, out| {
                    gate_row(out, residual, gate, x);
                });
            }
        });
        Ok(())
    }
}

/// y = a + b, elementwise.
///
/// # Errors
/// [`KernelError::Length`] when the operands differ in length; then nothing was written.
pub fn add(a: Input<'_>, b: Input<'_>, y: &mut [f32]) -> Result<(), KernelError> {
    let total = a.len_beside(y);
    b.check("add", "b", total)?;
    check::length("add", "y", total, y.len())?;
    for_blocks(y, |first, out| {
        with_both(a, b, first, out, |a, b, out| add_block(out, a, b));
    });
    Ok(())
}

/// [`Input::with`] of two inputs.
#[inline(always)]
fn with_both(
    a: Input<'_>,
    b: Input<'_>,
    first: usize,
    out: &mut [f32],
    f: impl FnOnce(&[f32], &[f32], &mut [f32]),
) {
    match (a, b) {
        (Input::InPlace, Input::InPlace) => a.with(first, out, |both, out| f(both, both, out)),
        (Input::InPlace, Input::Apart(b)) => {
            let b = &b[first..][..out.len()];
            a.with(first, out, |a, out| f(a, b, out));
        }
        (Input::Apart(a), _) => {
            let a = &a[first..][..out.len()];
            b.with(first, out, |b, out| f(a, b, out));
        }
    }
}

multiversion! {
    fn gate_row(y: &mut [f32], residual: &[f32], gate: &[f32], x: &[f32]) {
        for (((out, &r), &g), &v) in y.iter_mut().zip(residual).zip(gate).zip(x) {
            *out = r + g * v;
        }
    }
}

multiversion! {
    fn add_block(y: &mut [f32], a: &[f32], b: &[f32]) {
        for ((out, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *out = a + b;
        }
    }
}
