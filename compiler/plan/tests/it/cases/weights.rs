//! The table of weights.

use super::{Case, two};
use crate::build::dense;
use terrace_plan::*;

pub fn cases() -> Vec<Case> {
    [loading(), cutting()].into_iter().flatten().collect()
}

fn source(name: &str, shape: &[usize]) -> WeightSource {
    WeightSource {
        name: name.into(),
        aliases: Vec::new(),
        shape: shape.to_vec(),
    }
}

fn loading() -> Vec<Case> {
    vec![
        two(
            |plan| plan.weights[1].dtype = DType::Bf16,
            &["weight 1 (`out.bias`): has element type bf16, expected f32"],
        ),
        two(
            |plan| plan.weights[0].dtype = DType::U32,
            &[
                "weight 0 (`out.weight`): has element type u32, expected f32, f16, bf16, i8 or f8e4m3",
            ],
        ),
        two(
            |plan| plan.weights[1].sources.clear(),
            &["weight 1 (``): has no source"],
        ),
        two(
            |plan| plan.weights[1].sources[0].shape = vec![usize::MAX],
            &["weight 1 (`out.bias`): the size of shape [18446744073709551615] overflows"],
        ),
        two(
            |plan| plan.weights[1].sources[0].shape = vec![5],
            &["weight 1 (`out.bias`): its sources join to 5 elements, shape [6] has 6"],
        ),
        two(
            |plan| plan.weights[0].sources = vec![source("a", &[3, 6]), source("b", &[9, 2])],
            &["weight 0 (`a`): source `b` has 2 elements per row, shape [6, 6] has 6"],
        ),
    ]
}

fn cutting() -> Vec<Case> {
    vec![
        two(
            |plan| {
                let mut weight = plan.weights[1].clone();
                weight.layout = WeightLayout::Linear;
                plan.weights.push(weight);
            },
            &["weight 2 (`out.bias`): layout linear needs 2 dimensions, shape [6] has 1"],
        ),
        two(
            |plan| plan.weights[0].boxes = vec![dense(36, 0, 0)],
            &["weight 0 (`out.weight`): layout linear cannot be cut, but the weight has boxes"],
        ),
        two(
            |plan| plan.weights[1].boxes = vec![dense(6, 1, 0)],
            &["weight 1 (`out.bias`): box 0: reads up to element 7 of 6"],
        ),
        two(
            |plan| plan.weights[1].len = 5,
            &[
                "weight 1 (`out.bias`): holds 5 elements, its boxes or shape have 6",
                "rank 0, step 7 (block.out): `bias`: weight 1 holds 5 elements, [6] is needed",
                "rank 1, step 7 (block.out): `bias`: weight 1 holds 5 elements, [6] is needed",
            ],
        ),
    ]
}
