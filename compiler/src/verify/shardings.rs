//! Shardings by themselves: they fit the tensor's type and the mesh.
//!
//! An axis cuts a tensor once. In a sum of segments, `seq=(txt | t h w)`, it cuts every segment or
//! none: a segment left whole on every rank would count several times once the sum is gathered.

use super::{Fault, Found};
use crate::ir::{Dim, Factor, Graph, Group, Name, NodeId, Partition, Segment, Stage, Type};
use crate::ops::Op;
use crate::partition::merge_parts;
use terrace_plan::{Axis, Mesh};

pub(super) fn check(graph: &Graph, stage: Stage, found: &mut Found) {
    check_slices(graph, found);
    for id in graph.ids() {
        let node = graph.node(id);
        if matches!(stage, Stage::Model | Stage::Fused | Stage::Local) {
            if !node.sharding.is_replicated() {
                found.at(id, Fault::Uncuttable);
            }
        } else {
            check_node(graph, id, found);
        }
    }
}

fn check_slices(graph: &Graph, found: &mut Found) {
    let slices = &graph.slices;
    for (factors, partition) in slices.rows.iter().chain(&slices.heads) {
        let group = Group(factors.iter().map(|f| f.name.clone()).collect());
        check_partition(&group, factors, partition, graph.mesh, &mut |fault| {
            found.graph(fault);
        });
    }
    for (factors, rows) in &slices.rows {
        let inside = slices.heads.iter().find(|(f, _)| f == factors);
        let Some((_, heads)) = inside else { continue };
        let merged = rows.parts().checked_div(heads.parts()).unwrap_or(0);
        if merge_parts(&rows.offsets, merged.max(1)) != heads.offsets {
            let (rows, heads) = (rows.to_string(), heads.to_string());
            found.graph(Fault::Slices { rows, heads });
        }
    }
}

fn check_node(graph: &Graph, id: NodeId, found: &mut Found) {
    let node = graph.node(id);
    let mut places = Vec::new();
    for (group, partition) in &node.sharding.0 {
        let Some((place, factors)) = side_by_side(&node.ty, &group.0) else {
            let group = group.to_string();
            found.at(id, Fault::NoGroup { group });
            continue;
        };
        check_partition(group, factors, partition, graph.mesh, &mut |fault| {
            found.at(id, fault);
        });
        places.extend(partition.axes.iter().map(|&axis| (axis, place)));
    }
    for axis in Axis::ALL {
        let places: Vec<Place> = places
            .iter()
            .filter(|(a, _)| *a == axis)
            .map(|(_, place)| *place)
            .collect();
        check_axis(&node.ty, axis, &places, &mut |fault| found.at(id, fault));
    }
    check_shared(id, node.sharding.0.keys(), found);
    if let Op::Reshard(made) = &node.op
        && *made != node.sharding
    {
        let made = made.to_string();
        found.at(id, Fault::Reshard { made });
    }
}

/// Where a group lies: its dimension and its segment.
type Place = (usize, usize);

/// The factors of these names, when one segment has them side by side in this order.
fn side_by_side<'a>(ty: &'a Type, names: &[Name]) -> Option<(Place, &'a [Factor])> {
    if names.is_empty() {
        return None;
    }
    let run = |segment: &'a Segment| {
        let mut runs = segment.factors.windows(names.len());
        runs.find(|run| run.iter().map(|f| &f.name).eq(names))
    };
    ty.dims.iter().enumerate().find_map(|(d, dim)| {
        let mut segments = dim.segments.iter().enumerate();
        segments.find_map(|(s, segment)| Some(((d, s), run(segment)?)))
    })
}

fn check_axis(ty: &Type, axis: Axis, places: &[Place], fault: &mut dyn FnMut(Fault)) {
    let Some(&(dim, _)) = places.first() else {
        return;
    };
    let mut segments: Vec<usize> = places.iter().map(|(_, segment)| *segment).collect();
    segments.sort_unstable();
    segments.dedup();
    let axis = axis.name();
    if segments.len() < places.len() || places.iter().any(|(d, _)| *d != dim) {
        fault(Fault::SharedAxis { axis });
    } else if segments.len() < ty.dims.get(dim).map_or(0, |d: &Dim| d.segments.len()) {
        let dim = ty.dims[dim].name.to_string();
        fault(Fault::HalfCut { axis, dim });
    }
}

fn check_shared<'a>(id: NodeId, groups: impl Iterator<Item = &'a Group>, found: &mut Found) {
    let mut names: Vec<&Name> = groups.flat_map(|g| &g.0).collect();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        let factor = pair[0].to_string();
        found.at(id, Fault::SharedFactor { factor });
    }
}

fn check_partition(
    group: &Group,
    factors: &[Factor],
    partition: &Partition,
    mesh: Mesh,
    fault: &mut dyn FnMut(Fault),
) {
    let size: usize = factors.iter().map(|f| f.size).product();
    let offsets = &partition.offsets;
    let ends = (offsets.first().copied(), offsets.last().copied());
    if ends != (Some(0), Some(size)) || !offsets.is_sorted() {
        fault(Fault::Offsets {
            group: group.to_string(),
            offsets: offsets.clone(),
            size,
        });
    }
    let ranks: usize = partition.axes.iter().map(|&a| mesh.size(a)).product();
    if partition.parts() != ranks || partition.axes.is_empty() {
        fault(Fault::Parts {
            group: group.to_string(),
            parts: partition.parts(),
            ranks,
        });
    }
    let ring = match partition.axes.contains(&Axis::Ring) {
        true => mesh.ring,
        false => 1,
    };
    if partition.shift >= ring {
        fault(Fault::Shift {
            group: group.to_string(),
            shift: partition.shift,
            ring,
        });
    }
}
