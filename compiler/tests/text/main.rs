//! The text form: snapshots of small graphs, `parse(print(g)) == g` over random graphs, and what
//! the parser says about wrong texts.

#![allow(clippy::unwrap_used, clippy::panic)]

mod dice;
mod errors;
mod every_op;
mod families;
mod maker;
mod random;
mod snapshots;
