//! Numeric kernels of Terrace: plain arguments in, numbers out.
//!
//! A kernel is a struct of slices and numbers with a `run` method, or a function. Kernels know shapes
//! and strides only: no plan, no mesh, no rank. They refuse operands whose lengths do not fit with a
//! [`KernelError`] and never panic on them. Work is divided in the rayon pool of the caller; results
//! do not depend on its size.
//!
//! ```
//! use terrace_kernels::cpu::{Input, ModSegment, Mods, Norm, NormModulate};
//!
//! // One row of four elements, normalised, then doubled (1 + scale) and shifted by 10.
//! let modulation = [10.0, 10.0, 10.0, 10.0, 1.0, 1.0, 1.0, 1.0];
//! let mut y = [0.0; 4];
//! NormModulate {
//!     batch: 1,
//!     width: 4,
//!     segments: &[ModSegment { rows: 1, shift: 0, scale: 4 }],
//!     norm: Norm::Layer { eps: 0.0, weight: None, bias: None },
//!     mods: Some(Mods { data: &modulation, stride: 8 }),
//!     x: Input::Apart(&[-1.0, 1.0, -1.0, 1.0]),
//!     y: &mut y,
//! }
//! .run()?;
//! assert_eq!(y, [8.0, 12.0, 8.0, 12.0]);
//! # Ok::<(), terrace_kernels::KernelError>(())
//! ```

mod args;
mod boxes;
mod check;
pub mod cpu;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub mod cube;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
pub mod f8e4m3;
mod scale;

pub use args::{GateSegment, ModSegment, StepStage};
pub use boxes::MAX_BOX_RANK;
pub use error::KernelError;
pub use scale::Scale;
