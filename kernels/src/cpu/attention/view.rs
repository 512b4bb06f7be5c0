//! Strided views of heads.
//!
//! Invariant: a checked output view has no element twice, so tasks may write different rows of it at
//! the same time.

use crate::KernelError;
use crate::args::{HeadsShape, heads_apart, heads_fit};
use crate::cpu::split::Scattered;

/// A strided view `[batch, rows, heads, head_dim]`; the last dimension is dense and the first element
/// of the data is the first of the view. The data may go on behind the last.
#[derive(Debug, Clone, Copy)]
pub struct HeadsView<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements between batch items.
    pub batch_stride: usize,
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between heads.
    pub head_stride: usize,
}

/// As [`HeadsView`], for writing: no two elements of the view may be the same element of the data.
#[derive(Debug)]
pub struct HeadsViewMut<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Elements between batch items.
    pub batch_stride: usize,
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between heads.
    pub head_stride: usize,
}

impl<'a> HeadsView<'a> {
    /// Refuses data that end before the view.
    pub(super) fn check(
        &self,
        kernel: &'static str,
        operand: &'static str,
        shape: HeadsShape,
    ) -> Result<(), KernelError> {
        let strides = [self.batch_stride, self.row_stride, self.head_stride];
        heads_fit(kernel, operand, shape, strides, self.data.len())
    }

    /// One head of one row; `check` has proved that it exists.
    #[inline(always)]
    pub(super) fn head(&self, b: usize, row: usize, head: usize, dim: usize) -> &'a [f32] {
        let first = b * self.batch_stride + row * self.row_stride + head * self.head_stride;
        &self.data[first..first + dim]
    }
}

/// A checked output view.
pub(super) struct Heads<'a> {
    data: Scattered<'a>,
    strides: [usize; 3],
}

impl<'a> HeadsViewMut<'a> {
    /// Refuses data that end before the view, and a view that has an element twice.
    pub(super) fn check(
        self,
        kernel: &'static str,
        operand: &'static str,
        shape: HeadsShape,
    ) -> Result<Heads<'a>, KernelError> {
        let strides = [self.batch_stride, self.row_stride, self.head_stride];
        heads_fit(kernel, operand, shape, strides, self.data.len())?;
        heads_apart(kernel, operand, shape, strides)?;
        Ok(Heads {
            data: Scattered::new(self.data),
            strides,
        })
    }
}

impl Heads<'_> {
    /// One head of one row.
    ///
    /// # Safety
    /// No other slice of that head and row is in use.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn head(&self, b: usize, row: usize, head: usize, dim: usize) -> &mut [f32] {
        let [batch_stride, row_stride, head_stride] = self.strides;
        let first = b * batch_stride + row * row_stride + head * head_stride;
        // SAFETY: the heads of a checked view do not overlap, and the caller promises the rest.
        unsafe { self.data.slice(first, dim) }
    }
}
