//! Operands of one kernel call against each other and against the element types of their buffers.

use super::step_fault::StepFault;
use crate::{Buffer, BufferId, DType, Elements, OperandUse};

/// An operand's buffer has a type that the step takes.
pub(super) fn admitted(
    fits: bool,
    operand: &'static str,
    buffer: BufferId,
    expected: &'static str,
    found: DType,
) -> Result<(), StepFault> {
    if fits {
        return Ok(());
    }
    Err(StepFault::DType {
        operand,
        buffer: buffer.0,
        expected,
        found,
    })
}

/// All activations of a call have one element type. Types that are no activations at all are
/// reported with their operands.
pub(super) fn check_activations(
    operands: &[OperandUse],
    buffers: &[Buffer],
) -> Result<(), StepFault> {
    let mut first = None;
    for operand in operands {
        let Some(it) = buffers.get(operand.buffer.0) else {
            continue;
        };
        if operand.dtype != Elements::Activation || !it.dtype.is_floating() {
            continue;
        }
        let expected = *first.get_or_insert(it.dtype);
        if it.dtype != expected {
            return Err(StepFault::Mixed {
                operand: operand.name,
                buffer: operand.buffer.0,
                expected,
                found: it.dtype,
            });
        }
    }
    Ok(())
}

/// A written operand may equal another where the call allows it, and overlap none.
pub(super) fn check_aliases(operands: &[OperandUse]) -> Result<(), StepFault> {
    for (index, written) in operands.iter().enumerate() {
        if !written.access.writes() || written.elements == 0 {
            continue;
        }
        for (other_index, other) in operands.iter().enumerate() {
            let apart = other_index == index
                || other.elements == 0
                || other.buffer != written.buffer
                || other.end <= written.offset
                || written.end <= other.offset;
            let equal = written.may_equal.contains(&other.name)
                && (other.offset, other.end) == (written.offset, written.end);
            if !apart && !equal {
                return Err(StepFault::Aliased {
                    written: written.name,
                    other: other.name,
                    buffer: written.buffer.0,
                });
            }
        }
    }
    Ok(())
}
