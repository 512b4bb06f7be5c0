//! The division that ends attention in steps.
//!
//! Invariant: the same division as whole attention does. Refused: operands whose lengths disagree.

use crate::KernelError;
use crate::cpu::check;
use crate::cpu::split::{for_rows, multiversion};

/// `y = accumulator / sum`; a state that saw no key gives zeros.
#[derive(Debug)]
pub struct AttentionFinish<'a> {
    /// Batch items x query rows.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// `[rows, heads, head_dim + 2]`.
    pub state: &'a [f32],
    /// `[rows, heads, head_dim]`.
    pub y: &'a mut [f32],
}

impl AttentionFinish<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "attention_finish";
        let (rows, heads, dim) = (self.rows, self.heads, self.head_dim);
        let entry = check::sum(KERNEL, "head_dim", [dim, 2])?;
        let total = check::product(KERNEL, "rows, heads, head_dim + 2", &[rows, heads, entry])?;
        check::length(KERNEL, "state", total, self.state.len())?;
        check::length(KERNEL, "y", rows * heads * dim, self.y.len())?;
        for_rows(self.y, dim, |head, out| {
            let (accumulator, rest) = self.state[head * entry..][..entry].split_at(dim);
            out.copy_from_slice(accumulator);
            divide(out, rest[1]);
        });
        Ok(())
    }
}

/// Divides an accumulator by its sum; zeros when there was no key.
pub(super) fn divide(accumulator: &mut [f32], sum: f32) {
    if sum == 0.0 {
        accumulator.fill(0.0);
    } else {
        divide_row(accumulator, sum);
    }
}

multiversion! {
    fn divide_row(accumulator: &mut [f32], sum: f32) {
        for v in accumulator.iter_mut() {
            *v /= sum;
        }
    }
}
