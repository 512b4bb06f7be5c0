//! The division that ends attention in steps.
//!
//! Invariant: the same division as whole attention does. Refused: operands whose lengths or types
//! disagree.

use cubecl::prelude::*;

use crate::cube::call::{Builder, Call, array, line, list, units};
use crate::cube::device::Device;
use crate::cube::operand::{Element, Operand};
use crate::{KernelError, check};

/// Units of a cube.
const UNITS: usize = 256;

/// `y = accumulator / sum`; a state that saw no key gives zeros.
#[derive(Debug, Clone)]
pub struct AttentionFinish<B> {
    /// Batch items x query rows.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// f32 `[rows, heads, head_dim + 2]`.
    pub state: Operand<B>,
    /// `[rows, heads, head_dim]`.
    pub y: Operand<B>,
}

impl<B: Clone> AttentionFinish<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "attention_finish";
        let Self { state, y, .. } = self;
        let (rows, heads, dim) = (self.rows, self.heads, self.head_dim);
        let entry = check::sum(KERNEL, "head_dim", [dim, 2])?;
        let total = check::product(KERNEL, "rows, heads, head_dim + 2", &[rows, heads, entry])?;
        state.length(KERNEL, "state", total)?;
        state.is(KERNEL, "state", Element::F32)?;
        y.length(KERNEL, "y", rows * heads * dim)?;
        let element = y.float(KERNEL, "y")?;
        let kernel = attention_finish::AttentionFinish::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            (),
            (),
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(state, 1)
            .array(y, 1)
            .u32s([y.len, dim])
            .over(line(y.len.div_ceil(UNITS)), kernel)
    }
}

#[cube(launch_unchecked)]
fn attention_finish<E: Float>(
    state: &Array<f32>,
    y: &mut Array<E>,
    lead: &Sequence<u32>,
    count: u32,
    dim: u32,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let dim = dim as usize;
        let entry = lead[0] as usize + i / dim * (dim + 2);
        let total = state[entry + dim + 1];
        let mut quotient = 0.0f32;
        if total != 0.0f32 {
            quotient = state[entry + i % dim] / total;
        }
        let to = lead[1] as usize + i;
        y[to] = E::cast_from(quotient);
    }
}
