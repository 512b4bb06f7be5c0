//! Shardings by themselves.

use crate::{graph, line, message};
use insta::assert_snapshot;
use terrace_compiler::ir::{Graph, Sharding};

/// An input cut like this on 2 x 2 x 2 ranks, and the same as output.
fn cut(stage: &str, cut: &str) -> Graph {
    let ty = "f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)]";
    let host = "host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)]";
    graph(
        "cfg=2 ring=2 ulysses=2",
        stage,
        &format!(
            "%0 = input \"x\" {host} : {ty} @{{{cut}}}\n%1 = output %0 \"y\" {host} : {ty} @{{}}"
        ),
    )
}

#[test]
fn good_ones() {
    for good in [
        "b: cfg[0 1 2], h.w: ring,ulysses[0 3 7 11 15], txt: ring,ulysses[0 1 2 3 4]",
        "h.w: ring[0 7 15]>>1, txt: ring[0 0 4]>>1, n: ulysses[0 3 6]",
        "n: cfg,ulysses[0 0 3 3 6]",
    ] {
        let graph = cut("sharded", good);
        terrace_compiler::verify::verify(&graph, graph.stage).unwrap();
    }
}

#[test]
fn nothing_is_cut_early_or_late() {
    assert_snapshot!(message(&cut("fused", "b: cfg[0 1 2]")), @r#"
    internal error: graph g is broken, 1 violation at stage fused:
      nothing is cut at this stage
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{b: cfg[0 1 2]}
    "#);
    let local = cut("local", "b: cfg[0 1 2]");
    assert_snapshot!(message(&local), @r#"
    internal error: graph g is broken, 2 violations at stage local:
      nothing is cut at this stage
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{b: cfg[0 1 2]}
      the graph has no schedule
    "#);
}

#[test]
fn factors_exist_side_by_side() {
    assert_snapshot!(message(&cut("sharded", "p: cfg[0 1 2], t.w: ulysses[0 5 10]")), @r#"
    internal error: graph g is broken, 2 violations at stage sharded:
      is cut at p, but no segment of its type has these factors side by side
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{p: cfg[0 1 2], t.w: ulysses[0 5 10]}
      is cut at t.w, but no segment of its type has these factors side by side
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{p: cfg[0 1 2], t.w: ulysses[0 5 10]}
    "#);
    assert_snapshot!(message(&cut("sharded", "txt.t: ulysses[0 4 8]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      is cut at txt.t, but no segment of its type has these factors side by side
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{txt.t: ulysses[0 4 8]}
    "#);
}

#[test]
fn offsets_rise_from_zero_to_the_size() {
    assert_snapshot!(message(&cut("sharded", "n: ulysses[0 3 5], b: cfg[1 1 2]")), @r#"
    internal error: graph g is broken, 2 violations at stage sharded:
      the offsets [1, 1, 2] of b do not rise from 0 to 2
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{b: cfg[1 1 2], n: ulysses[0 3 5]}
      the offsets [0, 3, 5] of n do not rise from 0 to 6
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{b: cfg[1 1 2], n: ulysses[0 3 5]}
    "#);
    assert_snapshot!(message(&cut("sharded", "h.w: ring,ulysses[0 8 7 9 15], txt: ring,ulysses[0 1 2 3 4]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      the offsets [0, 8, 7, 9, 15] of h.w do not rise from 0 to 15
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{h.w: ring,ulysses[0 8 7 9 15], txt: ring,ulysses[0 1 2 3 4]}
    "#);
    assert_snapshot!(message(&cut("sharded", "n: ulysses[]")), @r#"
    internal error: graph g is broken, 2 violations at stage sharded:
      the offsets [] of n do not rise from 0 to 6
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: ulysses[]}
      n is cut into 0 parts for 2 ranks
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: ulysses[]}
    "#);
}

#[test]
fn parts_are_as_many_as_ranks() {
    assert_snapshot!(message(&cut("sharded", "n: ulysses[0 2 4 6]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      n is cut into 3 parts for 2 ranks
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: ulysses[0 2 4 6]}
    "#);
}

#[test]
fn an_axis_cuts_once() {
    assert_snapshot!(message(&cut("sharded", "b: ulysses[0 1 2], n: ulysses[0 3 6]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      is cut by ulysses more than once
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{b: ulysses[0 1 2], n: ulysses[0 3 6]}
    "#);
    assert_snapshot!(message(&cut("sharded", "n: ring,ring[0 1 2 3 6]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      is cut by ring more than once
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: ring,ring[0 1 2 3 6]}
    "#);
    assert_snapshot!(message(&cut("sharded", "t: ring[0 1 2], h.w: ring[0 7 15], txt: ring[0 2 4]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      is cut by ring more than once
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{h.w: ring[0 7 15], t: ring[0 1 2], txt: ring[0 2 4]}
    "#);
}

#[test]
fn groups_share_no_factor() {
    assert_snapshot!(message(&cut("sharded", "n: cfg[0 3 6], n.d: ring[0 12 24]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      two cuts share the factor n
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: cfg[0 3 6], n.d: ring[0 12 24]}
    "#);
}

#[test]
fn an_axis_cuts_all_segments_or_none() {
    assert_snapshot!(message(&cut("sharded", "h.w: ulysses[0 7 15]")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      ulysses cuts some segments of seq and leaves others whole
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{h.w: ulysses[0 7 15]}
    "#);
}

#[test]
fn shifts_stay_on_the_ring() {
    assert_snapshot!(message(&cut("sharded", "n: ulysses[0 3 6]>>1")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      n is shifted by 1 on a ring of 1
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: ulysses[0 3 6]>>1}
    "#);
    assert_snapshot!(message(&cut("sharded", "n: ring[0 3 6]>>2")), @r#"
    internal error: graph g is broken, 1 violation at stage sharded:
      n is shifted by 2 on a ring of 2
        in %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=5), c=(n=6 d=4)] @{n: ring[0 3 6]>>2}
    "#);
}

#[test]
fn a_reshard_shows_the_cut_that_it_makes() {
    let mut graph = graph(
        "cfg=2 ring=1 ulysses=1",
        "sharded",
        r#"%0 = input "x" host=[b=2, c=4] : f32[b=2, c=4]
        %1 = reshard %0 : f32[b=2, c=4] @{b: cfg[0 1 2]}
        %2 = output %1 "y" host=[b=2, c=4] : f32[b=2, c=4]"#,
    );
    let reshard = line(&graph, 1);
    graph.set_sharding(reshard, Sharding::replicated());
    assert_snapshot!(message(&graph), @"
    internal error: graph g is broken, 1 violation at stage sharded:
      makes the cut @{b: cfg[0 1 2]}, but is shown with another
        in %1 = reshard %0 : f32[b=2, c=4] @{}
    ");
}

#[test]
fn slices_fit_the_mesh_and_each_other() {
    let slices = |slices: &str| {
        let x = r#"%0 = input "x" host=[c=4] : f32[c=4]"#;
        let y = r#"%1 = output %0 "y" host=[c=4] : f32[c=4]"#;
        graph(
            "cfg=1 ring=2 ulysses=2",
            "fused",
            &format!("{slices}\n{x}\n{y}"),
        )
    };
    assert_snapshot!(message(&slices("slices rows {h=3 w=5: ring,ulysses[0 3 7 11 14]}")), @"
    internal error: graph g is broken, 1 violation at stage fused:
      the offsets [0, 3, 7, 11, 14] of h.w do not rise from 0 to 15
    ");
    let heads =
        "slices rows {h=3 w=5: ring,ulysses[0 3 7 11 15]}\nslices heads {h=3 w=5: ring[0 8 15]}";
    assert_snapshot!(message(&slices(heads)), @"
    internal error: graph g is broken, 1 violation at stage fused:
      the slices ring[0 8 15] inside attention do not join the slices ring,ulysses[0 3 7 11 15] outside it
    ");
}
