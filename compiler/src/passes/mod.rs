//! Passes, one per file, and the ordered list of them in `pipeline.rs`.
