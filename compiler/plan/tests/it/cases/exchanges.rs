//! The table of collectives, and what their members make of them.

use super::{Case, bare, begin, edited, idle, two, wait};
use crate::build::step;
use terrace_plan::*;

pub fn cases() -> Vec<Case> {
    [table(), members(), order()]
        .into_iter()
        .flatten()
        .collect()
}

/// A collective that no step uses.
fn unused(edit: fn(&mut Collective), expected: &[&'static str]) -> Case {
    let mut case = two(|_| {}, expected);
    let mut collective = idle();
    edit(&mut collective);
    case.plan.collectives.push(collective);
    case
}

fn table() -> Vec<Case> {
    vec![
        unused(
            |it| it.members[1] = Rank(7),
            &["exchange 2: rank 7 is a member, the mesh has 2 ranks"],
        ),
        unused(
            |it| it.members.reverse(),
            &["exchange 2: its members are [1, 0], the ulysses group is [0, 1]"],
        ),
        unused(
            |it| drop(it.bytes.pop()),
            &["exchange 2: its table of bytes is not 2 x 2"],
        ),
        unused(
            |_| {},
            &[
                "exchange 2: member rank 0 never issues it",
                "exchange 2: member rank 1 never issues it",
            ],
        ),
        two(
            |plan| plan.collectives[0].bytes[0][1] = 8,
            &["exchange 0: rank 0 sends 24 bytes to rank 1, the table says 8"],
        ),
        two(
            |plan| plan.collectives[0].bytes[0][0] = 4,
            &["exchange 0: rank 0 sends 0 bytes to rank 0, the table says 4"],
        ),
    ]
}

fn members() -> Vec<Case> {
    vec![
        two(
            |plan| plan.ranks[0].patterns[0].sends.clear(),
            &["exchange 0: rank 0 sends 0 boxes to rank 1, which expects 1"],
        ),
        two(
            |plan| {
                let boxes = &mut plan.ranks[0].patterns[0].sends[0].boxes;
                let mut rest = boxes[0].clone();
                boxes[0].extents[0] = 1;
                rest.extents[0] = 2;
                rest.offset += rest.strides[0];
                boxes.push(rest);
            },
            &["exchange 0: rank 0 sends 2 boxes to rank 1, which expects 1"],
        ),
        two(
            |plan| plan.ranks[0].patterns[0].sends[0].boxes[0].extents = vec![2, 3],
            &[
                "exchange 0: box 0 from rank 0 to rank 1 is [2, 3] when sent, \
               [3, 2] when received",
            ],
        ),
        edited(
            bare(),
            send_unlike,
            &[
                "exchange 0: rank 0 sends f32, rank 1 receives u32",
                "exchange 0: rank 1 sends u32, rank 0 receives f32",
            ],
        ),
    ]
}

/// Each rank sends one element to the other, rank 0 an f32 and rank 1 a u32.
fn send_unlike(plan: &mut Plan) {
    let mut collective = idle();
    collective.bytes = vec![vec![0, 4], vec![4, 0]];
    plan.collectives = vec![collective];
    for (index, rank) in plan.ranks.iter_mut().enumerate() {
        let element = StridedBox {
            extents: vec![1],
            offset: 0,
            strides: vec![1],
        };
        let transfer = Transfer {
            peer: Rank(1 - index),
            boxes: vec![element],
        };
        rank.patterns[0].sends = vec![transfer.clone()];
        rank.patterns[0].receives = vec![transfer];
        for (place, buffer) in rank.buffers.iter_mut().enumerate() {
            buffer.len = 1;
            buffer.offset = 64 * place;
            buffer.dtype = if index == 0 { DType::F32 } else { DType::U32 };
        }
        let write = Action::Copy {
            src: BufferId(2),
            dst: BufferId(0),
            boxes: Vec::new(),
        };
        rank.steps = vec![step(0, write), begin(0, 1), wait(0)];
    }
}

fn order() -> Vec<Case> {
    vec![
        edited(
            bare(),
            |plan| {
                plan.collectives = vec![idle()];
                plan.ranks[0].init = vec![begin(0, 1), wait(0)];
                plan.ranks[1].steps = vec![begin(0, 1), wait(0)];
            },
            &[
                "exchange 0: rank 0 issues it in its init steps, rank 1 in its steps; \
               expected one list",
            ],
        ),
        edited(
            bare(),
            |plan| {
                plan.collectives = vec![idle(), idle()];
                plan.ranks[0].steps = vec![begin(1, 1), wait(1), begin(0, 1), wait(0)];
                plan.ranks[1].steps = vec![begin(0, 1), wait(0), begin(1, 1), wait(1)];
            },
            &[
                "rank 0, step 2 (embed): exchange 0 is issued after exchange 1, \
               expected rising numbers",
            ],
        ),
        edited(
            bare(),
            |plan| {
                plan.collectives = vec![idle()];
                plan.ranks[0].steps = vec![begin(0, 1), wait(0), begin(0, 1), wait(0)];
                plan.ranks[1].steps = vec![begin(0, 1), wait(0)];
            },
            &[
                "rank 0, step 2 (embed): exchange 0 is issued after exchange 0, \
               expected rising numbers",
            ],
        ),
        edited(
            bare(),
            |plan| {
                plan.collectives = vec![idle(), idle()];
                plan.ranks[0].steps = vec![begin(0, 1), begin(1, 2), wait(1), wait(0)];
                plan.ranks[1].steps = vec![begin(0, 1), begin(1, 2), wait(0), wait(1)];
            },
            &["rank 0, step 2 (embed): waits for exchange 1, expected 0, which was issued first"],
        ),
        edited(
            bare(),
            |plan| {
                plan.collectives = vec![idle()];
                plan.ranks[0].steps = vec![begin(0, 1)];
                plan.ranks[1].steps = vec![begin(0, 1), wait(0)];
            },
            &["rank 0, step 0 (embed): exchange 0 is never waited for"],
        ),
    ]
}
