//! Weights in the layouts that the kernels for GPUs read.
//!
//! Invariant: matrices lie as they are stored, `[n, k]`; convolutions are packed by their kernel. Weights
//! of products keep the type that the plan gives them; all others are f32.

use crate::backend::resolved::Layout;
use crate::{ResolveFault, RuntimeError};
use half::{bf16, f16};
use terrace_kernels::cube::{ConvWeight, Element, Operand};
use terrace_plan::{Weight, WeightLayout};

/// A weight on a device.
#[derive(Debug)]
pub struct CubeWeight<B> {
    pub(crate) operand: Operand<B>,
    pub(crate) layout: WeightLayout,
}

impl<B> Layout for CubeWeight<B> {
    fn layout(&self) -> WeightLayout {
        self.layout
    }
}

/// Element type of a weight with the elements `data`, whose products read `element`, and its bytes.
pub(crate) fn pack(
    weight: &Weight,
    element: Element,
    data: &[f32],
) -> Result<(Element, Vec<u8>), RuntimeError> {
    match weight.layout {
        WeightLayout::Plain => Ok((Element::F32, bytes(Element::F32, data))),
        WeightLayout::Linear => Ok((element, bytes(element, data))),
        WeightLayout::Conv3d => {
            let [cout, cin, kt, kh, kw] = weight.shape[..] else {
                return Err(ResolveFault::WeightShape {
                    layout: weight.layout,
                    shape: weight.shape.clone(),
                }
                .into());
            };
            let kernel = [kt, kh, kw];
            let packed = ConvWeight { cout, cin, kernel }.pack(data)?;
            Ok((element, bytes(element, &packed)))
        }
    }
}

/// The elements as the device stores them, rounded to nearest.
fn bytes(element: Element, data: &[f32]) -> Vec<u8> {
    match element {
        Element::F32 | Element::U32 => bytemuck::cast_slice(data).to_vec(),
        Element::F16 => {
            let halves = data.iter().map(|&x| f16::from_f32(x).to_ne_bytes());
            halves.flatten().collect()
        }
        Element::Bf16 => {
            let halves = data.iter().map(|&x| bf16::from_f32(x).to_ne_bytes());
            halves.flatten().collect()
        }
    }
}
