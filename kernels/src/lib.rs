//! Numeric kernels of Terrace: plain arguments in, numbers out.
//!
//! A kernel is a struct of slices and numbers with a `run` method, or a function. Kernels know shapes
//! and strides only: no plan, no mesh, no rank. They refuse operands whose lengths do not fit with a
//! [`KernelError`] and never panic on them.

pub mod cpu;
mod error;

pub use error::KernelError;
