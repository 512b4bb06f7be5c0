//! Checks of the table of weights.

use super::violation::{PlanViolation, Violations, WeightFault};
use crate::geometry::{check_box, product};
use crate::{DType, Plan, Weight, WeightLayout};

pub(super) fn check_weights(plan: &Plan, found: &mut Violations) {
    for (index, weight) in plan.weights.iter().enumerate() {
        if let Err(fault) = check_weight(weight) {
            found.push(PlanViolation::Weight {
                weight: index,
                name: weight
                    .sources
                    .first()
                    .map_or_else(String::new, |source| source.name.clone()),
                fault,
            });
        }
    }
}

fn check_weight(weight: &Weight) -> Result<(), WeightFault> {
    check_dtype(weight)?;
    let elements = check_sources(weight)?;
    let expected = match weight.layout {
        WeightLayout::Plain => weight.shape.len(),
        WeightLayout::Linear => 2,
        WeightLayout::Conv3d => 5,
    };
    if weight.shape.len() != expected {
        return Err(WeightFault::Rank {
            layout: weight.layout,
            expected,
            shape: weight.shape.clone(),
        });
    }
    let held = check_cut(weight, elements)?;
    if weight.len != held {
        return Err(WeightFault::Len {
            expected: held,
            found: weight.len,
        });
    }
    Ok(())
}

/// Weights of products exist in 16 bits too, those of the linear kernel also in 8.
fn check_dtype(weight: &Weight) -> Result<(), WeightFault> {
    let expected = match weight.layout {
        WeightLayout::Plain => "f32",
        WeightLayout::Linear => "f32, f16, bf16, i8 or f8e4m3",
        WeightLayout::Conv3d => "f32, f16 or bf16",
    };
    match (weight.dtype, weight.layout) {
        (DType::F32, _)
        | (DType::F16 | DType::Bf16, WeightLayout::Linear | WeightLayout::Conv3d)
        | (DType::I8 | DType::F8E4M3, WeightLayout::Linear) => Ok(()),
        (found, _) => Err(WeightFault::DType { expected, found }),
    }
}

/// Elements of the joined tensor.
fn check_sources(weight: &Weight) -> Result<usize, WeightFault> {
    let shape = &weight.shape;
    let elements = size(shape)?;
    if weight.sources.is_empty() {
        return Err(WeightFault::NoSource);
    }
    let mut joined = 0usize;
    for source in &weight.sources {
        joined = joined
            .checked_add(size(&source.shape)?)
            .ok_or_else(|| overflow(&source.shape))?;
    }
    if joined != elements {
        return Err(WeightFault::Elements {
            shape: shape.clone(),
            expected: elements,
            found: joined,
        });
    }
    if weight.sources.len() > 1 {
        // Joined along dimension 0: what follows it has equal sizes, however it is grouped.
        let expected = size(shape.get(1..).unwrap_or(&[]))?;
        for source in &weight.sources {
            let found = size(source.shape.get(1..).unwrap_or(&[]))?;
            if found != expected {
                return Err(WeightFault::Row {
                    name: source.name.clone(),
                    shape: shape.clone(),
                    expected,
                    found,
                });
            }
        }
    }
    Ok(elements)
}

/// Elements that the rank holds.
fn check_cut(weight: &Weight, elements: usize) -> Result<usize, WeightFault> {
    if weight.boxes.is_empty() {
        return Ok(elements);
    }
    match weight.layout {
        WeightLayout::Plain => {}
        WeightLayout::Linear | WeightLayout::Conv3d => {
            return Err(WeightFault::Cut {
                layout: weight.layout,
            });
        }
    }
    let mut held = 0usize;
    for (index, copy) in weight.boxes.iter().enumerate() {
        let facts = check_box(copy)
            .and_then(|facts| facts.inside(elements, weight.len).map(|()| facts))
            .map_err(|fault| WeightFault::Box { index, fault })?;
        held = held.saturating_add(facts.elements);
    }
    Ok(held)
}

/// Elements of a shape whose bytes in memory can be addressed.
fn size(shape: &[usize]) -> Result<usize, WeightFault> {
    product(shape)
        .filter(|n| {
            n.checked_mul(DType::F32.bytes())
                .is_some_and(super::tables::addressable)
        })
        .ok_or_else(|| overflow(shape))
}

fn overflow(shape: &[usize]) -> WeightFault {
    WeightFault::Overflow {
        shape: shape.to_vec(),
    }
}
