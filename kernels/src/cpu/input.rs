//! Inputs that may be the result's own memory.
//!
//! Invariant: a kernel sees input and output apart. Of an input in place it sees a copy of the piece that it
//! is about to write, which is small enough for the cache.

use super::check;
use super::gemm::flat;
use super::scratch::with_scratch;
use crate::KernelError;
use crate::cpu::gemm::LANES;

/// Where the input of a kernel lies that gives each element of its result from that of the input, or each
/// row from that row.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// The result holds the input and is overwritten.
    InPlace,
    /// As many elements as the result.
    Apart(&'a [f32]),
}

impl Input<'_> {
    /// Refuses another length than the result's.
    pub(super) fn check(
        self,
        kernel: &'static str,
        operand: &'static str,
        expected: usize,
    ) -> Result<(), KernelError> {
        match self {
            Input::InPlace => Ok(()),
            Input::Apart(x) => check::length(kernel, operand, expected, x.len()),
        }
    }

    /// The number of elements; that of `y`, the result, when in place.
    pub(super) fn len_beside(self, y: &[f32]) -> usize {
        match self {
            Input::InPlace => y.len(),
            Input::Apart(x) => x.len(),
        }
    }

    /// All elements, `y` being the result before anything was written.
    pub(super) fn all<'a>(self, y: &'a [f32]) -> &'a [f32]
    where
        Self: 'a,
    {
        match self {
            Input::InPlace => y,
            Input::Apart(x) => x,
        }
    }

    /// Calls `f` with the elements that belong to `out`, the piece of the result from element `first` on.
    #[inline(always)]
    pub(super) fn with(self, first: usize, out: &mut [f32], f: impl FnOnce(&[f32], &mut [f32])) {
        match self {
            Input::InPlace => with_scratch(out.len().div_ceil(LANES), |lines| {
                let copy = &mut flat(lines)[..out.len()];
                copy.copy_from_slice(out);
                f(copy, out);
            }),
            Input::Apart(x) => f(&x[first..][..out.len()], out),
        }
    }
}
