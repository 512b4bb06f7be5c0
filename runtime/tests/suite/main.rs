//! Tests of the runtime through its public interface: hand-made plans, checkpoints on disk, faults.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod boxes;
mod checkpoints;
mod common;
mod failures;
mod kernels;
mod processes;
mod refusals;
mod running;
mod tensors;
mod tracing;
#[cfg(feature = "wgpu")]
mod wgpu;
mod world;
