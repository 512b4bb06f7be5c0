//! assign-slices to localize: a block on a mesh.

use crate::{after_cut, graph, mesh, options, pass};
use insta::assert_snapshot;
use terrace_compiler::SliceGranularity;
use terrace_compiler::ir::Stage;
use terrace_compiler::passes::localize;
use terrace_compiler::passes::pipeline::passes;
use terrace_compiler::text::print;
use terrace_compiler::verify::verify;
use terrace_plan::Rank;

/// Two predictions of four words and two frames of 3 x 3 cells, three heads.
const BLOCK: &str = r#"
        %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)]   ; x
        %1 = attention %0 packed scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)]   ; attn
        %2 = output %1 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)]   ; y"#;

fn cut(name: &str, cfg: usize, ring: usize, ulysses: usize) -> String {
    after_cut(name, BLOCK, mesh(cfg, ring, ulysses)).unwrap()
}

/// Nine cells on four ranks are 2 or 3, with two frames 4 or 6 tokens; the text evens them out.
#[test]
fn assign_slices_cuts_cells_and_pours_text() {
    assert_snapshot!(cut("assign-slices", 2, 2, 2), @r#"
mesh <cfg=2 ring=2 ulysses=2>
graph g stage=fused {
  slices rows {h=3 w=3: ring,ulysses[0 2 5 7 9], txt=4: ring,ulysses[0 2 2 3 4], b=2: cfg[0 1 2]}
  slices heads {h=3 w=3: ring[0 5 9], txt=4: ring[0 2 4], b=2: cfg[0 1 2], n=3: ulysses[0 2 3]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{}   ; x
  %1 = attention %0 packed scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{}   ; attn
  %2 = output %1 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{}   ; y
}
"#);
}

#[test]
fn assign_slices_cuts_rows_when_asked() {
    let mut graph = graph("assign-slices", BLOCK);
    let options = options(mesh(1, 2, 1), SliceGranularity::Row);
    pass("assign-slices").run(&mut graph, &options).unwrap();
    assert_snapshot!(print(&graph), @r#"
mesh <cfg=1 ring=2 ulysses=1>
graph g stage=fused {
  slices rows {h=3 w=3: ring[0 6 9], txt=4: ring[0 0 4]}
  slices heads {h=3 w=3: ring[0 6 9], txt=4: ring[0 0 4]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{}   ; x
  %1 = attention %0 packed scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{}   ; attn
  %2 = output %1 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{}   ; y
}
"#);
}

#[test]
fn propagate_sharding_cuts_every_tensor_as_its_op_needs() {
    assert_snapshot!(cut("propagate-sharding", 1, 1, 2), @r#"
mesh <cfg=1 ring=1 ulysses=2>
graph g stage=sharded {
  slices rows {h=3 w=3: ulysses[0 5 9], txt=4: ulysses[0 1 4]}
  slices heads {n=3: ulysses[0 2 3]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; x
  %1 = attention %0 packed scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{n: ulysses[0 2 3]}   ; attn
  %2 = output %1 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; y
}
"#);
}

#[test]
fn insert_reshards_goes_between_unlike_cuts() {
    assert_snapshot!(cut("insert-reshards", 1, 1, 2), @r#"
mesh <cfg=1 ring=1 ulysses=2>
graph g stage=sharded {
  slices rows {h=3 w=3: ulysses[0 5 9], txt=4: ulysses[0 1 4]}
  slices heads {n=3: ulysses[0 2 3]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; x
  %1 = reshard %0 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{n: ulysses[0 2 3]}   ; x
  %2 = attention %1 packed scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{n: ulysses[0 2 3]}   ; attn
  %3 = reshard %2 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; attn
  %4 = output %3 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; y
}
"#);
}

/// Reshards in a row become one, and one that changes nothing goes.
#[test]
fn elide_reshards_removes_the_way_there_and_back() {
    let lines = r#"
        %0 = input "x" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8]
        %1 = reshard %0 : f32[b=1, seq=(t=1 h=2 w=2), c=8] @{h.w: ulysses[0 2 4]}
        %2 = reshard %1 : f32[b=1, seq=(t=1 h=2 w=2), c=8]
        %3 = reshard %2 : f32[b=1, seq=(t=1 h=2 w=2), c=8]
        %4 = output %3 "y" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8]"#;
    let mut graph = graph("elide-reshards", lines);
    graph.mesh = mesh(1, 1, 2);
    assert_snapshot!(crate::run("elide-reshards", graph, mesh(1, 1, 2)).unwrap(), @r#"
mesh <cfg=1 ring=1 ulysses=2>
graph g stage=sharded {
  %0 = input "x" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8] @{}
  %1 = output %0 "y" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8] @{}
}
"#);
}

#[test]
fn lower_attention_makes_one_step_per_ring_position() {
    assert_snapshot!(cut("lower-attention", 1, 3, 1), @r#"
mesh <cfg=1 ring=3 ulysses=1>
graph g stage=sharded {
  slices rows {h=3 w=3: ring[0 3 6 9], txt=4: ring[0 2 3 4]}
  slices heads {h=3 w=3: ring[0 3 6 9], txt=4: ring[0 2 3 4]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{h.w: ring[0 3 6 9], txt: ring[0 2 3 4]}   ; x
  %1 = attention_step %0 %0 first scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 state=6)] @{h.w: ring[0 3 6 9], txt: ring[0 2 3 4]}   ; attn
  %2 = ring_shift %0 axis=ring : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(kv=2 n=3 d=4)] @{h.w: ring[0 3 6 9]>>1, txt: ring[0 2 3 4]>>1}   ; attn
  %3 = attention_step %0 %2 %1 next scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 state=6)] @{h.w: ring[0 3 6 9], txt: ring[0 2 3 4]}   ; attn
  %4 = ring_shift %2 axis=ring : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(kv=2 n=3 d=4)] @{h.w: ring[0 3 6 9]>>2, txt: ring[0 2 3 4]>>2}   ; attn
  %5 = attention_step %0 %4 %3 next scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 state=6)] @{h.w: ring[0 3 6 9], txt: ring[0 2 3 4]}   ; attn
  %6 = attention_finish %5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ring[0 3 6 9], txt: ring[0 2 3 4]}   ; attn
  %7 = output %6 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ring[0 3 6 9], txt: ring[0 2 3 4]}   ; y
}
"#);
}

#[test]
fn lower_attention_leaves_attention_without_a_ring_alone() {
    let lowered = cut("lower-attention", 1, 1, 3);
    assert_eq!(lowered, cut("elide-reshards", 1, 1, 3));
}

#[test]
fn lower_reshards_exchanges_sequence_for_heads_and_back() {
    assert_snapshot!(cut("lower-reshards", 1, 1, 2), @r#"
mesh <cfg=1 ring=1 ulysses=2>
graph g stage=comm {
  slices rows {h=3 w=3: ulysses[0 5 9], txt=4: ulysses[0 1 4]}
  slices heads {n=3: ulysses[0 2 3]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; x
  %1 = all_to_all %0 axis=ulysses gather=seq split=c : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{n: ulysses[0 2 3]}   ; x
  %2 = attention %1 packed scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{n: ulysses[0 2 3]}   ; attn
  %3 = all_to_all %2 axis=ulysses gather=c split=seq : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; attn
  %4 = output %3 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ulysses[0 5 9], txt: ulysses[0 1 4]}   ; y
}
"#);
}

#[test]
fn lower_reshards_gathers_both_predictions() {
    let lines = r#"
        %0 = input "p" host=[b=2, seq=(t=1 h=2 w=2), c=8] : f32[b=2, seq=(t=1 h=2 w=2), c=8]
        %1 = input "x" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8]
        %2 = input "k" host=[k=7] : f32[k=7]
        %3 = input "q" host=[b=2, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)] : f32[b=2, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)]
        %4 = attention %3 packed scale=0.5 : f32[b=2, seq=(t=1 h=2 w=2), c=(n=2 d=4)]
        %5 = residual %0 %4 : f32[b=2, seq=(t=1 h=2 w=2), c=8]
        %6 = denoise %5 %1 %2 guidance=classifier_free : f32[b=1, seq=(t=1 h=2 w=2), c=8]
        %7 = output %6 "y" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8]"#;
    assert_snapshot!(after_cut("lower-reshards", lines, mesh(2, 1, 1)).unwrap(), @r#"
mesh <cfg=2 ring=1 ulysses=1>
graph g stage=comm {
  slices rows {b=2: cfg[0 1 2]}
  slices heads {b=2: cfg[0 1 2]}
  %0 = input "p" host=[b=2, seq=(t=1 h=2 w=2), c=8] : f32[b=2, seq=(t=1 h=2 w=2), c=8] @{b: cfg[0 1 2]}
  %1 = input "x" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8] @{}
  %2 = input "k" host=[k=7] : f32[k=7] @{}
  %3 = input "q" host=[b=2, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)] : f32[b=2, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)] @{b: cfg[0 1 2]}
  %4 = attention %3 packed scale=0.5 : f32[b=2, seq=(t=1 h=2 w=2), c=(n=2 d=4)] @{b: cfg[0 1 2]}
  %5 = residual %0 %4 : f32[b=2, seq=(t=1 h=2 w=2), c=8] @{b: cfg[0 1 2]}
  %6 = all_gather %5 axis=cfg gather=b : f32[b=2, seq=(t=1 h=2 w=2), c=8] @{}
  %7 = denoise %6 %1 %2 guidance=classifier_free : f32[b=1, seq=(t=1 h=2 w=2), c=8] @{}
  %8 = output %7 "y" host=[b=1, seq=(t=1 h=2 w=2), c=8] : f32[b=1, seq=(t=1 h=2 w=2), c=8] @{}
}
"#);
}

/// A shift is issued before the step that does not need it.
#[test]
fn schedule_issues_shifts_early() {
    assert_snapshot!(cut("schedule", 1, 2, 1), @r#"
mesh <cfg=1 ring=2 ulysses=1>
graph g stage=scheduled order=fixed {
  slices rows {h=3 w=3: ring[0 5 9], txt=4: ring[0 1 4]}
  slices heads {h=3 w=3: ring[0 5 9], txt=4: ring[0 1 4]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] @{h.w: ring[0 5 9], txt: ring[0 1 4]}   ; x
  %1 = ring_shift %0 axis=ring : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(kv=2 n=3 d=4)] @{h.w: ring[0 5 9]>>1, txt: ring[0 1 4]>>1}   ; attn
  %2 = attention_step %0 %0 first scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 state=6)] @{h.w: ring[0 5 9], txt: ring[0 1 4]}   ; attn
  %3 = attention_step %0 %1 %2 next scale=0.5 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 state=6)] @{h.w: ring[0 5 9], txt: ring[0 1 4]}   ; attn
  %4 = attention_finish %3 : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ring[0 5 9], txt: ring[0 1 4]}   ; attn
  %5 = output %4 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] @{h.w: ring[0 5 9], txt: ring[0 1 4]}   ; y
}
"#);
}

#[test]
fn schedule_computes_tables_at_init() {
    let lines = r#"
        %0 = position_table sin_cos columns=[t dim=4 start=0.0 step=1.0] rows=[seq=(t=1 h=1 w=2)] out=[c=4] : f32[seq=(t=1 h=1 w=2), c=4]
        %1 = input "x" host=[seq=(t=1 h=1 w=2), c=4] : f32[seq=(t=1 h=1 w=2), c=4]
        %2 = residual %1 %0 : f32[seq=(t=1 h=1 w=2), c=4]
        %3 = output %2 "y" host=[seq=(t=1 h=1 w=2), c=4] : f32[seq=(t=1 h=1 w=2), c=4]"#;
    assert_snapshot!(after_cut("schedule", lines, mesh(1, 1, 1)).unwrap(), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=scheduled order=fixed {
  %0 = input "x" host=[seq=(t=1 h=1 w=2), c=4] : f32[seq=(t=1 h=1 w=2), c=4] @{}
  %1 = position_table sin_cos columns=[t dim=4 start=0.0 step=1.0] rows=[seq=(t=1 h=1 w=2)] out=[c=4] : f32[seq=(t=1 h=1 w=2), c=4] @{} init
  %2 = residual %0 %1 : f32[seq=(t=1 h=1 w=2), c=4] @{}
  %3 = output %2 "y" host=[seq=(t=1 h=1 w=2), c=4] : f32[seq=(t=1 h=1 w=2), c=4] @{}
}
"#);
}

#[test]
fn localize_cuts_every_type_to_the_part_of_a_rank() {
    let mut graph = graph("assign-slices", BLOCK);
    let from = passes()
        .iter()
        .position(|p| p.name == "assign-slices")
        .unwrap();
    for pass in &passes()[from..] {
        pass.run(&mut graph, &options(mesh(2, 1, 2), SliceGranularity::Cell))
            .unwrap();
    }
    let local = localize::run(&graph, Rank(3));
    verify(&local, Stage::Local).unwrap();
    assert_snapshot!(print(&local), @r#"
mesh <cfg=2 ring=1 ulysses=2>
graph g stage=local order=fixed {
  slices rows {h=3 w=3: ulysses[0 5 9], txt=4: ulysses[0 1 4], b=2: cfg[0 1 2]}
  slices heads {b=2: cfg[0 1 2], n=3: ulysses[0 2 3]}
  %0 = input "x" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] whole=f32[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=3 d=4)] : f32[b=1, seq=(txt=3 | t=2 h.w=4), c=(qkv=3 n=3 d=4)] @{}   ; x
  %1 = all_to_all %0 axis=ulysses gather=seq split=c : f32[b=1, seq=(txt=4 | t=2 h=3 w=3), c=(qkv=3 n=1 d=4)] @{}   ; x
  %2 = attention %1 packed scale=0.5 : f32[b=1, seq=(txt=4 | t=2 h=3 w=3), c=(n=1 d=4)] @{}   ; attn
  %3 = all_to_all %2 axis=ulysses gather=c split=seq : f32[b=1, seq=(txt=3 | t=2 h.w=4), c=(n=3 d=4)] @{}   ; attn
  %4 = output %3 "y" host=[b=2, seq=(txt=4 | t=2 h=3 w=3), c=(n=3 d=4)] : f32[b=1, seq=(txt=3 | t=2 h.w=4), c=(n=3 d=4)] @{}   ; y
}
"#);
}
