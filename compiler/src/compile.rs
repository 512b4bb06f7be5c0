//! From a model graph to a plan.

use crate::ir::Graph;
use crate::passes::{emit_plan, pipeline};
use crate::{CompileError, CompileOptions, Provenance};
use terrace_plan::Plan;

/// Compiles a graph at Model stage: runs every pass, verifies after each, and proves the plan.
///
/// The result depends on the arguments alone; equal arguments give byte-identical plans.
/// `observe` is shown the graph after every pass, under the pass's name.
///
/// # Errors
/// The graph cannot be cut over the mesh, an op has no kernel, or a pass broke an invariant.
pub fn compile(
    mut graph: Graph,
    options: &CompileOptions,
    provenance: &Provenance,
    observe: &mut dyn FnMut(&'static str, &Graph),
) -> Result<Plan, CompileError> {
    pipeline::run(&mut graph, options, observe)?;
    let plan = emit_plan::run(&graph, provenance)?;
    plan.check().map_err(|errors| CompileError::InvalidPlan {
        violations: errors.to_string(),
    })?;
    Ok(plan)
}
