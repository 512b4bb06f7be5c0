//! What several tests of this package share: reading videos back, judging what they show, and the device
//! that they run on.

// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code)]

pub mod clips;
pub mod device;
pub mod mp4;
pub mod watch;
