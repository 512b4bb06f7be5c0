//! Elementwise activations and the gated GELU of T5.
//!
//! Invariants: elementwise with one exponential for all instruction sets, so the same bits everywhere;
//! NaN stays NaN. Refused: operands whose lengths disagree.

use super::input::Input;
use super::split::{for_blocks, for_rows, multiversion};
use super::{check, math};
use crate::KernelError;

/// y = x * sigmoid(x), elementwise.
///
/// # Errors
/// [`KernelError::Length`] when the operands differ in length; then nothing was written.
pub fn silu(x: Input<'_>, y: &mut [f32]) -> Result<(), KernelError> {
    check::length("silu", "y", x.len_beside(y), y.len())?;
    for_blocks(y, |first, out| x.with(first, out, silu_block));
    Ok(())
}

/// y = 0.5 x (1 + erf(x / sqrt(2))), elementwise.
///
/// # Errors
/// [`KernelError::Length`] when the operands differ in length; then nothing was written.
pub fn gelu(x: Input<'_>, y: &mut [f32]) -> Result<(), KernelError> {
    check::length("gelu", "y", x.len_beside(y), y.len())?;
    for_blocks(y, |first, out| x.with(first, out, gelu_block));
    Ok(())
}

/// y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), elementwise.
///
/// # Errors
/// [`KernelError::Length`] when the operands differ in length; then nothing was written.
pub fn gelu_tanh(x: Input<'_>, y: &mut [f32]) -> Result<(), KernelError> {
    check::length("gelu_tanh", "y", x.len_beside(y), y.len())?;
    for_blocks(y, |first, out| x.with(first, out, gelu_tanh_block));
    Ok(())
}

/// y = gelu_tanh(x[:, :width]) * x[:, width:], the feed-forward gate of T5 v1.1
/// (`T5DenseGatedActDense` of transformers).
#[derive(Debug)]
pub struct GatedGelu<'a> {
    /// Rows.
    pub rows: usize,
    /// Elements of an output row; an input row has twice as many.
    pub width: usize,
    /// `[rows, 2 * width]`.
    pub x: &'a [f32],
    /// `[rows, width]`.
    pub y: &'a mut [f32],
}

impl GatedGelu<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "gated_gelu";
        let Self { rows, width, x, y } = self;
        let input = check::product(KERNEL, "rows, 2, width", &[rows, 2, width])?;
        check::length(KERNEL, "x", input, x.len())?;
        check::length(KERNEL, "y", input / 2, y.len())?;
        for_rows(y, width, |row, out| {
            let (gate, value) = x[2 * row * width..][..2 * width].split_at(width);
            gated_row(gate, value, out);
        });
        Ok(())
    }
}

fn gelu_block(x: &[f32], y: &mut [f32]) {
    for (out, &v) in y.iter_mut().zip(x) {
        *out = math::gelu(v);
    }
}

multiversion! {
    fn silu_block(x: &[f32], y: &mut [f32]) {
        for (out, &v) in y.iter_mut().zip(x) {
            *out = math::silu(v);
        }
    }
}

multiversion! {
    fn gelu_tanh_block(x: &[f32], y: &mut [f32]) {
        for (out, &v) in y.iter_mut().zip(x) {
            *out = math::gelu_tanh(v);
        }
    }
}

multiversion! {
    fn gated_row(gate: &[f32], value: &[f32], y: &mut [f32]) {
        for ((out, &g), &v) in y.iter_mut().zip(gate).zip(value) {
            *out = math::gelu_tanh(g) * v;
        }
    }
}
