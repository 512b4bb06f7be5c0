//! emit-plan: writes the plan of a scheduled graph, one list of steps per rank.
//!
//! ```text
//! before  %4 = all_to_all %3 axis=ulysses gather=seq split=c : f32[...] @{...}   ; blocks.0.attn1
//! after   rank 0: exchange c0 p0 b3 -> b4 ; launch qk_norm_rope ... ; wait c0 ; free b3
//! ```
//!
//! Nothing is decided here that the graph does not say already: cuts come from the shardings, order
//! from the schedule, kernels from select-kernels, offsets from plan-memory. The output is a
//! function of the graph and its provenance alone.

mod buffers;
mod exchanges;
mod movement;
mod rank;
mod tables;

use crate::ir::{Dim, Graph, Node, NodeId};
use crate::ops::{Input, Op, Output};
use crate::passes::localize::Parts;
use crate::{CompileError, Provenance};
use exchanges::Exchanges;
use rank::{Context, Emitted};
use std::collections::BTreeMap;
use tables::{Origins, Weights};
use terrace_plan::{
    Binding, Carry, Coords, Header, NamedPartition, Plan, Port, Rank, RankPlan, WeightId,
};

/// The plan of a graph at Scheduled stage.
///
/// # Errors
/// An op has no kernel in its form, or two layouts have no common raster.
pub fn run(graph: &Graph, provenance: &Provenance) -> Result<Plan, CompileError> {
    let order = graph.order();
    let ports = Ports::of(graph, &order);
    let exchanges = Exchanges::of(graph)?;
    let parts = Parts::of(graph);
    let mut origins = Origins::default();
    let mut weights = Weights::default();
    let mut held = BTreeMap::new();
    let mut ranks = Vec::with_capacity(graph.mesh.ranks());
    for rank in (0..graph.mesh.ranks()).map(Rank) {
        let coords = graph.mesh.coords(rank);
        let local = parts.at(rank);
        hold_weights(graph, &order, coords, &mut weights, &mut held)?;
        let context = Context {
            graph,
            order: &order,
            exchanges: &exchanges,
            local: &local,
            rank,
            coords,
            weights: &held,
        };
        let emitted = rank::emit(&context, &mut origins)?;
        ranks.push(ports.bind(graph, coords, emitted)?);
    }
    Ok(Plan {
        header: Header {
            format: Header::FORMAT,
            producer: provenance.producer.clone(),
            graph: graph.name().to_owned(),
            fingerprint: provenance.fingerprint.clone(),
            request: provenance.request.clone(),
        },
        mesh: graph.mesh,
        partitions: partitions(graph, &order),
        inputs: ports
            .inputs
            .iter()
            .map(|p| port(&p.1.name, p.0, &p.1.host, graph))
            .collect(),
        outputs: ports
            .outputs
            .iter()
            .map(|p| port(&p.1.name, p.0, &p.1.host, graph))
            .collect(),
        carries: ports.carries(graph),
        weights: weights.into_list(),
        collectives: exchanges.collectives,
        origins: origins.into_list(),
        ranks,
    })
}

/// Inputs and outputs in order of creation.
struct Ports<'a> {
    inputs: Vec<(NodeId, &'a Input)>,
    outputs: Vec<(NodeId, &'a Output)>,
}

impl<'a> Ports<'a> {
    fn of(graph: &'a Graph, order: &[NodeId]) -> Self {
        let mut ids = order.to_vec();
        ids.sort_unstable();
        let mut ports = Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for id in ids {
            if let Op::Input(input) = &graph.node(id).op {
                ports.inputs.push((id, input));
            } else if let Op::Output(output) = &graph.node(id).op {
                ports.outputs.push((id, output));
            }
        }
        ports
    }

    /// Adds the bindings of a rank to its plan.
    fn bind(
        &self,
        graph: &Graph,
        coords: Coords,
        emitted: Emitted,
    ) -> Result<RankPlan, CompileError> {
        let Emitted { mut plan, values } = emitted;
        for (port, (id, input)) in self.inputs.iter().enumerate() {
            plan.inputs.push(Binding {
                port,
                buffer: values[id],
                boxes: movement::input_boxes(graph, graph.node(*id), input, coords)?,
            });
        }
        for (port, (id, output)) in self.outputs.iter().enumerate() {
            let value = graph.operands(*id)[0];
            let node = graph.node(value);
            let computed = values.get(&value).ok_or_else(|| uncomputed(graph, *id))?;
            plan.outputs.push(Binding {
                port,
                buffer: *computed,
                boxes: movement::output_boxes(graph, node, output, coords)?,
            });
        }
        Ok(plan)
    }

    /// An output carries over to the input of the same name and shape.
    fn carries(&self, graph: &Graph) -> Vec<Carry> {
        let mut carries = Vec::new();
        for (output, (id, o)) in self.outputs.iter().enumerate() {
            let same = |(other, i): &(NodeId, &Input)| {
                i.name == o.name && i.host == o.host && graph.node(*other).ty == graph.node(*id).ty
            };
            if let Some(input) = self.inputs.iter().position(same) {
                carries.push(Carry { output, input });
            }
        }
        carries
    }
}

fn uncomputed(graph: &Graph, output: NodeId) -> CompileError {
    let node = graph.node(output);
    CompileError::NoKernel {
        op: node.op.name(),
        path: node.path.to_string(),
        reason: "a weight lies packed in memory and cannot be an output".into(),
    }
}

fn port(name: &str, id: NodeId, host: &[Dim], graph: &Graph) -> Port {
    Port {
        name: name.to_owned(),
        dtype: graph.node(id).ty.dtype,
        shape: host.iter().map(Dim::size).collect(),
    }
}

/// Makes `held` what the rank at `coords` holds, from what the rank before it holds.
fn hold_weights(
    graph: &Graph,
    order: &[NodeId],
    coords: Coords,
    weights: &mut Weights,
    held: &mut BTreeMap<NodeId, WeightId>,
) -> Result<(), CompileError> {
    for &id in order {
        let node = graph.node(id);
        let kept = node.sharding.is_replicated() && held.contains_key(&id);
        if let (Op::Weight(weight), false) = (&node.op, kept) {
            held.insert(id, weights.intern(node, weight, &graph.mesh, coords)?);
        }
    }
    Ok(())
}

/// The cuts that assign-slices made, for those who read the plan.
fn partitions(graph: &Graph, order: &[NodeId]) -> Vec<NamedPartition> {
    let heads = graph.slices.heads.iter();
    let only_heads = heads.filter(|(factors, _)| {
        let rows = &graph.slices.rows;
        !rows.iter().any(|(other, _)| other == factors)
    });
    graph
        .slices
        .rows
        .iter()
        .chain(only_heads)
        .map(|(factors, partition)| {
            let names: Vec<&str> = factors.iter().map(|f| &*f.name).collect();
            NamedPartition {
                factors: names.join("."),
                sizes: factors.iter().map(|f| f.size).collect(),
                repeat: order
                    .iter()
                    .find_map(|&id| repeat_in(graph.node(id), &names))
                    .unwrap_or(1),
                axes: partition.axes.clone(),
                offsets: partition.offsets.clone(),
            }
        })
        .collect()
}

/// How many tokens of a sequence one unit of the raster stands for.
fn repeat_in(node: &Node, raster: &[&str]) -> Option<usize> {
    if raster.len() < 2 {
        return None;
    }
    let mut segments = node.ty.dims.iter().flat_map(|d| &d.segments);
    let segment = segments.find(|s| {
        let holds = |name: &&str| s.factors.iter().any(|f| &*f.name == *name);
        s.factors.len() > raster.len() && raster.iter().all(holds)
    })?;
    let others = segment
        .factors
        .iter()
        .filter(|f| !raster.contains(&&*f.name));
    Some(others.map(|f| f.size).product())
}
