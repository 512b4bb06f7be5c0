//! Keeps the house rules that a compiler does not know. Each test names the place and the remedy.

#![allow(clippy::unwrap_used, clippy::panic)]

mod crates;
mod passes;
mod rust;
mod scan;
mod tree;
