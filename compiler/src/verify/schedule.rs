//! The schedule and the phases: from stage scheduled on.

use super::{Fault, Found};
use crate::ir::{Graph, NodeId, Phase};
use crate::ops::Op;
use std::collections::BTreeMap;

pub(super) fn check(graph: &Graph, found: &mut Found) {
    if graph.is_scheduled() {
        check_order(graph, found);
    } else {
        found.graph(Fault::Unscheduled);
    }
    for id in graph.ids() {
        check_phase(graph, id, found);
    }
}

fn check_order(graph: &Graph, found: &mut Found) {
    let order = graph.order();
    let mut positions = BTreeMap::new();
    for (at, &id) in order.iter().filter(|&&id| graph.contains(id)).enumerate() {
        if positions.insert(id, at).is_some() {
            found.at(id, Fault::Twice);
        }
    }
    let count = order.iter().filter(|&&id| !graph.contains(id)).count();
    if count > 0 {
        found.graph(Fault::Unknown { count });
    }
    for id in graph.ids() {
        let Some(at) = positions.get(&id) else {
            found.at(id, Fault::Missing);
            continue;
        };
        for (port, operand) in graph.operands(id).into_iter().enumerate() {
            if positions.get(&operand).is_some_and(|before| before > at) {
                found.at(id, Fault::Late { port });
            }
        }
    }
}

fn check_phase(graph: &Graph, id: NodeId, found: &mut Found) {
    match graph.node(id).phase {
        Phase::Step => {}
        Phase::Init => {
            if matches!(graph.node(id).op, Op::Input(_) | Op::Output(_)) {
                found.at(id, Fault::PortPhase);
            }
            let late = |&o: &NodeId| graph.node(o).phase == Phase::Step;
            if graph.operands(id).iter().any(late) {
                found.at(id, Fault::Phase);
            }
        }
    }
}
