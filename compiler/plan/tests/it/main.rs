//! Tests of the plan format through its public API.

#![allow(clippy::unwrap_used, clippy::panic)]

mod build;
mod cases;
mod check;
mod explain;
mod file;
mod hostile;
mod kernels;
mod variants;
