//! Softmax attention without materialised scores: whole, as a step over one block of keys, and the
//! finish that follows the last step.
//!
//! Invariants: the arithmetic of a query row of a head depends on that row and the keys alone; keys are
//! taken in blocks of 32 counted from the first, so a step that begins at a multiple of 32 continues
//! with the same bits. Refused: views outside their data, output views whose rows overlap, heads of
//! more than 128 channels, operands whose lengths or types disagree.

mod finish;
mod state;
mod tile;
mod views;

use cubecl::prelude::*;

use super::call::{Builder, Call, array, list, same_element, units};
use super::device::Device;
use super::operand::{Element, Operand, width};
use crate::{KernelError, StepStage, args, check};

pub use finish::AttentionFinish;
use tile::{ROWS, SIDE, Stage, Tile};

/// Channels of a head at most: more do not fit the shared memory of every device.
const MAX_DIM: usize = 128;

/// A strided view `[batch, rows, heads, head_dim]`; the last dimension is dense and the first element
/// of the data is the first of the view. The data may go on behind the last.
#[derive(Debug, Clone)]
pub struct HeadsView<B> {
    /// The elements.
    pub data: Operand<B>,
    /// Elements between batch items.
    pub batch_stride: usize,
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between heads.
    pub head_stride: usize,
}

/// `y = softmax(scale q k^T + bias) v` for every head; no key gives zeros. See
/// [`cpu::Attention`](crate::cpu::Attention).
#[derive(Debug, Clone)]
pub struct Attention<B> {
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
    /// Queries.
    pub q: HeadsView<B>,
    /// Keys.
    pub k: HeadsView<B>,
    /// Values.
    pub v: HeadsView<B>,
    /// f32 `[heads, q_rows, kv_rows]`, added to the scaled scores.
    pub bias: Option<Operand<B>>,
    /// Output; no two elements of the view may be the same element of the data.
    pub y: HeadsView<B>,
}

/// Attention to one block of keys, merged into a running state.
///
/// The state, f32 `[batch, q_rows, heads, head_dim + 2]`, holds what
/// [`cpu::AttentionStep`](crate::cpu::AttentionStep) describes, the lowest finite number standing for
/// minus infinity.
#[derive(Debug, Clone)]
pub struct AttentionStep<B> {
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
    /// Queries.
    pub q: HeadsView<B>,
    /// Keys of the block.
    pub k: HeadsView<B>,
    /// Values of the block.
    pub v: HeadsView<B>,
    /// Whether the state is begun or merged into.
    pub stage: StepStage,
    /// Running state.
    pub state: Operand<B>,
}

impl<B: Clone> Attention<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, a stride or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "attention";
        let inputs = Inputs {
            shape: [self.batch, self.q_rows, self.heads, self.head_dim],
            kv_rows: self.kv_rows,
            scale: self.scale,
            views: [&self.q, &self.k, &self.v],
        };
        let element = inputs.check(KERNEL)?;
        self.y.data.is(KERNEL, "y", element)?;
        self.y.fits(KERNEL, "y", inputs.shape)?;
        args::heads_apart(KERNEL, "y", inputs.shape, self.y.strides())?;
        let shape = [self.heads, self.q_rows, self.kv_rows];
        let scores = check::product(KERNEL, "heads, q_rows, kv_rows", &shape)?;
        if let Some(bias) = &self.bias {
            bias.is(KERNEL, "bias", Element::F32)?;
            bias.length(KERNEL, "bias", scores)?;
        }
        let output = Output {
            stage: Stage::Whole,
            bias: self.bias.as_ref(),
            state: None,
            y: Some(&self.y),
        };
        inputs.calls(KERNEL, device, element, &output)
    }
}

impl<B: Clone> AttentionStep<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, a stride or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "attention_step";
        let inputs = Inputs {
            shape: [self.batch, self.q_rows, self.heads, self.head_dim],
            kv_rows: self.kv_rows,
            scale: self.scale,
            views: [&self.q, &self.k, &self.v],
        };
        let element = inputs.check(KERNEL)?;
        let entry = check::sum(KERNEL, "head_dim", [self.head_dim, 2])?;
        let shape = [self.batch, self.q_rows, self.heads, entry];
        let all = check::product(KERNEL, "batch, q_rows, heads, head_dim + 2", &shape)?;
        self.state.is(KERNEL, "state", Element::F32)?;
        self.state.length(KERNEL, "state", all)?;
        let output = Output {
            stage: match self.stage {
                StepStage::First => Stage::First,
                StepStage::Next => Stage::Next,
            },
            bias: None,
            state: Some(&self.state),
            y: None,
        };
        inputs.calls(KERNEL, device, element, &output)
    }
}

impl<B> HeadsView<B> {
    fn strides(&self) -> [usize; 3] {
        [self.batch_stride, self.row_stride, self.head_stride]
    }

    fn fits(
        &self,
        kernel: &'static str,
        operand: &'static str,
        shape: args::HeadsShape,
    ) -> Result<(), KernelError> {
        args::heads_fit(kernel, operand, shape, self.strides(), self.data.len)
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        self.strides().into_iter().chain([self.data.offset])
    }
}

/// The operands that are read.
struct Inputs<'a, B> {
    /// `[batch, q_rows, heads, dim]`.
    shape: args::HeadsShape,
    kv_rows: usize,
    scale: f32,
    views: [&'a HeadsView<B>; 3],
}

/// Where the result goes.
struct Output<'a, B> {
    stage: Stage,
    bias: Option<&'a Operand<B>>,
    state: Option<&'a Operand<B>>,
    y: Option<&'a HeadsView<B>>,
}

impl<B: Clone> Inputs<'_, B> {
    fn check(&self, kernel: &'static str) -> Result<Element, KernelError> {
        let [batch, q_rows, heads, dim] = self.shape;
        if dim == 0 || dim > MAX_DIM {
            let expected = format!("1 to {MAX_DIM}");
            return Err(check::argument(
                kernel,
                "head_dim",
                expected,
                dim.to_string(),
            ));
        }
        let shape = [batch, heads, q_rows, dim];
        check::product(kernel, "batch, heads, q_rows, head_dim", &shape)?;
        let keys = [batch, self.kv_rows, heads, dim];
        let [q, k, v] = self.views;
        q.fits(kernel, "q", self.shape)?;
        k.fits(kernel, "k", keys)?;
        v.fits(kernel, "v", keys)?;
        same_element(kernel, ("q", &q.data), &[("k", &k.data), ("v", &v.data)])
    }

    fn calls<R: Runtime>(
        &self,
        name: &'static str,
        device: &Device<R>,
        element: Element,
        output: &Output<'_, B>,
    ) -> Result<Vec<Call<B>>, KernelError> {
        let [batch, q_rows, heads, dim] = self.shape;
        let views = self.views.into_iter().chain(output.y);
        let n = width(views.clone().flat_map(HeadsView::numbers).chain([dim]));
        let tile = Tile {
            dim,
            stage: output.stage,
            bias: output.bias.is_some(),
        };
        let kernel = tile::attention_tile::AttentionTile::<R>::new(
            units([SIDE as u32; 2]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(6),
            (),
            (),
            (),
            list(12),
            (),
            n,
            tile,
            element.storage(),
        );
        let [q, k, v] = self.views.map(|view| &view.data);
        let y = output.y.map_or(q, |view| &view.data);
        let strides = views.flat_map(HeadsView::strides);
        let unused = if output.y.is_some() { 0 } else { 3 };
        Builder::new(name, device)
            .array(q, n)
            .array(k, n)
            .array(v, n)
            .maybe(output.bias, q, 1)
            .maybe(output.state, q, 1)
            .array(y, n)
            .u32s([heads, q_rows, self.kv_rows])
            .u32s(strides.chain(std::iter::repeat_n(0, unused)))
            .f32(self.scale)
            .over([q_rows.div_ceil(ROWS), heads, batch], kernel)
    }
}
