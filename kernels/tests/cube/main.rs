//! The CubeCL kernels against the CPU kernels, in every floating type that the device of the suite has.
//!
//! All operands of a test lie in one buffer, with elements between them that nobody may change.

#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod activation;
mod arena;
mod attention;
mod attention_merge;
mod conv3d;
mod copy;
mod device;
mod embedding;
mod frames;
mod gate;
mod group_norm;
mod linear;
mod norm;
mod qk_norm_rope;
mod quantize;
mod refusals;
mod sampler;
