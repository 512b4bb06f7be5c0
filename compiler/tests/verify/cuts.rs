//! From stage comm on: operands and results are cut as ops need, collectives lead between cuts.

use crate::{graph, message};
use insta::assert_snapshot;
use terrace_compiler::ir::Graph;
use terrace_compiler::verify::verify;

/// Lines after these slices, on ring 2 x ulysses 2.
fn sliced(lines: &str) -> Graph {
    let slices = "slices rows {h=4 w=2: ring,ulysses[0 2 4 6 8], txt=4: ring,ulysses[0 1 2 3 4]}
        slices heads {h=4 w=2: ring[0 4 8], txt=4: ring[0 2 4], n=2: ulysses[0 1 2]}";
    let text = format!("{slices}\n{lines}")
        .replace("TY", "f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)]")
        .replace("QKV", "f32[b=1, s=(txt=4 | h=4 w=2), c=(qkv=3 n=2 d=4)]")
        .replace("KV", "f32[b=1, s=(txt=4 | h=4 w=2), c=(kv=2 n=2 d=4)]")
        .replace("STATE", "f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 state=6)]")
        .replace("HOST", "host=[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)]")
        .replace(
            "PACKED",
            "host=[b=1, s=(txt=4 | h=4 w=2), c=(qkv=3 n=2 d=4)]",
        )
        .replace(
            "@rows",
            "@{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}",
        )
        .replace(
            "@heads",
            "@{h.w: ring[0 4 8], txt: ring[0 2 4], n: ulysses[0 1 2]}",
        )
        .replace(
            "@next",
            "@{h.w: ring[0 4 8]>>1, txt: ring[0 2 4]>>1, n: ulysses[0 1 2]}",
        );
    graph("cfg=1 ring=2 ulysses=2", "comm", &text)
}

const RING: &str = r#"%0 = input "x" PACKED : QKV @rows
    %1 = all_to_all %0 axis=ulysses gather=s split=c : QKV @heads
    %2 = attention_step %1 %1 first scale=0.5 : STATE @heads
    %3 = ring_shift %1 axis=ring : KV @next
    %4 = attention_step %1 %3 %2 next scale=0.5 : STATE @heads
    %5 = attention_finish %4 : TY @heads
    %6 = all_to_all %5 axis=ulysses gather=n split=s : TY @rows
    %7 = output %6 "y" HOST : TY @rows"#;

#[test]
fn a_ring_keeps_all() {
    let ring = sliced(RING);
    verify(&ring, ring.stage).unwrap();
}

#[test]
fn operands_are_cut_as_ops_need() {
    let graph = sliced(&RING.replace("%1 %3 %2 next", "%0 %3 %2 next"));
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 1 violation at stage comm:
      needs operand 0 cut as @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]}, found @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}
        in %4 = attention_step %0 %3 %2 next scale=0.5 : f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 state=6)] @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]}
    ");
}

#[test]
fn results_are_cut_as_ops_give() {
    let graph = sliced(
        r#"%0 = input "x" HOST : TY @rows
        %1 = activate %0 silu : TY @heads   ; act
        %2 = activate %0 silu : TY @{}
        %3 = residual %1 %2 : TY @rows
        %4 = output %3 "y" HOST : TY @rows"#,
    );
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 4 violations at stage comm:
      gives the cut @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}
        in %1 = activate %0 silu : f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)] @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]}   ; act
      gives the cut @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}
        in %2 = activate %0 silu : f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)] @{}
      needs operand 0 cut as @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}, found @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]}
        in %3 = residual %1 %2 : f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)] @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}
      needs operand 1 cut as @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}, found @{}
        in %3 = residual %1 %2 : f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)] @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}
    ");
}

#[test]
fn all_to_alls_say_what_they_move() {
    for wrong in [
        "axis=ring gather=s split=c",
        "axis=ulysses gather=c split=s",
        "axis=ulysses gather=b split=c",
        "axis=ulysses gather=s split=nothing",
    ] {
        let graph = sliced(&RING.replace("axis=ulysses gather=s split=c", wrong));
        let message = message(&graph);
        assert!(message.contains("does not lead from"), "{wrong}: {message}");
        assert_eq!(
            message.matches("\n    in ").count(),
            1,
            "{wrong}: {message}"
        );
    }
    let graph = sliced(&RING.replace("gather=n split=s", "gather=s split=n"));
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 1 violation at stage comm:
      does not lead from @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]} to its cut
        in %6 = all_to_all %5 axis=ulysses gather=s split=n : f32[b=1, s=(txt=4 | h=4 w=2), c=(n=2 d=4)] @{h.w: ring,ulysses[0 2 4 6 8], txt: ring,ulysses[0 1 2 3 4]}
    ");
}

#[test]
fn all_gathers_end_a_cut() {
    let gather = |cut: &str| {
        let lines = r#"slices rows {b=2: cfg[0 1 2]}
            %0 = input "x" host=[b=2, c=4] : f32[b=2, c=4] @{b: cfg[0 1 2]}
            %1 = all_gather %0 axis=cfg gather=b : f32[b=2, c=4] CUT   ; both
            %2 = input "l" host=[k=1, c=4] : f32[k=1, c=4]
            %3 = input "coefficients" host=[s=7] : f32[s=7]
            %4 = denoise %1 %2 %3 guidance=classifier_free : f32[k=1, c=4]
            %5 = output %4 "y" host=[k=1, c=4] : f32[k=1, c=4]"#;
        graph("cfg=2 ring=1 ulysses=1", "comm", &lines.replace("CUT", cut))
    };
    let good = gather("@{}");
    verify(&good, good.stage).unwrap();
    assert_snapshot!(message(&gather("@{b: cfg[0 1 2]}")), @"
    internal error: graph g is broken, 2 violations at stage comm:
      does not lead from @{b: cfg[0 1 2]} to its cut
        in %1 = all_gather %0 axis=cfg gather=b : f32[b=2, c=4] @{b: cfg[0 1 2]}   ; both
      needs operand 0 cut as @{}, found @{b: cfg[0 1 2]}
        in %4 = denoise %1 %2 %3 guidance=classifier_free : f32[k=1, c=4] @{}
    ");
}

#[test]
fn ring_shifts_travel_one_position() {
    let graph = sliced(&RING.replace("KV @next", "KV @heads"));
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 1 violation at stage comm:
      does not lead from @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]} to its cut
        in %3 = ring_shift %1 axis=ring : f32[b=1, s=(txt=4 | h=4 w=2), c=(kv=2 n=2 d=4)] @{h.w: ring[0 4 8], n: ulysses[0 1 2], txt: ring[0 2 4]}
    ");
}
