//! Regions, buffers, bindings and patterns of a rank.

use super::{Case, edited, two};
use crate::build::{OUT, POSITIONS, SHIFTED, Spec, X, dense, mesh};
use terrace_plan::*;

pub fn cases() -> Vec<Case> {
    [buffers(), bindings(), binding_boxes(), inputs(), patterns()]
        .into_iter()
        .flatten()
        .collect()
}

fn buffers() -> Vec<Case> {
    vec![
        two(
            |plan| plan.ranks[0].arena_bytes = usize::MAX,
            &["rank 0: the arena needs 18446744073709551615 bytes, \
               more than can be addressed"],
        ),
        two(
            |plan| plan.ranks[0].buffers[OUT.0].offset += 4,
            &["rank 0: buffer 8 begins at byte 644, expected a multiple of 64"],
        ),
        two(
            |plan| {
                let mut buffer = plan.ranks[0].buffers[0].clone();
                buffer.len = usize::MAX;
                plan.ranks[0].buffers.push(buffer);
            },
            &["rank 0: the end of buffer 9 overflows"],
        ),
        two(
            |plan| plan.ranks[0].state_bytes = 192,
            &["rank 0: buffer 1 ends at byte 200, the state has 192"],
        ),
        two(
            |plan| plan.ranks[0].buffers[POSITIONS.0].offset = 64,
            &["rank 0: buffers 0 and 1 share bytes of the state"],
        ),
    ]
}

fn bindings() -> Vec<Case> {
    vec![
        two(
            |plan| {
                let again = plan.ranks[0].inputs[0].clone();
                plan.ranks[0].inputs.push(again);
            },
            &["rank 0: binds 2 inputs, the plan has 1"],
        ),
        two(
            |plan| plan.ranks[0].inputs[0].port = 1,
            &["rank 0: binding 0 of the inputs is for port 1, expected 0"],
        ),
        two(
            |plan| plan.ranks[0].outputs[0].buffer = BufferId(9),
            &["rank 0: output `y` is buffer 9, the rank has 9"],
        ),
        two(
            |plan| {
                plan.carries.clear();
                plan.outputs[0].dtype = DType::U32;
            },
            &[
                "rank 0: output `y` is u32, its buffer 8 is f32",
                "rank 1: output `y` is u32, its buffer 8 is f32",
            ],
        ),
        two(
            |plan| {
                plan.carries.clear();
                plan.ranks[0].outputs[0].buffer = SHIFTED;
            },
            &["rank 0: output `y`: buffer 4 is not written, or is freed, at the end of the steps"],
        ),
    ]
}

fn binding_boxes() -> Vec<Case> {
    let case = |edit: fn(&mut BoxCopy), expected: &'static str| {
        let mut case = two(|plan| plan.carries.clear(), &[expected]);
        edit(&mut case.plan.ranks[0].outputs[0].boxes[0]);
        case
    };
    vec![
        case(
            |copy| copy.src_strides.push(1),
            "rank 0: output `y`, box 0: 1 extents, but 2 strides",
        ),
        case(
            |copy| {
                *copy = BoxCopy {
                    extents: vec![usize::MAX, 2],
                    src_strides: vec![1, 1],
                    dst_strides: vec![1, 1],
                    ..copy.clone()
                }
            },
            "rank 0: output `y`, box 0: its size overflows",
        ),
        case(
            |copy| copy.dst_strides = vec![0],
            "rank 0: output `y`, box 0: its strides write elements onto each other",
        ),
        case(
            |copy| copy.src_offset = 1,
            "rank 0: output `y`, box 0: reads up to element 19 of 18",
        ),
        case(
            |copy| copy.dst_offset = 13,
            "rank 0: output `y`, box 0: writes up to element 31 of 30",
        ),
    ]
}

fn inputs() -> Vec<Case> {
    let second: fn(&mut Plan, BufferId) = |plan, buffer| {
        let name = "z".to_owned();
        plan.inputs.push(Port {
            name,
            ..plan.inputs[0].clone()
        });
        for rank in &mut plan.ranks {
            let boxes = rank.inputs[0].boxes.clone();
            rank.inputs.push(Binding {
                port: 1,
                buffer,
                boxes,
            });
        }
    };
    let mut shared = two(
        |_| {},
        &[
            "rank 0: inputs `x` and `z` both fill buffer 0",
            "rank 1: inputs `x` and `z` both fill buffer 0",
        ],
    );
    second(&mut shared.plan, X);
    let mut overlap = two(
        |plan| {
            plan.carries.clear();
            for rank in &mut plan.ranks {
                rank.buffers[X.0].region = Region::Arena;
                rank.buffers[X.0].offset = rank.arena_bytes;
                rank.buffers.push(rank.buffers[X.0].clone());
                rank.arena_bytes += 128;
            }
        },
        &[
            "rank 0: input buffers 0 and 9 share bytes of the arena",
            "rank 1: input buffers 0 and 9 share bytes of the arena",
        ],
    );
    second(&mut overlap.plan, BufferId(9));
    vec![
        two(
            |plan| {
                plan.carries.clear();
                plan.ranks[0].inputs[0].boxes.clear();
            },
            &["rank 0: input `x` fills 0 elements of buffer 0, which has 18"],
        ),
        two(
            |plan| {
                plan.carries.clear();
                plan.ranks[0].inputs[0].boxes = vec![dense(9, 0, 0), dense(9, 0, 8)];
            },
            &["rank 0: input `x` fills element 8 of buffer 0 more than once"],
        ),
        shared,
        overlap,
    ]
}

/// The rank's first pattern once more, edited; no step uses it.
fn pattern(edit: fn(&mut Pattern), expected: &'static str) -> Case {
    let mut case = two(|_| {}, &[expected]);
    let patterns = &mut case.plan.ranks[0].patterns;
    let mut pattern = patterns[0].clone();
    edit(&mut pattern);
    patterns.push(pattern);
    case
}

fn patterns() -> Vec<Case> {
    let three = Spec::cut(mesh(1, 1, 3), &[0, 2, 3, 5], &[0, 1, 2, 3]);
    vec![
        pattern(
            |it| it.local[0].dst_strides = vec![0, 1],
            "rank 0: pattern 2, box 0 of the local copies: \
             its strides write elements onto each other",
        ),
        pattern(
            |it| it.sends[0].boxes[0].strides.truncate(1),
            "rank 0: pattern 2, box 0 of the sends: 2 extents, but 1 strides",
        ),
        pattern(
            |it| it.receives[0].boxes[0].strides = vec![0, 1],
            "rank 0: pattern 2, box 0 of the receives: \
             its strides write elements onto each other",
        ),
        pattern(
            |it| it.sends[0].peer = Rank(0),
            "rank 0: pattern 2: the sends name the rank itself",
        ),
        pattern(
            |it| it.receives[0].boxes[0].offset = 8,
            "rank 0: pattern 2 writes element 8 of its destination more than once",
        ),
        pattern(
            |it| it.receives[0].boxes.clear(),
            "rank 0: pattern 2: the receives have an empty transfer for rank 1, expected none",
        ),
        pattern(
            |it| it.sends[0].boxes[0].extents[0] = 0,
            "rank 0: pattern 2: the sends have an empty transfer for rank 1, expected none",
        ),
        edited(
            three.plan(),
            |plan| plan.ranks[0].patterns[0].sends.swap(0, 1),
            &["rank 0: pattern 0: rank 1 follows rank 2 in the sends, expected rising ranks"],
        ),
    ]
}
