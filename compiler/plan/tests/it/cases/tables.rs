//! Header, mesh, partitions, ports and carries.

use super::{Case, edited, two};
use crate::build::{OUT, Spec, X, dense};
use terrace_plan::*;

pub fn cases() -> Vec<Case> {
    [header(), partitions(), ports(), carries()]
        .into_iter()
        .flatten()
        .collect()
}

fn header() -> Vec<Case> {
    let set_mesh: fn(&mut Plan, Mesh) = |plan, mesh| {
        plan.mesh = mesh;
        plan.header.fingerprint.mesh = mesh.to_string();
    };
    let mesh = |mesh: Mesh, expected: &[&'static str]| {
        let mut case = two(|_| {}, expected);
        set_mesh(&mut case.plan, mesh);
        case
    };
    let crate_mesh = crate::build::mesh;
    vec![
        two(
            |plan| plan.header.format = 3,
            &["the header has format version 3, expected 2"],
        ),
        two(
            |plan| plan.header.fingerprint.mesh = "cfg=1 ring=2 ulysses=1".into(),
            &["the header names mesh `cfg=1 ring=2 ulysses=1`, \
               the plan has mesh `cfg=1 ring=1 ulysses=2`"],
        ),
        mesh(
            crate_mesh(1, 0, 2),
            &[
                "mesh axis ring has size 0, expected at least 1",
                "the plan has 2 ranks, its mesh has 0",
            ],
        ),
        mesh(
            crate_mesh(3, 1, 2),
            &[
                "mesh axis cfg has size 3, expected 1 or 2",
                "the plan has 2 ranks, its mesh has 6",
            ],
        ),
        mesh(
            crate_mesh(1, usize::MAX, 2),
            &["the plan has 2 ranks, its mesh has 18446744073709551615"],
        ),
        two(
            |plan| drop(plan.ranks.pop()),
            &["the plan has 1 ranks, its mesh has 2"],
        ),
    ]
}

fn partitions() -> Vec<Case> {
    vec![
        two(
            |plan| plan.partitions[0].sizes = vec![5],
            &["partition 0 (`h.w`): names 2 factors, has 1 sizes"],
        ),
        two(
            |plan| plan.partitions[0].sizes = vec![usize::MAX, 2],
            &[
                "partition 0 (`h.w`): the product of [18446744073709551615, 2] \
               and 1 tokens each overflows",
            ],
        ),
        two(
            |plan| plan.partitions[0].repeat = usize::MAX,
            &["partition 0 (`h.w`): the product of [5, 1] \
               and 18446744073709551615 tokens each overflows"],
        ),
        two(
            |plan| plan.partitions[1].axes = vec![Axis::Ulysses; 2],
            &["partition 1 (`n`): axis ulysses is named twice"],
        ),
        two(
            |plan| plan.partitions[1].offsets.truncate(2),
            &["partition 1 (`n`): has 2 offsets, its axes need 3"],
        ),
        two(
            |plan| plan.partitions[1].offsets[0] = 1,
            &["partition 1 (`n`): offset 0 is 1, expected 0"],
        ),
        two(
            |plan| plan.partitions[1].offsets[1] = 4,
            &["partition 1 (`n`): offset 1 is 4, expected 0 to 3"],
        ),
        two(
            |plan| plan.partitions[1].offsets[2] = 4,
            &["partition 1 (`n`): offset 2 is 4, expected 3"],
        ),
        edited(
            Spec::eight().plan(),
            |plan| plan.partitions[0].offsets[2] = 2,
            &["partition 0 (`h.w`): offset 2 is 2, expected 3 to 9"],
        ),
    ]
}

fn ports() -> Vec<Case> {
    vec![
        two(
            |plan| {
                plan.outputs.push(plan.outputs[0].clone());
                for rank in &mut plan.ranks {
                    let port = 1;
                    let again = rank.outputs[0].clone();
                    rank.outputs.push(Binding { port, ..again });
                }
            },
            &["two outputs are named `y`"],
        ),
        two(
            |plan| {
                plan.carries.clear();
                plan.outputs[0].shape = vec![usize::MAX, 2];
            },
            &["output `y`: the size of shape [18446744073709551615, 2] overflows"],
        ),
        two(
            |plan| plan.ranks[1].outputs[0].boxes.clear(),
            &["output `y` has 30 elements, the ranks deliver 18"],
        ),
        two(
            |plan| {
                plan.carries.clear();
                plan.ranks[1].outputs[0].boxes[0].dst_offset = 12;
            },
            &["output `y`: element 12 is delivered more than once"],
        ),
    ]
}

fn carries() -> Vec<Case> {
    vec![
        two(
            |plan| plan.carries[0].output = 1,
            &["carry 0: output 1 does not exist, the plan has 1"],
        ),
        two(
            |plan| plan.carries[0].input = 3,
            &["carry 0: input 3 does not exist, the plan has 1"],
        ),
        two(
            |plan| plan.carries.push(plan.carries[0].clone()),
            &["carry 1: input `x` is carried twice"],
        ),
        two(
            |plan| plan.outputs[0].shape = vec![6, 5],
            &["carry 0: output `y` is f32[6, 5], input `x` is f32[5, 6]"],
        ),
        two(
            |plan| plan.ranks[0].buffers[OUT.0].len = 19,
            &["carry 0: on rank 0 output buffer 8 has 19 elements, input buffer 0 has 18"],
        ),
        two(
            |plan| {
                let rank = &mut plan.ranks[0];
                rank.buffers[X.0].region = Region::Arena;
                rank.buffers[X.0].offset = rank.arena_bytes;
                rank.arena_bytes += 128;
            },
            &["carry 0: on rank 0 buffer 0 of input `x` lies in the arena, expected the state"],
        ),
        two(
            |plan| plan.ranks[0].outputs[0].buffer = X,
            &[
                "carry 0: on rank 0 output `y` is buffer 0, which a carry fills; \
               expected a buffer of its own",
            ],
        ),
        two(
            |plan| {
                plan.ranks[0].outputs[0].boxes =
                    vec![dense(6, 0, 6), dense(6, 6, 0), dense(6, 12, 12)];
            },
            &["carry 0: on rank 0 output `y` and input `x` hold different boxes"],
        ),
    ]
}
