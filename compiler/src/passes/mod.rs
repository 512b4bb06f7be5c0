//! Passes, one per file, and the ordered list of them in `pipeline.rs`.

pub mod assign_slices;
pub mod canonicalize;
pub mod cast_activations;
pub mod choose_precision;
pub mod dedup;
pub mod elide_reshards;
pub mod emit_plan;
pub mod fold_constants;
pub mod fuse_epilogue;
pub mod fuse_modulate;
pub mod fuse_qk_norm_rope;
pub mod fuse_qkv;
pub mod hoist_modulation;
pub mod insert_reshards;
mod joint_linear;
pub mod localize;
pub mod lower_attention;
pub mod lower_reshards;
pub mod pipeline;
pub mod plan_memory;
pub mod propagate_sharding;
pub mod remove_dead;
pub mod schedule;
pub mod select_kernels;
