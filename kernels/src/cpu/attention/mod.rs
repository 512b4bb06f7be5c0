//! Softmax attention without materialised scores: whole, as a step over one block of keys, and the
//! finish that follows the last step.
//!
//! Invariants: the arithmetic of a query row of a head depends on that row and the keys alone. Keys are
//! taken in blocks of 96 counted from the first; after each block the row's maximum, sum and
//! accumulator are up to date (Dao et al., FlashAttention, 2022; Milakov and Gimelshein, online
//! softmax, 2018). A step that begins at a multiple of 96 therefore continues with the same bits.
//! Refused: views outside their data, output views whose rows overlap, operands whose lengths disagree.

mod buffers;
mod copies;
mod finish;
mod form;
mod task;
mod transpose;
mod view;

use super::check;
use super::simd::{InstructionSet, instruction_set};
use super::split::Scattered;
use crate::{KernelError, StepStage};
pub use finish::AttentionFinish;
use task::{Inputs, Output, attend};
pub use view::{HeadsView, HeadsViewMut};

/// What attention rounds its operands to before it multiplies them; sums and the softmax are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionProducts {
    /// Nothing is rounded.
    F32,
    /// Scaled queries, keys, values and weights of the softmax are rounded to bf16. The result is the
    /// same on every instruction set that fuses multiply and add, but for sums below the smallest
    /// normal f32, which `avx512-bf16` takes to zero.
    Bf16,
}

/// `y = softmax(scale q k^T + bias) v` for every head; no key gives zeros.
#[derive(Debug)]
pub struct Attention<'a> {
    /// Batch items.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Query rows of a batch item.
    pub q_rows: usize,
    /// Key rows of a batch item.
    pub kv_rows: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Multiplier of the scores.
    pub scale: f32,
    /// What is multiplied.
    pub products: AttentionProducts,
    /// Queries.
    pub q: HeadsView<'a>,
    /// Keys.
    pub k: HeadsView<'a>,
    /// Values.
    pub v: HeadsView<'a>,
    /// `[heads, q_rows, kv_rows]`, added to the scaled scores.
    pub bias: Option<&'a [f32]>,
    /// Output.
    pub y: HeadsViewMut<'a>,
}

impl Attention<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or a stride does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        self.run_with(instruction_set())
    }

    /// Computes `y` on a chosen instruction set.
    ///
    /// # Errors
    /// As for [`Attention::run`].
    pub fn run_with(self, set: InstructionSet) -> Result<(), KernelError> {
        const KERNEL: &str = "attention";
        let inputs = Inputs {
            batch: self.batch,
            heads: self.heads,
            q_rows: self.q_rows,
            kv_rows: self.kv_rows,
            dim: self.head_dim,
            scale: self.scale,
            products: self.products,
            q: self.q,
            k: self.k,
            v: self.v,
            bias: self.bias,
        };
        inputs.check(KERNEL)?;
        let y = self.y.check(KERNEL, "y", inputs.q_shape())?;
        attend(set, &inputs, &Output::Rows(y));
        Ok(())
    }
}

/// Attention to one block of keys, merged into a running state.
///
/// The state `[batch, q_rows, heads, head_dim + 2]` holds per row and head the accumulator (the sum of
/// the values, each weighted by `e^(score - maximum)`), the maximum of the scores and the sum of the
/// weights. Before any key they are zeros, minus infinity and zero.
#[derive(Debug)]
pub struct AttentionStep<'a> {
    /// Batch items.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Query rows of a batch item.
    pub q_rows: usize,
    /// Key rows of a batch item, in this block.
    pub kv_rows: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Multiplier of the scores.
    pub scale: f32,
    /// What is multiplied.
    pub products: AttentionProducts,
    /// Queries.
    pub q: HeadsView<'a>,
    /// Keys of the block.
    pub k: HeadsView<'a>,
    /// Values of the block.
    pub v: HeadsView<'a>,
    /// Whether the state is begun or merged into.
    pub stage: StepStage,
    /// Running state.
    pub state: &'a mut [f32],
}

impl AttentionStep<'_> {
    /// Updates the state.
    ///
    /// # Errors
    /// [`KernelError`] when a length or a stride does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        self.run_with(instruction_set())
    }

    /// Updates the state on a chosen instruction set.
    ///
    /// # Errors
    /// As for [`AttentionStep::run`].
    pub fn run_with(self, set: InstructionSet) -> Result<(), KernelError> {
        const KERNEL: &str = "attention_step";
        let inputs = Inputs {
            batch: self.batch,
            heads: self.heads,
            q_rows: self.q_rows,
            kv_rows: self.kv_rows,
            dim: self.head_dim,
            scale: self.scale,
            products: self.products,
            q: self.q,
            k: self.k,
            v: self.v,
            bias: None,
        };
        inputs.check(KERNEL)?;
        let entry = check::sum(KERNEL, "head_dim", [self.head_dim, 2])?;
        let shape = [self.batch, self.q_rows, self.heads, entry];
        let total = check::product(KERNEL, "batch, q_rows, heads, head_dim + 2", &shape)?;
        check::length(KERNEL, "state", total, self.state.len())?;
        let state = Scattered::new(self.state);
        let output = match self.stage {
            StepStage::First => Output::NewState(state),
            StepStage::Next => Output::State(state),
        };
        attend(set, &inputs, &output);
        Ok(())
    }
}
