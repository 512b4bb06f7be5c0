//! fuse-epilogue: activations, residuals and gates become part of the product before them.
//!
//! ```text
//! before  %4 = linear %2 %3 out=[c=8] : f32[b=1, seq=4, c=8]   ; ff.net.2
//!         %5 = residual %0 %4 %1 gates=[5] : f32[b=1, seq=4, c=8]   ; ff
//! after   %4 = linear %2 %3 %0 %1 out=[c=8] epilogue=gated_residual[5] : f32[b=1, seq=4, c=8]   ; ff.net.2
//! ```
//!
//! A product that something else uses too is left alone, and so is a residual whose type names
//! other factors than the product.

use crate::ir::{Graph, NodeId};
use crate::ops::{Linear, LinearEpilogue, Op};
use crate::{CompileError, CompileOptions};

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if let Some(follower) = follower(graph, id)
            && let Some(linear) = plain_product(graph, id, follower.product)
        {
            let path = graph.node(follower.product).path.clone();
            let mut operands = graph.operands(follower.product);
            operands.extend(follower.extra);
            let op = Op::Linear(Linear {
                epilogue: follower.epilogue,
                ..linear
            });
            graph.substitute(id, op, &operands, &path)?;
        }
    }
    Ok(())
}

/// What can follow a product in its kernel.
struct Follower {
    product: NodeId,
    epilogue: LinearEpilogue,
    /// Residual and modulation.
    extra: Vec<NodeId>,
}

fn follower(graph: &Graph, id: NodeId) -> Option<Follower> {
    let operands = graph.operands(id);
    if let Op::Activate(function) = graph.node(id).op {
        return Some(Follower {
            product: operands[0],
            epilogue: LinearEpilogue::Activate(function),
            extra: Vec::new(),
        });
    }
    if let Op::Residual(gates) = &graph.node(id).op {
        let epilogue = gates.as_ref().map_or(LinearEpilogue::Residual, |gates| {
            LinearEpilogue::GatedResidual(gates.clone())
        });
        let extra = operands.iter().copied().enumerate();
        return Some(Follower {
            product: operands[1],
            epilogue,
            extra: extra
                .filter(|(port, _)| *port != 1)
                .map(|(_, o)| o)
                .collect(),
        });
    }
    None
}

/// The product, when nothing is fused to it yet and `user` alone uses it.
fn plain_product(graph: &Graph, user: NodeId, id: NodeId) -> Option<Linear> {
    let Op::Linear(linear) = &graph.node(id).op else {
        return None;
    };
    let fits = linear.epilogue == LinearEpilogue::None
        && graph.uses(id) == 1
        && graph.node(id).ty == graph.node(user).ty;
    fits.then(|| linear.clone())
}
