//! Strided views of heads.
//!
//! Invariant: a checked output view has no element twice, so tasks may write different rows of it at
//! the same time.

use crate::KernelError;
use crate::cpu::check;
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

/// `[batch, rows, heads, head_dim]`.
pub(super) type Shape = [usize; 4];

impl<'a> HeadsView<'a> {
    /// Refuses data that end before the view.
    pub(super) fn check(
        &self,
        kernel: &'static str,
        operand: &'static str,
        shape: Shape,
    ) -> Result<(), KernelError> {
        let strides = [self.batch_stride, self.row_stride, self.head_stride];
        enough(kernel, operand, shape, strides, self.data.len())
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
        shape: Shape,
    ) -> Result<Heads<'a>, KernelError> {
        let strides = [self.batch_stride, self.row_stride, self.head_stride];
        enough(kernel, operand, shape, strides, self.data.len())?;
        if overlaps(shape, strides) {
            let expected = format!("strides that keep the elements of {shape:?} apart");
            return Err(check::argument(
                kernel,
                operand,
                expected,
                format!("{strides:?}"),
            ));
        }
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

fn enough(
    kernel: &'static str,
    operand: &'static str,
    shape: Shape,
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

/// Whether a view may have an element twice: each dimension, the narrowest stride first, must step
/// over all that the narrower ones span. The extents were checked by `enough`.
fn overlaps(shape: Shape, strides: [usize; 3]) -> bool {
    if shape.contains(&0) {
        return false;
    }
    let mut steps = [0, 1, 2].map(|i| (strides[i], shape[i] - 1));
    steps.sort_unstable();
    let mut span = shape[3];
    for (stride, count) in steps.into_iter().filter(|&(_, count)| count > 0) {
        if stride < span {
            return true;
        }
        span += stride * count;
    }
    false
}
