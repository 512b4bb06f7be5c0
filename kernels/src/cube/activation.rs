//! Elementwise activations and the gated GELU of T5.
//!
//! Invariant: elementwise, so independent of any cut. Refused: operands whose lengths or element
//! types disagree.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::math::{Function, apply, gelu_tanh};
use super::operand::{Operand, width};
use crate::{KernelError, check};

/// Units of a cube.
const UNITS: usize = 256;

/// y = function(x), elementwise; `y` may be `x` itself.
#[derive(Debug, Clone)]
pub struct Activate<B> {
    /// The function.
    pub function: Function,
    /// Input.
    pub x: Operand<B>,
    /// Output, as long as the input.
    pub y: Operand<B>,
}

impl<B: Clone> Activate<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "activate";
        let Self { function, x, y } = self;
        let element = same_element(KERNEL, ("x", x), &[("y", y)])?;
        y.length(KERNEL, "y", x.len)?;
        let n = width([x.len, x.offset, y.offset]);
        let count = x.len / n;
        let kernel = activate::Activate::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            (),
            n,
            *function,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .array(y, n)
            .u32(count)
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// y = gelu_tanh(x[:, :width]) * x[:, width:], the feed-forward gate of T5 v1.1
/// (`T5DenseGatedActDense` of transformers).
#[derive(Debug, Clone)]
pub struct GatedGelu<B> {
    /// Rows.
    pub rows: usize,
    /// Elements of an output row; an input row has twice as many.
    pub width: usize,
    /// `[rows, 2 * width]`.
    pub x: Operand<B>,
    /// `[rows, width]`.
    pub y: Operand<B>,
}

impl<B: Clone> GatedGelu<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "gated_gelu";
        let Self { rows, x, y, .. } = self;
        let element = same_element(KERNEL, ("x", x), &[("y", y)])?;
        let input = check::product(KERNEL, "rows, 2, width", &[*rows, 2, self.width])?;
        x.length(KERNEL, "x", input)?;
        y.length(KERNEL, "y", input / 2)?;
        let n = width([self.width, x.offset, y.offset]);
        let count = y.len / n;
        let kernel = gated_gelu::GatedGelu::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            (),
            (),
            n,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .array(y, n)
            .u32(count)
            .u32(self.width / n)
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

#[cube(launch_unchecked)]
fn activate<E: Float, N: Size>(
    x: &mut Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    count: u32,
    #[comptime] function: Function,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let mut v = Vector::<f32, N>::cast_from(x[lead[0] as usize + i]);
        #[unroll]
        for k in 0..N::value() {
            v[k] = apply(v[k], function);
        }
        let to = lead[1] as usize + i;
        y[to] = Vector::<E, N>::cast_from(v);
    }
}

#[cube(launch_unchecked)]
fn gated_gelu<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    count: u32,
    width: u32,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let width = width as usize;
        let at = lead[0] as usize + i / width * 2 * width + i % width;
        let mut gate = Vector::<f32, N>::cast_from(x[at]);
        let value = Vector::<f32, N>::cast_from(x[at + width]);
        #[unroll]
        for k in 0..N::value() {
            gate[k] = gelu_tanh(gate[k]);
        }
        let to = lead[1] as usize + i;
        y[to] = Vector::<E, N>::cast_from(gate * value);
    }
}
