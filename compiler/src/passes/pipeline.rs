//! The one ordered list of the passes over the whole graph, and the stage that each reaches.
//!
//! What follows the last of them works rank by rank and belongs to emit-plan: localize,
//! select-kernels and plan-memory.
//!
//! Invariants: the list is the same for every model and mesh; a pass that has nothing to do leaves
//! the graph as it is; the graph is verified as it comes and after every pass.

use super::{
    assign_slices, canonicalize, cast_activations, choose_precision, dedup, elide_reshards,
    fold_constants, fuse_epilogue, fuse_modulate, fuse_qk_norm_rope, fuse_qkv, hoist_modulation,
    insert_reshards, lower_attention, lower_reshards, propagate_sharding, remove_dead, schedule,
};
use crate::ir::{Graph, Stage};
use crate::verify::{verify, verify_after};
use crate::{CompileError, CompileOptions};

/// A pass over the whole graph.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Kebab-case name, used in dumps and errors.
    pub name: &'static str,
    /// Of the graph that the pass leaves.
    pub stage: Stage,
    run: Run,
}

type Run = fn(&mut Graph, &CompileOptions) -> Result<(), CompileError>;

const PASSES: &[Pass] = &[
    pass("canonicalize", canonicalize::run, Stage::Model),
    pass("fold-constants", fold_constants::run, Stage::Model),
    // Fusions ask whether a node has one user, so equal nodes are merged and unused ones gone.
    pass("dedup", dedup::run, Stage::Model),
    pass("remove-dead", remove_dead::run, Stage::Model),
    // Packs the products first: norms of heads and positions work on the packed tensor.
    pass("fuse-qkv", fuse_qkv::run, Stage::Fused),
    pass("fuse-qk-norm-rope", fuse_qk_norm_rope::run, Stage::Fused),
    pass("fuse-modulate", fuse_modulate::run, Stage::Fused),
    pass("fuse-epilogue", fuse_epilogue::run, Stage::Fused),
    // After the fusions: it rewrites every user of modulation, of which there are fewer now.
    pass("hoist-modulation", hoist_modulation::run, Stage::Fused),
    // After the joins of weights, of which it sees fewer now.
    pass("choose-precision", choose_precision::run, Stage::Fused),
    // All operands are known now, and no cut has been decided that a new node would need.
    pass("cast-activations", cast_activations::run, Stage::Fused),
    pass("assign-slices", assign_slices::run, Stage::Fused),
    pass(
        "propagate-sharding",
        propagate_sharding::run,
        Stage::Sharded,
    ),
    // Correctness first: every mismatch gets a reshard, then those that change nothing go.
    pass("insert-reshards", insert_reshards::run, Stage::Sharded),
    pass("elide-reshards", elide_reshards::run, Stage::Sharded),
    // Ring steps read whole blocks of keys, so they are made when attention's operands are cut
    // as it needs them; their shifts are collectives already.
    pass("lower-attention", lower_attention::run, Stage::Sharded),
    pass("lower-reshards", lower_reshards::run, Stage::Comm),
    // Last: any later change of the graph would clear the schedule.
    pass("schedule", schedule::run, Stage::Scheduled),
];

const fn pass(name: &'static str, run: Run, stage: Stage) -> Pass {
    Pass { name, stage, run }
}

impl Pass {
    /// Runs the pass and verifies what it leaves.
    ///
    /// # Errors
    /// The pass could not do its work, or has broken an invariant.
    pub fn run(&self, graph: &mut Graph, options: &CompileOptions) -> Result<(), CompileError> {
        (self.run)(graph, options)?;
        graph.stage = self.stage;
        verify_after(self.name, graph, self.stage)
    }
}

/// All passes, in order.
pub const fn passes() -> &'static [Pass] {
    PASSES
}

/// Names of the passes, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    PASSES.iter().map(|pass| pass.name)
}

/// Brings a graph from stage model to stage scheduled; `observe` is shown it after every pass.
///
/// # Errors
/// The graph breaks an invariant of its stage, or a pass could not do its work.
pub fn run(
    graph: &mut Graph,
    options: &CompileOptions,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(), CompileError> {
    verify(graph, Stage::Model)?;
    for pass in PASSES {
        pass.run(graph, options)?;
        observe(pass.name, graph);
    }
    Ok(())
}
