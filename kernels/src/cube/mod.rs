//! Kernels for GPUs, one family per file, written in CubeCL and compiled for the device at run time.
//!
//! A kernel's arguments are a struct of numbers and [`Operand`]s (`buffer, offset, len, element`) with a
//! method `calls(&device)`, which checks them and describes the launches as [`Call`]s. A [`Queue`]
//! prepares a call once and launches it many times: [`WgpuQueue`] through CubeCL's client, others
//! by compiling [`Call::kernel`] themselves and passing addresses, [`Call::info`] and [`Call::grid`].
//!
//! Invariants: arithmetic is f32, whatever the operands store; the bits of a row (head, pixel) depend
//! neither on the number of rows nor on how operands are aligned; no cube reads what another one of
//! the same launch writes, and there are no atomics. Operands of a call may share a buffer; a result
//! may be an input itself where the call says so, because a unit reads such an input only where it
//! writes afterwards. No shape is refused for what it is divisible by.
//!
//! What needs f64, or more digits than devices promise, and follows from the sizes of a call alone is
//! made once by the host with the functions of the CPU kernels and is an operand: the angles of
//! position tables, the buckets of relative positions, the frequencies of timesteps. Noise has its
//! own sine, cosine and logarithm, good to a few units in the last place.
//!
//! # What the limits of a device mean
//!
//! An operand is bound as a whole, so the largest binding of a device (and of its memory pages) bounds
//! every operand, though not their sum. The largest are the activations at the end of the VAE:
//! frames x height x width x channels, for a chunk of 9 frames of 480 x 720 with 256 channels 1519 MiB
//! in f16 and 3038 MiB in f32. A device that binds 128 MiB, which is all that WebGPU promises and
//! what Mesa's software device has, holds such a chunk up to 112 x 128 in f32. A larger operand is
//! refused when its buffer is made, or when the call is prepared, with the bytes that are wanted and
//! those that can be bound. Whatever the device, an operand has fewer than 2^32 elements.
//!
//! # To add a kernel
//!
//! 1. A file named as that of the CPU kernel, with a struct of the same fields (`Operand<B>` in place
//!    of slices; plain types such as [`ModSegment`](crate::ModSegment) come from the crate's root)
//!    and `calls`, which checks lengths with `check::*` and `Operand::length`, element types with
//!    `same_element` (activations) or `Operand::is` (f32 vectors), in this order of arguments.
//! 2. A private `#[cube(launch_unchecked)]` function: arrays first, then `lead: &Sequence<u32>` with a
//!    number for each array, the place of its first vector (`x[lead[0] as usize + i]`), then scalars
//!    (`u32`, `f32`, `&Sequence<u32>` for lists), then `#[comptime]` choices, then
//!    `#[define(E)] _element: StorageType` for each element type. Sizes are scalars, not choices:
//!    every set of choices is another kernel to compile. An input that may be the result is declared
//!    `&mut`, so that no compiler assumes the two apart.
//! 3. `name::Name::<R>::new(units(..), device.client(), array().., list(arrays), ().., n, choices..,
//!    element.storage())` has one argument per parameter: `n` stands for the `Size` parameter, in
//!    front of the choices. `call::Builder` takes operands and scalars in the order of the
//!    parameters; `line(cubes)` is a grid to be counted with `CUBE_POS` or `ABSOLUTE_POS`.
//! 4. `fours` reads and writes four elements whether vectors can be used or not; `operand::width` says
//!    whether they can.
//! 5. A test in `tests/cube/` against the CPU kernel, odd sizes and skews included.

#![allow(
    clippy::too_many_arguments,
    reason = "a kernel's parameters are its bindings"
)]

mod activation;
#[cfg(feature = "wgpu")]
mod adapter;
mod attention;
mod attention_merge;
mod call;
mod cast;
mod conv3d;
mod conv_cache;
mod copy;
mod device;
mod embedding;
mod fours;
mod gate;
mod group_norm;
mod join;
mod linear;
mod math;
mod noise;
mod norm;
mod operand;
mod positions;
mod qk_norm_rope;
mod quantize;
mod queue;
mod sampler;
mod segments;
mod upsample;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use activation::{Activate, GatedGelu};
#[cfg(feature = "wgpu")]
pub use adapter::{Adapter, adapters};
pub use attention::{Attention, AttentionFinish, AttentionStep, HeadsView};
pub use attention_merge::AttentionMerge;
pub use call::{Call, Kernel};
pub use cast::Cast;
pub use conv_cache::ConvCache;
pub use conv3d::{Conv3d, ConvWeight};
pub use copy::CopyBox;
pub use device::Device;
pub use embedding::{
    RelativeBias, RelativeShape, TimestepEmbedding, TimestepShape, TokenEmbedding,
};
pub use gate::{Add, GateAdd};
pub use group_norm::{GroupNorm, GroupShape, Spatial};
pub use join::Join;
pub use linear::{Linear, LinearEpilogue, LinearGate};
pub use math::Function;
pub use noise::NoiseBox;
pub use norm::{Norm, NormModulate};
pub use operand::{Element, Operand};
pub use positions::{PositionConstants, PositionShape, PositionTable};
pub use qk_norm_rope::{HeadNorm, QkNormRope};
pub use quantize::QuantizeRows;
pub use queue::Queue;
pub use sampler::{Advance, Denoise};
pub use segments::Mods;
pub use upsample::Upsample;
#[cfg(feature = "wgpu")]
pub use wgpu::{WgpuLaunch, WgpuQueue};
