//! `Plan::check`: valid plans pass, and each rule has an edit that breaks it.

use crate::build::{BACK, OUT, Spec, mesh, step};
use crate::{cases, variants};
use std::collections::BTreeSet;
use terrace_plan::*;

#[test]
fn valid_plans_pass() {
    for spec in [
        Spec::one(),
        Spec::two(),
        Spec::eight(),
        Spec::cut(mesh(2, 1, 1), &[0, 4], &[0, 2]),
        Spec::cut(mesh(1, 3, 1), &[0, 1, 1, 6], &[0, 2]),
    ] {
        assert_eq!(spec.plan().check(), Ok(()), "{spec:?}");
    }
}

/// 64 ranks x 2000 steps: run in release to measure, `cargo test --release -- --nocapture many_steps`.
#[test]
fn many_steps_of_many_ranks_are_checked_and_explained_at_once() {
    let rows: Vec<usize> = (0..=64).map(|rank| rank * 70).collect();
    let heads: Vec<usize> = (0..=16).map(|part| part * 3).collect();
    let spec = Spec {
        head_dim: 16,
        blocks: 400,
        ..Spec::cut(mesh(1, 4, 16), &rows, &heads)
    };
    let plan = spec.plan();
    assert!(plan.ranks[0].steps.len() >= 2000);
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        work();
        println!("{what}: {:?}", start.elapsed());
    };
    let mut json = Vec::new();
    timed("to_json", &mut || json = plan.to_json().unwrap());
    println!("{} bytes", json.len());
    timed("from_json", &mut || {
        assert_eq!(Plan::from_json(&json).unwrap(), plan)
    });
    timed("check", &mut || assert_eq!(plan.check(), Ok(())));
    timed("explain", &mut || {
        let text = explain::Explanation::of(&plan).to_text();
        assert!(text.contains("on every rank"));
    });
    timed("dot", &mut || {
        let dot = explain::Explanation::of(&plan).to_dot();
        assert!(dot.contains("r0 -> r1"));
    });
    timed("steps", &mut || {
        let text = explain::steps(&plan, Rank(63)).unwrap().to_text();
        assert!(text.lines().count() > 2000);
    });
}

#[test]
fn edited_plans_give_exactly_the_expected_messages() {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let errors = case.plan.check().unwrap_err();
        let found: Vec<String> = errors.violations.iter().map(ToString::to_string).collect();
        if found != case.expected {
            wrong.push((found, case.expected));
        }
    }
    assert_eq!(wrong, []);
}

#[test]
fn every_violation_has_a_case() {
    let mut produced = BTreeSet::new();
    for case in cases::all() {
        let errors = case.plan.check().unwrap_err();
        produced.extend(errors.violations.iter().flat_map(variants::names));
    }
    let missing: Vec<_> = variants::all().difference(&produced).copied().collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn a_single_violation_is_one_line() {
    let mut plan = Spec::two().plan();
    plan.carries[0].input = 3;
    assert_eq!(
        plan.check().unwrap_err().to_string(),
        "carry 0: input 3 does not exist, the plan has 1; \
         the plan was edited or written by another version: compile it again"
    );
}

#[test]
fn many_violations_are_counted() {
    let mut plan = Spec::two().plan();
    let free = step(0, Action::Free { buffer: BACK });
    plan.ranks[0].steps.extend(vec![free; 1500]);
    let errors = plan.check().unwrap_err();
    assert_eq!((errors.violations.len(), errors.more), (1000, 500));
    let text = errors.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "the plan breaks 1500 rules:");
    assert_eq!(
        lines[1],
        "  rank 0, step 13 (embed): buffer 6 is freed, but is not in use"
    );
    assert_eq!(lines[21], "  and 1480 more");
    assert_eq!(
        lines[22],
        "the plan was edited or written by another version: compile it again"
    );
    assert_eq!(lines.len(), 23);
}

#[test]
fn boxes_of_a_carry_may_be_split_along_dimensions() {
    let mut plan = Spec::two().plan();
    plan.ranks[0].outputs[0].boxes[0] = BoxCopy {
        extents: vec![3, 1, 6],
        src_offset: 0,
        src_strides: vec![6, 7, 1],
        dst_offset: 0,
        dst_strides: vec![6, 0, 1],
    };
    assert_eq!(plan.check(), Ok(()));
}

#[test]
fn a_step_may_not_read_what_init_left_in_the_arena() {
    let mut plan = Spec::two().plan();
    // The table of positions moves from the state to an arena buffer of its own.
    for rank in &mut plan.ranks {
        let place = rank.arena_bytes;
        rank.buffers[1].region = Region::Arena;
        rank.buffers[1].offset = place;
        rank.arena_bytes += 128;
    }
    let errors = plan.check().unwrap_err();
    assert_eq!(
        errors.violations[0].to_string(),
        "rank 0, step 0 (embed): buffer 1 is read before it is written"
    );
}

#[test]
fn init_may_not_read_inputs() {
    let mut plan = Spec::two().plan();
    let copy = Action::Copy {
        src: BufferId(0),
        dst: OUT,
        boxes: vec![crate::build::dense(1, 0, 0)],
    };
    plan.ranks[0].init.push(step(0, copy));
    let errors = plan.check().unwrap_err();
    assert_eq!(
        errors.violations[0].to_string(),
        "rank 0, init step 1 (embed): buffer 0 is read before it is written"
    );
}
