//! Conversion between floating-point types, rounding to nearest.
//!
//! Invariant: elementwise, so independent of any cut. Refused: operands whose lengths differ, integers.

use cubecl::prelude::{Cast as _, *};

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::operand::{Operand, width};
use crate::KernelError;

/// Units of a cube.
const UNITS: usize = 256;

/// y = x in another element type.
#[derive(Debug, Clone)]
pub struct Cast<B> {
    /// Input.
    pub x: Operand<B>,
    /// Output, with as many elements.
    pub y: Operand<B>,
}

impl<B: Clone> Cast<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when the lengths differ or an operand holds integers.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "cast";
        let Self { x, y } = self;
        let (from, to) = (x.float(KERNEL, "x")?, y.float(KERNEL, "y")?);
        y.length(KERNEL, "y", x.len)?;
        let n = width([x.len, x.offset, y.offset]);
        let count = x.len / n;
        let kernel = cast::Cast::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            (),
            n,
            from.storage(),
            to.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .array(y, n)
            .u32(count)
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

#[cube(launch_unchecked)]
fn cast<E: Float, F: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    y: &mut Array<Vector<F, N>>,
    lead: &Sequence<u32>,
    count: u32,
    #[define(E)] _from: StorageType,
    #[define(F)] _to: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let value = Vector::<f32, N>::cast_from(x[lead[0] as usize + i]);
        let to = lead[1] as usize + i;
        y[to] = Vector::<F, N>::cast_from(value);
    }
}
