//! Kernels for the CPU, one family per file.
//!
//! Invariants: every kernel checks its operands with checked arithmetic before it reads or writes;
//! it runs in the rayon pool of the caller; the arithmetic of one row (head, output pixel) does not
//! depend on the number of rows, on how they were cut, or on the number of threads.

mod activation;
mod attention;
mod bf16;
mod boxes;
mod conv3d;
mod conv_cache;
mod copy;
pub(crate) mod embedding;
mod fp8;
mod gate;
mod gemm;
mod group_norm;
mod input;
mod int8;
mod join;
mod linear;
mod math;
mod nearest;
mod noise;
mod norm;
mod pages;
mod peak;
pub(crate) mod positions;
mod qk_norm_rope;
mod sampler;
mod scratch;
mod segments;
mod simd;
mod split;
mod upsample;

use crate::check;

pub use crate::MAX_BOX_RANK;
pub use crate::{GateSegment, ModSegment, StepStage};
pub use activation::{GatedGelu, gelu, gelu_tanh, silu};
pub use attention::{
    Attention, AttentionFinish, AttentionProducts, AttentionStep, HeadsView, HeadsViewMut,
};
pub use conv_cache::ConvCache;
pub use conv3d::{Conv3d, PackedConv3d};
pub use copy::CopyBox;
pub use embedding::{RelativeBias, SinCosOrder, TimestepEmbedding, TokenEmbedding};
pub use gate::{GateAdd, add};
pub use gemm::Operands;
pub use group_norm::{GroupActivation, GroupNorm, Spatial};
pub use input::Input;
pub use join::Join;
pub use linear::{Linear, LinearEpilogue, LinearGate, PackedLinear};
pub use noise::{NoiseBox, noise_fill, normal, philox4x32};
pub use norm::{Norm, NormModulate};
pub use pages::Pages;
pub use peak::peak_flops;
pub use positions::{Axis, GridAxis, PositionKind, PositionTable};
pub use qk_norm_rope::{HeadNorm, QkNormRope};
pub use sampler::{Advance, Denoise};
pub use segments::Mods;
pub use simd::{InstructionSet, instruction_set};
pub use upsample::{TimeMode, Upsample};
