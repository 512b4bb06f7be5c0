//! fold-constants: parts and joins of stored tensors become weights of their own.
//!
//! Kernels read weights in the layout in which they were packed at load, so a weight cannot be
//! moved at run time; what the loader can do, joining stored tensors along their first dimension,
//! is folded into the weight.
//!
//! ```text
//! before  %0 = weight layout=linear from=["k" [8, 4], "v" [8, 4]] : f32[o=16, i=4]
//!         %1 = take %0 o start=8 count=8 : f32[o=8, i=4]
//! after   %0 = weight layout=linear from=["v" [8, 4]] : f32[o=8, i=4]
//! ```
//!
//! A take that does not fall on the borders of stored tensors is left alone; emit-plan
//! refuses it.

use crate::ir::{Dim, Graph, NodeId, Type};
use crate::ops::{Op, Take, Weight};
use crate::{CompileError, CompileOptions};
use std::ops::Range;
use terrace_plan::WeightSource;

/// Runs the pass.
///
/// # Errors
/// None of its own; those of [`Graph::add`].
pub fn run(graph: &mut Graph, _options: &CompileOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        if let Some(weight) = folded(graph, id) {
            let path = graph.node(id).path.clone();
            graph.substitute(id, Op::Weight(weight), &[], &path)?;
        }
    }
    Ok(())
}

fn folded(graph: &Graph, id: NodeId) -> Option<Weight> {
    let node = graph.node(id);
    let weights = || -> Option<Vec<&Weight>> {
        let operands = graph.operands(id).into_iter();
        operands.map(|operand| weight(graph, operand)).collect()
    };
    if let Op::Take(take) = &node.op {
        return taken(weights()?.first()?, take, &node.ty);
    }
    if let Op::Concat(dim) = &node.op {
        let weights = weights()?;
        let outermost = |w: &&Weight| outer(w).is_some_and(|d| d.name == *dim);
        return weights
            .iter()
            .all(outermost)
            .then(|| Weight::joined(&weights))?;
    }
    None
}

fn weight(graph: &Graph, id: NodeId) -> Option<&Weight> {
    if let Op::Weight(weight) = &graph.node(id).op {
        return Some(weight);
    }
    None
}

/// The stored tensors that make up a range of the outermost factor.
fn taken(weight: &Weight, take: &Take, result: &Type) -> Option<Weight> {
    let [segment] = outer(weight)?.segments.as_slice() else {
        return None;
    };
    let (first, inner) = segment.factors.split_first()?;
    if first.name != take.factor {
        return None;
    }
    let unit: usize = inner.iter().map(|f| f.size).product();
    let rows = take.start * unit..(take.start + take.count) * unit;
    Some(Weight {
        sources: sources_of(weight, rows)?,
        dims: result.dims.clone(),
        layout: weight.layout,
        dtype: weight.dtype,
    })
}

/// The sources that hold exactly these rows.
fn sources_of(weight: &Weight, rows: Range<usize>) -> Option<Vec<WeightSource>> {
    let mut begin = 0;
    let mut sources = Vec::new();
    let mut found = 0;
    for source in &weight.sources {
        let end = begin + source.shape.first()?;
        if rows.start <= begin && end <= rows.end {
            sources.push(source.clone());
            found += end - begin;
        }
        begin = end;
    }
    let whole = outer(weight)?.size();
    (begin == whole && found == rows.len()).then_some(sources)
}

fn outer(weight: &Weight) -> Option<&Dim> {
    weight.dims.first()
}
