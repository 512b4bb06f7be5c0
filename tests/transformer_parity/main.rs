//! The transformer against diffusers, on one rank and on every mesh.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/device.rs"]
mod device;

mod cases;
mod forward;
mod rounded;
mod step;
