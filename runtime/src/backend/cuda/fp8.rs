//! Products in FP8: weights as codes with a scale for each of their rows, made when they are loaded, and rows
//! of activations that become such codes before each product.
//!
//! Invariant: what a row becomes depends on that row alone. Refused: sizes that cublasLt's products in FP8 do
//! not take, and activations in f32: there is no other kernel for these weights.

use super::copy::address;
use super::launch::{Maker, Operands, Part, Parts};
use super::memory::at;
use super::weight::Copy;
use crate::backend::cube::Places as _;
use crate::{ResolveFault, RuntimeError};
use terrace_kernels::cube::{Element, QuantizeRows, Queue as _};
use terrace_kernels::cuda::{ALIGNMENT, DeviceAddress, Factors, Scales};
use terrace_kernels::f8e4m3;
use terrace_plan::{DType, Weight};

/// What the sizes of a weight are multiples of.
const STEP: usize = ALIGNMENT;

/// A weight as the device stores it.
#[derive(Debug, PartialEq)]
pub(super) struct Codes {
    /// `[n, k]`.
    pub(super) codes: Vec<u8>,
    /// The bytes of f32 `[n]`.
    pub(super) scales: Vec<u8>,
}

impl Codes {
    /// Rounds a weight `[n, k]` with the elements `data`.
    ///
    /// # Errors
    /// When `n` or `k` is no multiple of [`STEP`].
    pub(super) fn of(weight: &Weight, data: &[f32]) -> Result<Self, RuntimeError> {
        let shape = || weight.shape.clone();
        let [n, k] = weight.shape[..] else {
            let layout = weight.layout;
            return Err(ResolveFault::WeightShape {
                layout,
                shape: shape(),
            }
            .into());
        };
        if !n.is_multiple_of(STEP) || !k.is_multiple_of(STEP) {
            return Err(ResolveFault::CodesSize {
                shape: shape(),
                step: STEP,
            }
            .into());
        }
        let (mut codes, mut scales) = (Vec::with_capacity(n * k), Vec::with_capacity(4 * n));
        // Rows without elements have nothing to be rounded.
        for row in data.chunks_exact(k.max(1)) {
            let scale = f8e4m3::scale(row);
            codes.extend(row.iter().map(|x| f8e4m3::code(x * scale.inverse)));
            scales.extend(scale.factor.to_ne_bytes());
        }
        Ok(Self { codes, scales })
    }
}

/// Refuses codes of a weight under activations of a type with which cublasLt does not multiply them.
pub(super) fn refuse(weight: DType, x: DType) -> Result<(), RuntimeError> {
    if weight != DType::F8E4M3 {
        return Ok(());
    }
    Err(ResolveFault::OperandType {
        kernel: "linear",
        operand: "x",
        expected: "f16 or bf16 for weights in f8e4m3".to_owned(),
        found: x,
    }
    .into())
}

/// The scales of rows at `x`, and those of a weight in FP8.
fn scales(x: DeviceAddress, weight: &Copy) -> Result<Scales, RuntimeError> {
    let dtype = DType::F8E4M3;
    let weight = weight.scales().ok_or(ResolveFault::NoElement { dtype })?;
    Ok(Scales { x, weight })
}

impl Maker<'_> {
    /// What makes the left factors of a product, `[rows, k]`, where they then lie, and the scales of both
    /// factors. `to` is where codes and scales of rows have room.
    pub(super) fn factors(
        &self,
        on: &Operands<'_>,
        factors: Factors,
        sizes: [usize; 2],
        weight: &Copy,
        to: [DeviceAddress; 2],
    ) -> Result<(Vec<Part>, DeviceAddress, Option<Scales>), RuntimeError> {
        match factors {
            Factors::OfResult => Ok((Vec::new(), address(on.view("x")?), None)),
            Factors::F8E4M3 => {
                let scales = scales(to[1], weight)?;
                Ok((self.quantized(on, sizes, to)?, to[0], Some(scales)))
            }
        }
    }

    /// Rounds the rows `[rows, k]` of the operand `x` to codes and scales at two addresses.
    fn quantized(
        &self,
        on: &Operands<'_>,
        [rows, k]: [usize; 2],
        [codes, scales]: [DeviceAddress; 2],
    ) -> Parts {
        let quantize = QuantizeRows {
            rows,
            width: k,
            x: self.places.operand(on.view("x")?)?,
            codes: at(codes, rows * k / 4, Element::U32),
            scales: at(scales, rows, Element::F32),
        };
        self.queued(&quantize.calls(self.memory.lane().queue().device())?)
    }
}

#[cfg(test)]
mod tests {
    use super::Codes;
    use terrace_plan::{DType, Weight, WeightLayout};

    fn weight(shape: [usize; 2]) -> Weight {
        Weight {
            sources: Vec::new(),
            dtype: DType::F8E4M3,
            shape: shape.to_vec(),
            layout: WeightLayout::Linear,
            boxes: Vec::new(),
            len: shape.iter().product(),
        }
    }

    #[test]
    fn rows_have_scales_of_their_own() {
        let data: Vec<f32> = (0..32 * 16)
            .map(|i| if i < 16 { 0.0 } else { 2.0 })
            .collect();
        let found = Codes::of(&weight([32, 16]), &data).unwrap();
        assert_eq!(found.codes[..16], [0; 16]);
        assert_eq!(found.codes[16..], [0x7e; 31 * 16]);
        let scales: Vec<f32> = found
            .scales
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f32::from_ne_bytes(b))
            .collect();
        assert_eq!(scales[0], 0.0);
        assert_eq!(scales[1..], [2.0 / 448.0; 31]);
    }

    #[test]
    fn sizes_that_cublaslt_does_not_take_are_refused() {
        for shape in [[16, 24], [24, 16]] {
            let data = vec![1.0; shape.iter().product()];
            let error = Codes::of(&weight(shape), &data).unwrap_err().to_string();
            assert!(
                error.contains("multiples of 16") && error.contains("24"),
                "{error}"
            );
        }
    }
}
