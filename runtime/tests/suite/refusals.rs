//! What a session refuses, word for word.

use crate::common::{Draft, copy_plan, counting, doubling_plan, session, text, whole};
use terrace_plan::{Action, BoxCopy, BufferId, DType, Region};
use terrace_runtime::{HostTensor, RuntimeError};

#[test]
fn a_plan_that_breaks_rules_is_refused() {
    let mut plan = copy_plan();
    plan.ranks[0].steps[0].action = Action::Copy {
        src: BufferId(0),
        dst: BufferId(1),
        boxes: whole(5),
    };
    let expected = plan.check().unwrap_err().to_string();
    assert!(expected.contains("rank 0, step 0 (take): box 0: reads up to element 5 of 4"));
    assert_eq!(text(session(plan)), expected);
}

#[test]
fn an_unknown_input_lists_the_inputs() {
    let mut session = session(copy_plan()).unwrap();
    assert_eq!(
        text(session.set("latents", &counting(&[2, 2]))),
        "the plan `copy` has no input `latents`; its inputs are `x` f32[2, 2]"
    );
    assert_eq!(
        text(session.get("x")),
        "the plan `copy` has no output `x`; its outputs are `y` f32[4]"
    );
}

#[test]
fn a_plan_without_ports_says_so() {
    let mut session = session(Draft::new("nothing", 1).plan()).unwrap();
    assert_eq!(
        text(session.set("x", &counting(&[1]))),
        "the plan `nothing` has no input `x`; its inputs are none"
    );
    session.run().unwrap();
}

#[test]
fn a_tensor_of_another_shape_or_type_is_refused() {
    let mut session = session(copy_plan()).unwrap();
    assert_eq!(
        text(session.set("x", &counting(&[4]))),
        "input `x` is f32 of shape [2, 2], found f32 of shape [4]"
    );
    let ids = HostTensor::u32([2, 2], vec![0; 4]).unwrap();
    assert_eq!(
        text(session.set("x", &ids)),
        "input `x` is f32 of shape [2, 2], found u32 of shape [2, 2]"
    );
    // A refused value leaves the session as it was.
    session.set("x", &counting(&[2, 2])).unwrap();
    session.run().unwrap();
}

#[test]
fn a_run_without_all_inputs_names_them() {
    let mut d = Draft::new("three", 1);
    for (port, name) in ["a", "b", "c"].into_iter().enumerate() {
        d.input(name, DType::F32, &[1]);
        let buffer = d.state(0, 1);
        assert_eq!(buffer, BufferId(port));
        d.bind_input(0, buffer, whole(1));
    }
    let mut session = session(d.plan()).unwrap();
    session.set("b", &counting(&[1])).unwrap();
    assert_eq!(
        text(session.run()),
        "the plan `three` cannot run: set `a`, `c` first"
    );
    session.set("a", &counting(&[1])).unwrap();
    session.set("c", &counting(&[1])).unwrap();
    session.run().unwrap();
}

#[test]
fn an_output_has_no_value_before_the_first_run() {
    let session = session(copy_plan()).unwrap();
    assert_eq!(
        text(session.get("y")),
        "output `y` has no value yet: run the session first"
    );
}

#[test]
fn half_precision_ports_cannot_be_read() {
    let mut d = Draft::new("half", 1);
    d.output("y", DType::F16, &[2]);
    let (y, z) = (
        d.buffer(0, Region::State, DType::F16, 2),
        d.buffer(0, Region::State, DType::F16, 2),
    );
    d.bind_output(0, y, whole(2));
    let none = |src, dst| Action::Copy {
        src,
        dst,
        boxes: Vec::new(),
    };
    d.step(0, "take", none(z, y));
    let mut session = session(d.plan()).unwrap();
    session.run().unwrap();
    assert_eq!(
        text(session.get("y")),
        "host tensors are f32 or u32, a port of f16 cannot be read"
    );
}

#[test]
fn a_carry_that_would_destroy_an_output_is_refused() {
    let mut d = Draft::new("clash", 1);
    d.input("x", DType::F32, &[2]);
    d.output("next", DType::F32, &[2]);
    d.output("same", DType::F32, &[2]);
    d.carry(0, 0);
    let (x, next) = (d.state(0, 2), d.state(0, 2));
    d.bind_input(0, x, whole(2));
    d.bind_output(0, next, whole(2));
    d.bind_output(0, x, whole(2));
    d.step(0, "add", crate::common::add(2, x, x, next));
    assert_eq!(
        text(session(d.plan())),
        "rank 0: carrying into input 0 overwrites output 1, which lies in its buffer"
    );
}

#[test]
fn impossible_sizes_are_errors_and_no_crash() {
    let huge = 1usize << 60;
    let mut plan = doubling_plan(4);
    plan.ranks[0].arena_bytes = isize::MAX as usize - 63;
    assert_eq!(
        text(session(plan)),
        "rank 0: cannot allocate 9223372036854775744 bytes for its arena; use more ranks, or a \
         smaller video"
    );
    // One element, spread over more than any machine holds.
    let mut d = Draft::new("spread", 1);
    d.input("x", DType::F32, &[1]);
    d.output("y", DType::F32, &[huge]);
    let x = d.state(0, 1);
    d.bind_input(0, x, whole(1));
    let spread = BoxCopy {
        extents: vec![huge],
        src_offset: 0,
        src_strides: vec![0],
        dst_offset: 0,
        dst_strides: vec![1],
    };
    d.bind_output(0, x, vec![spread]);
    let mut session = session(d.plan()).unwrap();
    session.set("x", &counting(&[1])).unwrap();
    session.run().unwrap();
    assert!(matches!(
        session.get("y"),
        Err(RuntimeError::TensorMemory { shape }) if shape == [huge]
    ));
}
