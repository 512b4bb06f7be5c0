//! The matrix product of rows with a packed weight, and what is done to its result before it is stored.
//!
//! Invariants: a row's result depends on that row alone (see `gemm`); the epilogue rounds as the
//! separate kernels do, so fusing it changes no bit. Refused: operands whose lengths disagree, gate
//! rows that do not add up to the rows, gate offsets outside their data.

use std::ops::Range;

use super::gemm::{Operands, Panels, Product, multiply};
use super::input::Input;
use super::segments::{Mods, locate};
use super::simd::{InstructionSet, instruction_set};
use super::split::multiversion;
use super::{check, math};
use crate::args::gate_rows;
use crate::{GateSegment, KernelError};

const KERNEL: &str = "linear";

/// A weight `[n, k]` in the layout of the matrix product; immutable, and shared by all who multiply
/// with it.
#[derive(Debug)]
pub struct PackedLinear(Panels);

impl PackedLinear {
    /// Packs a weight `[n, k]`, as `torch.nn.Linear` holds it.
    ///
    /// # Errors
    /// [`KernelError`] when the length does not fit the sizes, or the sizes the address space.
    pub fn pack(n: usize, k: usize, weight: &[f32]) -> Result<Self, KernelError> {
        Self::pack_as(Operands::F32, n, k, weight)
    }

    /// Packs a weight `[n, k]`, rounded to bf16. The product then rounds its input to bf16 as well, and
    /// sums in f32: half the memory, and twice the speed or more where the processor multiplies bf16.
    ///
    /// The result is the same on every instruction set, but for sums below the smallest normal f32,
    /// which `avx512-bf16` takes to zero.
    ///
    /// # Errors
    /// As for [`PackedLinear::pack`].
    pub fn pack_bf16(n: usize, k: usize, weight: &[f32]) -> Result<Self, KernelError> {
        Self::pack_as(Operands::Bf16, n, k, weight)
    }

    /// Packs a weight `[n, k]` as integers of 8 bits with a scale for each row of it. The product gives
    /// each row of its input a scale and rounds it to such integers as well: a quarter of the memory, and
    /// faster than bf16 on every instruction set. Sums are exact, so the result is the same on all of them.
    ///
    /// # Errors
    /// As for [`PackedLinear::pack`], and when `k` is so large that a sum may not fit 32 bits.
    pub fn pack_i8(n: usize, k: usize, weight: &[f32]) -> Result<Self, KernelError> {
        Self::pack_as(Operands::I8, n, k, weight)
    }

    /// Packs a weight `[n, k]` as numbers of FP8 (E4M3) with a scale for each row of it. The product gives
    /// each row of its input a scale and rounds it to such numbers as well, and sums in f32. They are
    /// multiplied as bf16, so nothing is saved over [`PackedLinear::pack_bf16`]: it is for numbers like those
    /// of devices that multiply FP8.
    ///
    /// The result is the same on every instruction set.
    ///
    /// # Errors
    /// As for [`PackedLinear::pack`].
    pub fn pack_f8e4m3(n: usize, k: usize, weight: &[f32]) -> Result<Self, KernelError> {
        Self::pack_as(Operands::F8E4M3, n, k, weight)
    }

    fn pack_as(
        operands: Operands,
        n: usize,
        k: usize,
        weight: &[f32],
    ) -> Result<Self, KernelError> {
        let total = check::product(KERNEL, "n, k", &[n, k])?;
        check::length(KERNEL, "weight", total, weight.len())?;
        Self::pack_with(operands, n, k, |row, out| {
            out.copy_from_slice(&weight[row * k..][..k]);
        })
    }

    /// Packs the weight `[n, k]` whose row of a number `read` writes, wherever it is stored, as
    /// [`PackedLinear::pack`] and its siblings do for `operands`.
    ///
    /// # Errors
    /// When the sizes do not fit the address space, or `k` the sums of integers.
    pub fn pack_with(
        operands: Operands,
        n: usize,
        k: usize,
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, KernelError> {
        Panels::pack(KERNEL, operands, [n, k], read).map(Self)
    }

    /// Columns of the result.
    #[must_use]
    pub fn n(&self) -> usize {
        self.0.n()
    }

    /// Columns of the input.
    #[must_use]
    pub fn k(&self) -> usize {
        self.0.k()
    }

    /// Bytes of the packed weight, its padding included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// `y[rows, n] = epilogue(x[rows, k] W^T + bias)`.
#[derive(Debug)]
pub struct Linear<'a> {
    /// Rows of `x` and `y`.
    pub rows: usize,
    /// `[rows, k]`.
    pub x: &'a [f32],
    /// `[n, k]`.
    pub weight: &'a PackedLinear,
    /// `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Applied before the store.
    pub epilogue: LinearEpilogue<'a>,
    /// `[rows, n]`.
    pub y: &'a mut [f32],
}

/// What a matrix product does to its result before it stores it.
#[derive(Debug, Clone, Copy)]
pub enum LinearEpilogue<'a> {
    /// Nothing.
    None,
    /// GELU by the error function.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// x * sigmoid(x).
    Silu,
    /// residual + gate * result.
    Residual {
        /// What is added to.
        residual: Input<'a>,
        /// Absent: a plain sum.
        gate: Option<LinearGate<'a>>,
    },
}

/// The gate of a matrix product; rows = batch x sum of the segments' rows.
#[derive(Debug, Clone, Copy)]
pub struct LinearGate<'a> {
    /// Gate vectors.
    pub mods: Mods<'a>,
    /// Batch items.
    pub batch: usize,
    /// Consecutive ranges of rows and where their gate lies.
    pub segments: &'a [GateSegment],
}

impl Linear<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an offset does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        self.run_with(instruction_set())
    }

    /// Computes `y` on a chosen instruction set.
    ///
    /// # Errors
    /// As for [`Linear::run`].
    pub fn run_with(self, set: InstructionSet) -> Result<(), KernelError> {
        self.check()?;
        let product = Rows {
            k: self.weight.k(),
            n: self.weight.n(),
            x: self.x,
            bias: self.bias,
            epilogue: self.epilogue,
        };
        multiply(set, self.rows, &self.weight.0, &product, self.y);
        Ok(())
    }

    fn check(&self) -> Result<(), KernelError> {
        let (rows, k, n) = (self.rows, self.weight.k(), self.weight.n());
        let input = check::product(KERNEL, "rows, k", &[rows, k])?;
        let output = check::product(KERNEL, "rows, n", &[rows, n])?;
        check::length(KERNEL, "x", input, self.x.len())?;
        check::optional_length(KERNEL, "bias", n, self.bias)?;
        if let LinearEpilogue::Residual { residual, gate } = self.epilogue {
            residual.check(KERNEL, "residual", output)?;
            if let Some(gate) = gate {
                gate.check(rows, n)?;
            }
        }
        check::length(KERNEL, "y", output, self.y.len())
    }
}

impl<'a> LinearGate<'a> {
    fn check(&self, rows: usize, n: usize) -> Result<(), KernelError> {
        gate_rows(KERNEL, self.batch, self.segments, rows)?;
        let offsets = self.segments.iter().map(|s| s.gate);
        self.mods.check(KERNEL, self.batch, n, offsets)
    }

    fn item_rows(&self) -> impl Iterator<Item = usize> {
        self.segments.iter().map(|s| s.rows)
    }

    /// The gate of a row; `check` has proved that its segment exists.
    fn of_row(&self, row: usize, n: usize) -> Option<&'a [f32]> {
        let item: usize = self.item_rows().sum();
        let segment = locate(self.item_rows(), row % item)?;
        Some(self.mods.get(row / item, self.segments[segment].gate, n))
    }
}

/// The rows of a matrix product and its epilogue.
struct Rows<'a> {
    k: usize,
    n: usize,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    epilogue: LinearEpilogue<'a>,
}

impl Product for Rows<'_> {
    #[inline(always)]
    fn pack(&self, row: usize, k: Range<usize>, out: &mut [f32]) {
        out.copy_from_slice(&self.x[row * self.k..][k]);
    }

    fn finish(&self, row: usize, first: usize, sums: &mut [f32], y: &mut [f32]) {
        let columns = first..first + y.len();
        if let Some(bias) = self.bias {
            add_bias(sums, &bias[columns.clone()]);
        }
        match self.epilogue {
            LinearEpilogue::None => y.copy_from_slice(sums),
            LinearEpilogue::Gelu => gelu_row(sums, y),
            LinearEpilogue::GeluTanh => gelu_tanh_row(sums, y),
            LinearEpilogue::Silu => silu_row(sums, y),
            LinearEpilogue::Residual { residual, gate } => {
                if let Some(gate) = gate.and_then(|gate| gate.of_row(row, self.n)) {
                    scale(sums, &gate[columns]);
                }
                if let Input::Apart(residual) = residual {
                    y.copy_from_slice(&residual[row * self.n + first..][..y.len()]);
                }
                add_sums(sums, y);
            }
        }
    }
}

multiversion! {
    fn add_bias(sums: &mut [f32], bias: &[f32]) {
        for (sum, &b) in sums.iter_mut().zip(bias) {
            *sum += b;
        }
    }
}

multiversion! {
    fn scale(sums: &mut [f32], gate: &[f32]) {
        for (sum, &g) in sums.iter_mut().zip(gate) {
            *sum *= g;
        }
    }
}

multiversion! {
    fn add_sums(sums: &[f32], y: &mut [f32]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y += sum;
        }
    }
}

fn gelu_row(sums: &[f32], y: &mut [f32]) {
    for (y, &sum) in y.iter_mut().zip(sums) {
        *y = math::gelu(sum);
    }
}

multiversion! {
    fn gelu_tanh_row(sums: &[f32], y: &mut [f32]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = math::gelu_tanh(sum);
        }
    }
}

multiversion! {
    fn silu_row(sums: &[f32], y: &mut [f32]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = math::silu(sum);
        }
    }
}
