//! The one ordered list of the passes over the whole graph.
//!
//! What follows the last of them works rank by rank and belongs to emit-plan: localize,
//! select-kernels and plan-memory.
//!
//! Invariants: the list is the same for every model and mesh; a pass that has nothing to do leaves
//! the graph as it is.

use super::{
    assign_slices, canonicalize, dedup, elide_reshards, fold_constants, fuse_epilogue,
    fuse_modulate, fuse_qk_norm_rope, fuse_qkv, hoist_modulation, insert_reshards, lower_attention,
    lower_reshards, propagate_sharding, remove_dead, schedule,
};
use crate::ir::Graph;
use crate::{CompileError, CompileOptions};

/// A pass over the whole graph.
#[derive(Clone, Copy)]
struct Pass {
    name: &'static str,
    run: fn(&mut Graph, &CompileOptions) -> Result<(), CompileError>,
}

const PASSES: &[Pass] = &[
    pass("canonicalize", canonicalize::run),
    pass("fold-constants", fold_constants::run),
    // Fusions ask whether a node has one user, so equal nodes are merged and unused ones gone.
    pass("dedup", dedup::run),
    pass("remove-dead", remove_dead::run),
    // Packs the products first: norms of heads and positions work on the packed tensor.
    pass("fuse-qkv", fuse_qkv::run),
    pass("fuse-qk-norm-rope", fuse_qk_norm_rope::run),
    pass("fuse-modulate", fuse_modulate::run),
    pass("fuse-epilogue", fuse_epilogue::run),
    // After the fusions: it rewrites every user of modulation, of which there are fewer now.
    pass("hoist-modulation", hoist_modulation::run),
    pass("assign-slices", assign_slices::run),
    pass("propagate-sharding", propagate_sharding::run),
    // Correctness first: every mismatch gets a reshard, then those that change nothing go.
    pass("insert-reshards", insert_reshards::run),
    pass("elide-reshards", elide_reshards::run),
    // Ring steps read whole blocks of keys, so they are made when attention's operands are cut
    // as it needs them; their shifts are collectives already.
    pass("lower-attention", lower_attention::run),
    pass("lower-reshards", lower_reshards::run),
    // Last: any later change of the graph would clear the schedule.
    pass("schedule", schedule::run),
];

const fn pass(
    name: &'static str,
    run: fn(&mut Graph, &CompileOptions) -> Result<(), CompileError>,
) -> Pass {
    Pass { name, run }
}

/// Names of the passes, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    PASSES.iter().map(|pass| pass.name)
}

/// Runs every pass; `observe` is shown the graph after each.
///
/// # Errors
/// The error of the pass that could not do its work.
pub fn run(
    graph: &mut Graph,
    options: &CompileOptions,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(), CompileError> {
    for pass in PASSES {
        (pass.run)(graph, options)?;
        observe(pass.name, graph);
    }
    Ok(())
}
