//! Proof that the ranks together deliver every element of an output exactly once.
//!
//! The number of elements delivered must be the size of the port. Up to
//! [`EXACT_ELEMENTS`] each element is marked off; beyond, each box is known to write distinct
//! places (its own check) and only the count is proved.

use super::tables::PortSizes;
use super::violation::PlanViolation;
use crate::geometry::check_box;
use crate::{BoxCopy, Plan, Port};

/// Outputs up to this size are proved element by element.
const EXACT_ELEMENTS: usize = 1 << 24;

pub(super) fn check_outputs(plan: &Plan, ports: &PortSizes, found: &mut Vec<PlanViolation>) {
    for (index, (port, size)) in plan.outputs.iter().zip(&ports.outputs).enumerate() {
        let Some(size) = *size else { continue };
        let boxes = plan
            .ranks
            .iter()
            .filter_map(|rank| rank.outputs.get(index))
            .flat_map(|binding| &binding.boxes);
        found.extend(check_output(port, size, boxes).err());
    }
}

fn check_output<'a>(
    port: &Port,
    size: usize,
    boxes: impl Iterator<Item = &'a BoxCopy> + Clone,
) -> Result<(), PlanViolation> {
    let mut delivered = 0usize;
    for copy in boxes.clone() {
        // An illegal box is a violation of its own.
        let Ok(facts) = check_box(copy) else {
            return Ok(());
        };
        if facts.dst_end > size {
            return Ok(());
        }
        delivered = delivered.saturating_add(facts.elements);
    }
    if delivered != size {
        return Err(PlanViolation::OutputCount {
            name: port.name.clone(),
            expected: size,
            found: delivered,
        });
    }
    if size > EXACT_ELEMENTS {
        return Ok(());
    }
    let mut marks = vec![0u64; size.div_ceil(64)];
    for copy in boxes {
        if let Some(element) = mark(&mut marks, copy) {
            return Err(PlanViolation::OutputOverlap {
                name: port.name.clone(),
                element,
            });
        }
    }
    Ok(())
}

/// Marks the places that a legal box writes; the first one that was marked before.
fn mark(marks: &mut [u64], copy: &BoxCopy) -> Option<usize> {
    if copy.extents.contains(&0) {
        return None;
    }
    let mut at = vec![0usize; copy.extents.len()];
    let mut place = copy.dst_offset;
    loop {
        let (word, bit) = (place / 64, 1u64 << (place % 64));
        if marks[word] & bit != 0 {
            return Some(place);
        }
        marks[word] |= bit;
        let mut dim = at.len();
        loop {
            if dim == 0 {
                return None;
            }
            dim -= 1;
            let stride = copy.dst_strides[dim];
            at[dim] += 1;
            if at[dim] < copy.extents[dim] {
                place += stride;
                break;
            }
            place -= stride * (copy.extents[dim] - 1);
            at[dim] = 0;
        }
    }
}
