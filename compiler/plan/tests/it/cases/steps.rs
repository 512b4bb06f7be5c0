//! Steps of a rank: operands, weights, live ranges and exchanges.

use super::{Case, call, edited, free, two, wait};
use crate::build::{ACTIVE, BACK, HEADS, OUT, ROWS, Spec, X, dense};
use terrace_plan::*;

pub fn cases() -> Vec<Case> {
    [
        operands(),
        weights(),
        live_ranges(),
        under_way(),
        exchanges(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn operands() -> Vec<Case> {
    vec![
        two(
            |plan| plan.ranks[0].steps[0].origin = OriginId(9),
            &["rank 0, step 0 (?): its origin is 9, the plan has 3"],
        ),
        two(
            |plan| plan.ranks[1].init[0].origin = OriginId(9),
            &["rank 1, init step 0 (?): its origin is 9, the plan has 3"],
        ),
        two(
            |plan| {
                let KernelCall::GateAdd { x, .. } = call(plan, 0) else {
                    panic!("not a sum");
                };
                x.buffer = BufferId(9);
            },
            &["rank 0, step 0 (embed): `x` is buffer 9, the rank has 9"],
        ),
        two(
            |plan| {
                let KernelCall::GateAdd { x, .. } = call(plan, 0) else {
                    panic!("not a sum");
                };
                x.offset = 1;
            },
            &["rank 0, step 0 (embed): `x`: buffer 1 needs 19 elements, has 18"],
        ),
        two(
            |plan| plan.ranks[0].buffers[1].dtype = DType::U32,
            &[
                "rank 0, init step 0 (embed): `y`: buffer 1 is u32, expected f32",
                "rank 0, step 0 (embed): `x`: buffer 1 is u32, expected a floating type",
            ],
        ),
        two(
            |plan| plan.ranks[0].buffers[1].dtype = DType::F16,
            &[
                "rank 0, init step 0 (embed): `y`: buffer 1 is f16, expected f32",
                "rank 0, step 0 (embed): `x`: buffer 1 is f16, the activations before it are f32",
            ],
        ),
        two(
            |plan| {
                let KernelCall::Linear { y, .. } = call(plan, 7) else {
                    panic!("not a product");
                };
                y.buffer = BACK;
                let steps = &mut plan.ranks[0].steps;
                let Action::Copy { src, .. } = &mut steps[8].action else {
                    panic!("not a copy");
                };
                *src = BACK;
                steps.remove(12);
            },
            &["rank 0, step 7 (block.out): `y` overlaps `x` in buffer 6"],
        ),
    ]
}

/// The bias of rank 0 is weight `id`, after `edit` of the plan.
fn bias(id: usize, edit: fn(&mut Plan), expected: &'static str) -> Case {
    let mut case = two(edit, &[expected]);
    let KernelCall::Linear { bias, .. } = call(&mut case.plan, 7) else {
        panic!("not a product");
    };
    *bias = Some(WeightId(id));
    case
}

fn weights() -> Vec<Case> {
    vec![
        bias(
            9,
            |_| {},
            "rank 0, step 7 (block.out): `bias` is weight 9, the plan has 2",
        ),
        bias(
            0,
            |_| {},
            "rank 0, step 7 (block.out): `bias`: weight 0 has layout linear, expected plain",
        ),
        bias(
            2,
            |plan| {
                let mut weight = plan.weights[1].clone();
                weight.shape = vec![2, 3];
                plan.weights.push(weight);
            },
            "rank 0, step 7 (block.out): `bias`: weight 2 is [2, 3], expected [6]",
        ),
        bias(
            2,
            |plan| {
                let mut weight = plan.weights[1].clone();
                weight.boxes = vec![dense(5, 0, 0)];
                weight.len = 5;
                plan.weights.push(weight);
            },
            "rank 0, step 7 (block.out): `bias`: weight 2 holds 5 elements, [6] is needed",
        ),
    ]
}

fn live_ranges() -> Vec<Case> {
    vec![
        two(
            |plan| plan.ranks[0].init.clear(),
            &["rank 0, step 0 (embed): buffer 1 is read before it is written"],
        ),
        two(
            |plan| {
                plan.ranks[0].steps.remove(9);
                plan.ranks[0].steps.insert(3, free(HEADS));
            },
            &["rank 0, step 4 (block.attn): buffer 3 is used after it was freed"],
        ),
        two(
            |plan| {
                let buffers = &mut plan.ranks[0].buffers;
                buffers[ACTIVE.0].offset = buffers[HEADS.0].offset;
            },
            &[
                "rank 0, step 3 (block.attn): buffer 5 shares bytes with buffer 3, \
               which is still in use",
            ],
        ),
        two(
            |plan| plan.ranks[0].steps.push(free(X)),
            &["rank 0, step 13 (block.out): buffer 0 is freed, but lies in the state"],
        ),
        two(
            |plan| plan.ranks[0].steps.push(free(ROWS)),
            &["rank 0, step 13 (block.out): buffer 2 is freed, but is not in use"],
        ),
        two(
            |plan| {
                let Action::Copy { src, .. } = &mut plan.ranks[0].steps[8].action else {
                    panic!("not a copy");
                };
                *src = OUT;
            },
            &["rank 0, step 8 (block.out): buffer 8 is both source and destination"],
        ),
        two(
            |plan| {
                let Action::Copy { boxes, .. } = &mut plan.ranks[0].steps[8].action else {
                    panic!("not a copy");
                };
                boxes[0].src_offset = 1;
            },
            &["rank 0, step 8 (block.out): box 0: reads up to element 19 of 18"],
        ),
    ]
}

fn under_way() -> Vec<Case> {
    vec![
        two(
            |plan| {
                let freed = plan.ranks[0].steps.remove(10);
                plan.ranks[0].steps.insert(6, freed);
            },
            &["rank 0, step 6 (block.out): buffer 5 is written or freed \
               while exchange 1 sends from it"],
        ),
        two(
            |plan| {
                let again = plan.ranks[0].steps[0].clone();
                plan.ranks[0].steps.insert(2, again);
            },
            &["rank 0, step 2 (embed): buffer 2 is written or freed \
               while exchange 0 sends from it"],
        ),
        two(
            |plan| plan.ranks[0].steps.swap(2, 3),
            &["rank 0, step 2 (block.attn): buffer 3 is used while exchange 0 fills it"],
        ),
        two(
            |plan| plan.ranks[0].steps.insert(3, wait(0)),
            &["rank 0, step 3 (embed): waits for exchange 0, which is not under way"],
        ),
        two(
            |plan| plan.ranks[0].steps[2] = wait(9),
            &[
                "rank 0, step 2 (embed): exchange 9 does not exist, the plan has 2",
                "rank 0, step 3 (block.attn): buffer 3 is used while exchange 0 fills it",
                "rank 0, step 4 (block.out): buffer 2 is written or freed \
                 while exchange 0 sends from it",
                "rank 0, step 5 (block.attn): buffer 6 shares bytes with buffer 2, \
                 which is still in use",
                "rank 0, step 6 (block.attn): waits for exchange 1, expected 0, \
                 which was issued first",
                "rank 0, step 9 (block.out): buffer 3 is used while exchange 0 fills it",
                "rank 0, step 1 (block.attn): exchange 0 is never waited for",
            ],
        ),
    ]
}

fn exchange(plan: &mut Plan, step: usize) -> (&mut CollectiveId, &mut PatternId) {
    match &mut plan.ranks[0].steps[step].action {
        Action::Exchange {
            collective,
            pattern,
            ..
        } => (collective, pattern),
        other => panic!("step {step} is {other:?}"),
    }
}

fn exchanges() -> Vec<Case> {
    vec![
        two(
            |plan| *exchange(plan, 1).1 = PatternId(9),
            &["rank 0, step 1 (block.attn): its pattern is 9, the rank has 2"],
        ),
        two(
            |plan| plan.ranks[0].buffers[HEADS.0].len = 21,
            &[
                "rank 0, step 1 (block.attn): pattern 0 writes 20 elements to buffer 3, \
               which has 21",
            ],
        ),
        two(
            |plan| *exchange(plan, 1).0 = CollectiveId(9),
            &[
                "rank 0, step 1 (block.attn): exchange 9 does not exist, the plan has 2",
                "rank 0, step 2 (block.attn): waits for exchange 0, which is not under way",
                "exchange 0: member rank 0 never issues it",
            ],
        ),
        edited(
            Spec::eight().plan(),
            |plan| *exchange(plan, 1).0 = CollectiveId(1),
            &[
                "rank 0, step 1 (block.attn): takes part in exchange 1, whose members are [2, 3]",
                "rank 0, step 2 (block.attn): waits for exchange 0, which is not under way",
                "exchange 0: member rank 0 never issues it",
            ],
        ),
        edited(
            Spec::eight().plan(),
            |plan| plan.ranks[0].patterns[0].sends[0].peer = Rank(2),
            &[
                "rank 0, step 1 (block.attn): pattern 0 exchanges with rank 2, \
                 but exchange 0 has members [0, 1]",
                "exchange 0: rank 0 sends 0 boxes to rank 1, which expects 1",
            ],
        ),
    ]
}
