//! What several tests of this package share: reading videos back, and judging what they show.

// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code)]

pub mod clips;
pub mod mp4;
pub mod watch;
