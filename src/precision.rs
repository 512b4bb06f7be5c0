//! The element types that matrix products are computed in.

use serde::{Deserialize, Serialize};
use terrace_plan::DType;

/// Element type of matrix products and convolutions; sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// IEEE half precision, on GPUs. The text encoder, whose activations leave its range, keeps them in f32.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Integers of 8 bits with scales for the products over the joint sequence, bf16 elsewhere.
    Int8,
    /// FP8 (E4M3) with scales for the products over the joint sequence, bf16 elsewhere.
    Fp8,
}

impl Precision {
    /// Element type of activations that have that of the products: bf16 for FP8, f32 where it has neither 16 bits nor FP8.
    pub(crate) const fn between_products(self) -> DType {
        match self {
            Self::Bf16 | Self::Fp8 => DType::Bf16,
            Self::F16 => DType::F16,
            Self::F32 | Self::Int8 => DType::F32,
        }
    }
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::I8,
            Precision::Fp8 => Self::F8E4M3,
        }
    }
}
