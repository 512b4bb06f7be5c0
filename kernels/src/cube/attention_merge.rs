//! A step of attention from what a library computed: result and log-sum-exp of one block of keys,
//! merged into the running state of [`crate::cpu::AttentionStep`].
//!
//! A block whose softmax is `o` and whose log-sum-exp is `l` is a state with accumulator `o`, maximum
//! `l` and sum 1, so merging it is merging two states.
//!
//! Invariant: the arithmetic of a row of a head depends on that row alone. Refused: operands whose
//! lengths or types disagree.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::operand::{Element, Operand};
use crate::{KernelError, StepStage, check};

/// Units that share an entry of the state, and entries of a cube.
const SHARING: usize = 32;
const ENTRIES: usize = 8;

/// Merges a block of keys into a state, `[batch, rows, heads, head_dim + 2]`.
#[derive(Debug, Clone)]
pub struct AttentionMerge<B> {
    /// Batch items.
    pub batch: usize,
    /// Query rows of a batch item.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Softmax of the block times its values, `[batch, rows, heads, head_dim]`.
    pub o: Operand<B>,
    /// Natural logarithm of the sum of the exponentials of the block's scores, f32
    /// `[batch, heads, rows]`.
    pub lse: Operand<B>,
    /// Whether the state is begun or merged into.
    pub stage: StepStage,
    /// f32, as of [`crate::cpu::AttentionStep`].
    pub state: Operand<B>,
}

impl<B: Clone> AttentionMerge<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "attention_merge";
        let (rows, heads, dim) = (self.rows, self.heads, self.head_dim);
        let entry = check::sum(KERNEL, "head_dim", [dim, 2])?;
        let shape = [self.batch, rows, heads, entry];
        let all = check::product(KERNEL, "batch, rows, heads, head_dim + 2", &shape)?;
        let entries = all / entry;
        self.state.length(KERNEL, "state", all)?;
        self.state.is(KERNEL, "state", Element::F32)?;
        self.lse.length(KERNEL, "lse", entries)?;
        self.lse.is(KERNEL, "lse", Element::F32)?;
        self.o.length(KERNEL, "o", entries * dim)?;
        let element = self.o.float(KERNEL, "o")?;
        let begins = match self.stage {
            StepStage::First => true,
            StepStage::Next => false,
        };
        let kernel = attention_merge::AttentionMerge::<R>::new(
            units([SHARING as u32, ENTRIES as u32]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            (),
            (),
            (),
            (),
            begins,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(&self.o, 1)
            .array(&self.lse, 1)
            .array(&self.state, 1)
            .u32s([entries, dim, heads, rows])
            .over(line(entries.div_ceil(ENTRIES)), kernel)
    }
}

#[cube(launch_unchecked)]
fn attention_merge<E: Float>(
    o: &Array<E>,
    lse: &Array<f32>,
    state: &mut Array<f32>,
    lead: &Sequence<u32>,
    entries: u32,
    dim: u32,
    heads: u32,
    rows: u32,
    #[comptime] begins: bool,
    #[define(E)] _element: StorageType,
) {
    let index = CUBE_POS * comptime!(ENTRIES) + UNIT_POS_Y as usize;
    let live = index < entries as usize;
    let (dim, heads, rows) = (dim as usize, heads as usize, rows as usize);
    let entry = lead[2] as usize + index * (dim + 2);
    // What stands for minus infinity, and weighs nothing.
    let lowest = f32::min_value();
    let mut maximum = lowest;
    let mut total = 0.0f32;
    let mut block = lowest;
    if live {
        if comptime!(!begins) {
            maximum = state[entry + dim];
            total = state[entry + dim + 1];
        }
        let head = index % heads;
        let row = index / heads;
        let at = (row / rows * heads + head) * rows + row % rows;
        block = max(lse[lead[1] as usize + at], lowest);
    }
    // The unit that writes maximum and sum must not overtake those that still read them.
    sync_cube();
    if live {
        let top = max(maximum, block);
        let kept = select(total > 0.0f32, f32::exp(maximum - top), 0.0f32);
        let added = select(block > lowest, f32::exp(block - top), 0.0f32);
        let mut channel = UNIT_POS_X as usize;
        while channel < dim {
            let from = lead[0] as usize + index * dim + channel;
            let mut sum = added * f32::cast_from(o[from]);
            if comptime!(!begins) {
                sum += kept * state[entry + channel];
            }
            state[entry + channel] = sum;
            channel += comptime!(SHARING);
        }
        if UNIT_POS_X == 0 {
            state[entry + dim] = top;
            state[entry + dim + 1] = kept * total + added;
        }
    }
}
