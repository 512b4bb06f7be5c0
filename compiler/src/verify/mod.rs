//! The verifier: what must hold of a graph at each stage, checked after every pass in every build.
//!
//! All violations are collected, each with its node's line. They are bugs of the compiler or of a
//! lowering, never of a user.
//!
//! | from stage | must hold |
//! |---|---|
//! | model | no cycles; types are those that ops infer; names are words, factors unique within a type; inputs and outputs have names of their own; outputs have no users; no fused ops; nothing cut |
//! | fused | fused ops are legal; every node but inputs reaches an output |
//! | sharded | shardings fit types and mesh; reshards and ring steps are legal |
//! | comm | no reshards, no attention over rows cut by the ring; every operand and result is cut as its op needs, collectives lead from one cut to the other |
//! | scheduled | the schedule is a topological order of all nodes; what runs at init needs init alone |
//! | local | nothing is cut; types are those of parts and not inferred |
//!
//! Dead code is legal at stage model only, where remove-dead runs; later passes clean up behind
//! themselves. That operand ports are dense holds by construction of [`Graph`]. Everything here is
//! near linear in the number of nodes; text is made only once a violation was found.

mod cuts;
mod legal;
mod schedule;
mod shardings;
mod structure;
mod violation;

pub use crate::ir::Stage;
pub use violation::{Fault, Violation, Violations};

use crate::CompileError;
use crate::ir::{Graph, NodeId};
use crate::text::Lines;

/// Verifies a graph that no pass has made.
///
/// # Errors
/// [`CompileError::Broken`] with every violation.
pub fn verify(graph: &Graph, stage: Stage) -> Result<(), CompileError> {
    check(graph, stage, None)
}

/// Verifies what the pass of this name has left.
///
/// # Errors
/// [`CompileError::Broken`] with every violation, which names the pass.
pub fn verify_after(pass: &'static str, graph: &Graph, stage: Stage) -> Result<(), CompileError> {
    check(graph, stage, Some(pass))
}

fn check(graph: &Graph, stage: Stage, pass: Option<&'static str>) -> Result<(), CompileError> {
    let mut found = Found::default();
    structure::check(graph, stage, &mut found);
    legal::check(graph, stage, &mut found);
    shardings::check(graph, stage, &mut found);
    if stage >= Stage::Scheduled {
        schedule::check(graph, &mut found);
    }
    // Only cuts that are well formed can be compared with those that ops need.
    if found.0.is_empty() && matches!(stage, Stage::Comm | Stage::Scheduled) {
        cuts::check(graph, &mut found);
    }
    if found.0.is_empty() {
        return Ok(());
    }
    let lines = Lines::of(graph);
    let violations = found.0.into_iter().map(|(node, fault)| Violation {
        line: node.map(|id| lines.line(id)),
        fault,
    });
    Err(CompileError::Broken(Violations {
        graph: graph.name().into(),
        stage,
        pass,
        violations: violations.collect(),
    }))
}

/// Faults found so far, with the nodes that they are about.
#[derive(Default)]
struct Found(Vec<(Option<NodeId>, Fault)>);

impl Found {
    fn at(&mut self, node: NodeId, fault: Fault) {
        self.0.push((Some(node), fault));
    }

    fn graph(&mut self, fault: Fault) {
        self.0.push((None, fault));
    }
}
