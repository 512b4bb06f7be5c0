//! Proof that the ranks together deliver every element of an output exactly once.
//!
//! The number of elements delivered must be the size of the port, and none may be delivered
//! twice.

use super::cover::{Cover, Written};
use super::tables::PortSizes;
use super::violation::{PlanViolation, Violations};
use crate::geometry::check_box;
use crate::{BoxCopy, Plan, Port};

pub(super) fn check_outputs(
    plan: &Plan,
    ports: &PortSizes,
    cover: &mut Cover,
    found: &mut Violations,
) {
    for (index, (port, size)) in plan.outputs.iter().zip(&ports.outputs).enumerate() {
        let Some(size) = *size else { continue };
        let boxes = plan
            .ranks
            .iter()
            .filter_map(|rank| rank.outputs.get(index))
            .flat_map(|binding| &binding.boxes);
        found.extend(check_output(port, size, boxes, cover).err());
    }
}

fn check_output<'a>(
    port: &Port,
    size: usize,
    boxes: impl Iterator<Item = &'a BoxCopy> + Clone,
    cover: &mut Cover,
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
    match cover.twice(size, boxes.map(Written::by)) {
        Some(element) => Err(PlanViolation::OutputOverlap {
            name: port.name.clone(),
            element,
        }),
        None => Ok(()),
    }
}
