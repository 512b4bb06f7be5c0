//! Memory, queues and libraries of a GPU of NVIDIA's: what they compute against the host, on the GPU that
//! `TERRACE_TEST_DEVICE` names (`cuda` or `cuda:N`).

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod best;
mod conv;
mod fp8;
mod gpu;
mod memory;
mod product;
