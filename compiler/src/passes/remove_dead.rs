//! remove-dead: nodes that no output needs go.
//!
//! ```text
//! before  %0 = input "x" : f32[b=1, c=8]
//!         %1 = activate %0 silu : f32[b=1, c=8]
//!         %2 = output %0 "y" : f32[b=1, c=8]
//! after   %0 = input "x" : f32[b=1, c=8]
//!         %1 = output %0 "y" : f32[b=1, c=8]
//! ```
//!
//! Inputs stay: what the caller may bind does not depend on what a model does with it.

use crate::ir::Graph;
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order().into_iter().rev() {
        if graph.contains(id) {
            graph.erase_unused(id);
        }
    }
    Ok(())
}
