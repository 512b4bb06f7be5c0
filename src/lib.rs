//! Terrace.
pub mod video;
