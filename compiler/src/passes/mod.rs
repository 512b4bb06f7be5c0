//! Passes, one per file, and the ordered list of them in `pipeline.rs`.
pub mod assign_slices;
pub mod elide_reshards;
pub mod emit_plan;
pub mod insert_reshards;
pub mod localize;
pub mod lower_attention;
pub mod lower_reshards;
pub mod pipeline;
pub mod plan_memory;
pub mod propagate_sharding;
pub mod schedule;
pub mod select_kernels;
