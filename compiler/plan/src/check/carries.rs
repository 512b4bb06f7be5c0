//! Checks of carries: outputs that become inputs of the next call without leaving the ranks.
//!
//! A carry must do what delivering the output and giving it back as the input would do, so both
//! sides hold the same part on every rank, box for box, and no carry may destroy what another still
//! needs.

use super::violation::{CarryFault, PlanViolation, Side, Violations};
use crate::{BoxCopy, Carry, Plan, Port, Rank, RankPlan, Region};
use std::collections::BTreeSet;

pub(super) fn check_carries(plan: &Plan, found: &mut Violations) {
    let filled: Vec<BTreeSet<usize>> = plan.ranks.iter().map(|rank| filled(plan, rank)).collect();
    let mut carried = BTreeSet::new();
    for (index, carry) in plan.carries.iter().enumerate() {
        let mut fault = check_carry(plan, carry, &filled);
        if fault.is_ok() && !carried.insert(carry.input) {
            fault = Err(CarryFault::Twice {
                input: plan.inputs[carry.input].name.clone(),
            });
        }
        if let Err(fault) = fault {
            found.push(PlanViolation::Carry { index, fault });
        }
    }
}

/// Buffers of a rank that carries fill.
fn filled(plan: &Plan, rank: &RankPlan) -> BTreeSet<usize> {
    plan.carries
        .iter()
        .filter_map(|carry| Some(rank.inputs.get(carry.input)?.buffer.0))
        .collect()
}

fn check_carry(plan: &Plan, carry: &Carry, filled: &[BTreeSet<usize>]) -> Result<(), CarryFault> {
    let missing = |side, found, count| CarryFault::Port { side, found, count };
    let output = plan
        .outputs
        .get(carry.output)
        .ok_or_else(|| missing(Side::Output, carry.output, plan.outputs.len()))?;
    let input = plan
        .inputs
        .get(carry.input)
        .ok_or_else(|| missing(Side::Input, carry.input, plan.inputs.len()))?;
    if output.shape != input.shape || output.dtype != input.dtype {
        return Err(CarryFault::Ports {
            output: output.name.clone(),
            found_dtype: output.dtype,
            found: output.shape.clone(),
            input: input.name.clone(),
            dtype: input.dtype,
            shape: input.shape.clone(),
        });
    }
    let ranks = plan.ranks.iter().zip(filled).enumerate();
    for (index, (rank, filled)) in ranks {
        check_rank(Rank(index), rank, filled, carry, (output, input))?;
    }
    Ok(())
}

fn check_rank(
    rank: Rank,
    here: &RankPlan,
    filled: &BTreeSet<usize>,
    carry: &Carry,
    (output, input): (&Port, &Port),
) -> Result<(), CarryFault> {
    // Missing bindings and buffers are violations of their own.
    let (Some(from), Some(to)) = (here.outputs.get(carry.output), here.inputs.get(carry.input))
    else {
        return Ok(());
    };
    let (Some(source), Some(target)) = (
        here.buffers.get(from.buffer.0),
        here.buffers.get(to.buffer.0),
    ) else {
        return Ok(());
    };
    if source.len != target.len {
        return Err(CarryFault::Buffers {
            rank,
            output: from.buffer.0,
            found: source.len,
            input: to.buffer.0,
            expected: target.len,
        });
    }
    if target.region == Region::Arena {
        return Err(CarryFault::Arena {
            rank,
            buffer: to.buffer.0,
            input: input.name.clone(),
        });
    }
    if filled.contains(&from.buffer.0) {
        return Err(CarryFault::Overwritten {
            rank,
            output: output.name.clone(),
            buffer: from.buffer.0,
        });
    }
    // A rank that delivers nothing holds a copy of what another one delivers.
    if !from.boxes.is_empty() && parts(&from.boxes, Way::Out) != parts(&to.boxes, Way::In) {
        return Err(CarryFault::Parts {
            rank,
            output: output.name.clone(),
            input: input.name.clone(),
        });
    }
    Ok(())
}

/// Whether boxes lead from the rank to the host tensor or back.
#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

/// One box between a rank's buffer and the host tensor: first elements, then `(stride in the
/// buffer, stride in the host tensor, extent)` of every dimension, outermost first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    local: usize,
    host: usize,
    dims: Vec<(usize, usize, usize)>,
}

/// Boxes in one order, whichever way they lead and however their dimensions are split.
fn parts(boxes: &[BoxCopy], way: Way) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = boxes.iter().map(|copy| piece(copy, way)).collect();
    pieces.sort_unstable();
    pieces
}

fn piece(copy: &BoxCopy, way: Way) -> Piece {
    let src = (copy.src_offset, &copy.src_strides);
    let dst = (copy.dst_offset, &copy.dst_strides);
    let ((local, local_strides), (host, host_strides)) = match way {
        Way::Out => (src, dst),
        Way::In => (dst, src),
    };
    let strides = local_strides.iter().zip(host_strides);
    let mut dims: Vec<(usize, usize, usize)> = strides
        .zip(&copy.extents)
        .map(|((&local, &host), &extent)| (local, host, extent))
        .filter(|(_, _, extent)| *extent != 1)
        .collect();
    dims.sort_unstable_by(|a, b| b.cmp(a));
    dims.dedup_by(|inner, outer| joined(outer, *inner));
    Piece { local, host, dims }
}

/// Joins a dimension to the one around it when together they are one.
fn joined(outer: &mut (usize, usize, usize), inner: (usize, usize, usize)) -> bool {
    let (local, host, extent) = inner;
    let steps = |stride: usize| stride.checked_mul(extent);
    let (Some(elements), true) = (
        outer.2.checked_mul(extent),
        steps(local) == Some(outer.0) && steps(host) == Some(outer.1),
    ) else {
        return false;
    };
    *outer = (local, host, elements);
    true
}
