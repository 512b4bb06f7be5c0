//! Invariants of every graph.

use crate::{line, message, single};
use insta::assert_snapshot;
use terrace_compiler::ir::{Dim, Factor, Graph, Segment, Type};
use terrace_compiler::ops::{Input, Op};

const X: &str = r#"%0 = input "x" host=[b=2, c=8] : f32[b=2, c=8]"#;

#[test]
fn cycles() {
    let mut graph = single(
        "model",
        &format!(
            "{X}
            %1 = activate %0 silu : f32[b=2, c=8]
            %2 = residual %1 %0 : f32[b=2, c=8]   ; sum
            %3 = activate %2 gelu : f32[b=2, c=8]
            %4 = output %3 \"y\" host=[b=2, c=8] : f32[b=2, c=8]"
        ),
    );
    let (first, last) = (line(&graph, 1), line(&graph, 3));
    graph.replace_operand(first, 0, last);
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 3 violations at stage model:
      depends on itself
        in %1 = activate %3 silu : f32[b=2, c=8] @{}
      depends on itself
        in %2 = residual %1 %0 : f32[b=2, c=8] @{}   ; sum
      depends on itself
        in %3 = activate %2 gelu : f32[b=2, c=8] @{}
    ");
}

#[test]
fn types_that_ops_do_not_infer() {
    let mut graph = single(
        "model",
        &format!(
            "{X}
            %1 = input \"y\" host=[b=2, c=4] : f32[b=2, c=4]
            %2 = activate %0 silu : f32[b=2, c=8]   ; act
            %3 = residual %2 %0 : f32[b=2, c=8]   ; sum"
        ),
    );
    let [y, act, sum] = [1, 2, 3].map(|n| line(&graph, n));
    graph.replace_operand(act, 0, y);
    graph.replace_operand(sum, 1, y);
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 2 violations at stage model:
      its type should be f32[b=2, c=4]
        in %2 = activate %1 silu : f32[b=2, c=8] @{}   ; act
      expected a summand like f32[b=2, c=8], found f32[b=2, c=4]
        in %3 = residual %2 %1 : f32[b=2, c=8] @{}   ; sum
    ");
}

fn input(name: &str, dims: Vec<Dim>) -> Op {
    Op::Input(Input {
        name: name.into(),
        ty: Type::f32(dims.clone()),
        host: dims,
    })
}

#[test]
fn names_of_factors() {
    let mut graph = Graph::new("g");
    let twice = Dim::product("seq", &[("t", 2), ("t", 3)]);
    graph.add(input("a", vec![twice]), &[], "a").unwrap();
    let spaced = Dim::new("two words", 2);
    graph.add(input("b", vec![spaced]), &[], "b").unwrap();
    let group = Dim::product("s", &[("h.w", 2)]);
    graph.add(input("c", vec![group]), &[], "c").unwrap();
    assert_snapshot!(message(&graph), @r#"
    internal error: graph g is broken, 3 violations at stage model:
      two factors of its type have the name t
        in %0 = input "a" host=[seq=(t=2 t=3)] : f32[seq=(t=2 t=3)] @{}   ; a
      the name "two words" is not a word of letters, digits and _
        in %1 = input "b" host=[two words=2] : f32[two words=2] @{}   ; b
      the name "h.w" is not a word of letters, digits and _
        in %2 = input "c" host=[s=(h.w=2)] : f32[s=(h.w=2)] @{}   ; c
    "#);
}

#[test]
fn dimensions_made_of_nothing() {
    let mut graph = Graph::new("g");
    let none = Dim::sum("seq", Vec::new());
    graph.add(input("a", vec![none]), &[], "a").unwrap();
    let factors: Vec<Factor> = Vec::new();
    let empty = Dim::sum("seq", vec![Segment { factors }]);
    graph.add(input("b", vec![empty]), &[], "b").unwrap();
    assert_snapshot!(message(&graph), @r#"
    internal error: graph g is broken, 2 violations at stage model:
      the dimension seq has a segment without factors
        in %0 = input "a" host=[seq=()] : f32[seq=()] @{}   ; a
      the dimension seq has a segment without factors
        in %1 = input "b" host=[seq=()] : f32[seq=()] @{}   ; b
    "#);
}

#[test]
fn ports_of_one_name() {
    let graph = single(
        "model",
        &format!(
            "{X}
            %1 = input \"x\" host=[c=4] : f32[c=4]
            %2 = output %0 \"x\" host=[b=2, c=8] : f32[b=2, c=8]
            %3 = output %1 \"x\" host=[c=4] : f32[c=4]"
        ),
    );
    assert_snapshot!(message(&graph), @r#"
    internal error: graph g is broken, 2 violations at stage model:
      another input has the name "x"
        in %1 = input "x" host=[c=4] : f32[c=4] @{}
      another output has the name "x"
        in %3 = output %1 "x" host=[c=4] : f32[c=4] @{}
    "#);
}

#[test]
fn outputs_that_are_used() {
    let graph = single(
        "model",
        &format!(
            "{X}
            %1 = output %0 \"y\" host=[b=2, c=8] : f32[b=2, c=8]
            %2 = activate %1 silu : f32[b=2, c=8]"
        ),
    );
    assert_snapshot!(message(&graph), @r#"
    internal error: graph g is broken, 1 violation at stage model:
      an output cannot be used
        in %1 = output %0 "y" host=[b=2, c=8] : f32[b=2, c=8] @{}
    "#);
}

#[test]
fn dead_code_after_fusion() {
    let lines = format!(
        "{X}
        %1 = input \"unused\" host=[c=4] : f32[c=4]
        %2 = activate %0 silu : f32[b=2, c=8]   ; act
        %3 = activate %2 silu : f32[b=2, c=8]   ; act.again
        %4 = output %0 \"y\" host=[b=2, c=8] : f32[b=2, c=8]"
    );
    let model = single("model", &lines);
    terrace_compiler::verify::verify(&model, model.stage).unwrap();
    assert_snapshot!(message(&single("fused", &lines)), @"
    internal error: graph g is broken, 2 violations at stage fused:
      reaches no output
        in %2 = activate %0 silu : f32[b=2, c=8] @{}   ; act
      reaches no output
        in %3 = activate %2 silu : f32[b=2, c=8] @{}   ; act.again
    ");
}

#[test]
fn a_pass_is_named() {
    let graph = single(
        "fused",
        &format!("{X}\n%1 = activate %0 silu : f32[b=2, c=8]"),
    );
    let error = terrace_compiler::verify::verify_after("fuse-qkv", &graph, graph.stage);
    assert_snapshot!(error.unwrap_err(), @"
    internal error: fuse-qkv broke graph g, 1 violation at stage fused:
      reaches no output
        in %1 = activate %0 silu : f32[b=2, c=8] @{}
    ");
}
