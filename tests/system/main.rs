//! The whole system: the shipped checkpoint against its reference, and the command line as users
//! meet it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod commands;
mod demo_parity;
mod generate;
#[cfg(target_os = "linux")]
mod memory;
mod plans;
mod processes;
mod refusals;
mod support;
#[cfg(feature = "wgpu")]
mod wgpu;
