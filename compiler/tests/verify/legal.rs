//! The ops of each stage.

use crate::{graph, line, message, single};
use insta::assert_snapshot;
use terrace_compiler::ir::{Graph, Stage};
use terrace_compiler::verify::verify;

/// Fused ops, each in its form.
const FUSED: &str = r#"
    %0 = input "x" host=[b=1, seq=4, c=8] : f32[b=1, seq=4, c=8]
    %1 = input "mods" host=[b=1, m=16] : f32[b=1, m=16]
    %2 = norm %0 %1 kind=layer eps=1e-5 affine=none chunks=[shift=0 scale=1] : f32[b=1, seq=4, c=8]
    %3 = weight layout=linear from=["w" [24, 8]] : f32[o=24, i=8]
    %4 = linear %2 %3 out=[c=(qkv=3 n=2 d=4)] epilogue=silu : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)]
    %5 = qk_norm_rope %4 : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)]
    %6 = attention %5 packed scale=0.5 : f32[b=1, seq=4, c=(n=2 d=4)]
    %7 = output %6 "y" host=[b=1, seq=4, c=(n=2 d=4)] : f32[b=1, seq=4, c=(n=2 d=4)]"#;

/// Steps of a ring, reshards and collectives on one rank, where they change nothing.
const MOVED: &str = r#"
    %0 = input "x" host=[b=1, seq=4, c=(qkv=3 n=2 d=4)] : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)]
    %1 = reshard %0 : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)]
    %2 = all_to_all %1 axis=ulysses gather=seq split=c : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)]
    %3 = all_gather %2 axis=cfg gather=b : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)]
    %4 = ring_shift %3 axis=ring : f32[b=1, seq=4, c=(kv=2 n=2 d=4)]
    %5 = attention_step %3 %4 first scale=0.5 : f32[b=1, seq=4, c=(n=2 state=6)]
    %6 = attention_finish %5 : f32[b=1, seq=4, c=(n=2 d=4)]
    %7 = output %6 "y" host=[b=1, seq=4, c=(n=2 d=4)] : f32[b=1, seq=4, c=(n=2 d=4)]"#;

#[test]
fn no_fused_ops_in_a_model() {
    let model = single("model", FUSED);
    assert_snapshot!(message(&model), @"
    internal error: graph g is broken, 4 violations at stage model:
      is not legal at this stage: a modulated norm is a fused op
        in %2 = norm %0 %1 kind=layer eps=1e-5 affine=none chunks=[shift=0 scale=1] : f32[b=1, seq=4, c=8] @{}
      is not legal at this stage: a linear with an epilogue is a fused op
        in %4 = linear %2 %3 out=[c=(qkv=3 n=2 d=4)] epilogue=silu : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
      is not legal at this stage: qk_norm_rope is a fused op
        in %5 = qk_norm_rope %4 : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
      is not legal at this stage: packed attention is a fused op
        in %6 = attention %5 packed scale=0.5 : f32[b=1, seq=4, c=(n=2 d=4)] @{}
    ");
    verify(&model, Stage::Fused).unwrap();
}

#[test]
fn nothing_moves_before_cuts() {
    assert_snapshot!(message(&single("fused", MOVED)), @"
    internal error: graph g is broken, 6 violations at stage fused:
      is not legal at this stage: reshards need cuts
        in %1 = reshard %0 : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
      is not legal at this stage: reshards stand for collectives
        in %2 = all_to_all %1 axis=ulysses gather=seq split=c : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
      is not legal at this stage: reshards stand for collectives
        in %3 = all_gather %2 axis=cfg gather=b : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
      is not legal at this stage: the steps of a ring need cuts
        in %4 = ring_shift %3 axis=ring : f32[b=1, seq=4, c=(kv=2 n=2 d=4)] @{}
      is not legal at this stage: the steps of a ring need cuts
        in %5 = attention_step %3 %4 first scale=0.5 : f32[b=1, seq=4, c=(n=2 state=6)] @{}
      is not legal at this stage: the steps of a ring need cuts
        in %6 = attention_finish %5 : f32[b=1, seq=4, c=(n=2 d=4)] @{}
    ");
}

#[test]
fn reshards_stand_for_collectives() {
    assert_snapshot!(message(&single("sharded", MOVED)), @"
    internal error: graph g is broken, 2 violations at stage sharded:
      is not legal at this stage: reshards stand for collectives
        in %2 = all_to_all %1 axis=ulysses gather=seq split=c : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
      is not legal at this stage: reshards stand for collectives
        in %3 = all_gather %2 axis=cfg gather=b : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
    ");
}

#[test]
fn reshards_are_lowered() {
    assert_snapshot!(message(&single("comm", MOVED)), @"
    internal error: graph g is broken, 1 violation at stage comm:
      is not legal at this stage: reshards are lowered to collectives
        in %1 = reshard %0 : f32[b=1, seq=4, c=(qkv=3 n=2 d=4)] @{}
    ");
}

fn on_ring(stage: &str) -> Graph {
    graph(
        "cfg=1 ring=2 ulysses=1",
        stage,
        r#"slices rows {h=4 w=2: ring[0 4 8]}
        slices heads {h=4 w=2: ring[0 4 8]}
        %0 = input "x" host=[b=1, s=(h=4 w=2), c=(n=2 d=4)] : f32[b=1, s=(h=4 w=2), c=(n=2 d=4)] @{h.w: ring[0 4 8]}
        %1 = attention %0 %0 %0 separate scale=0.5 : f32[b=1, s=(h=4 w=2), c=(n=2 d=4)] @{h.w: ring[0 4 8]}   ; attn1
        %2 = output %1 "y" host=[b=1, s=(h=4 w=2), c=(n=2 d=4)] : f32[b=1, s=(h=4 w=2), c=(n=2 d=4)] @{h.w: ring[0 4 8]}"#,
    )
}

#[test]
fn attention_on_a_ring_is_lowered() {
    let sharded = on_ring("sharded");
    verify(&sharded, sharded.stage).unwrap();
    assert_snapshot!(message(&on_ring("comm")), @"
    internal error: graph g is broken, 1 violation at stage comm:
      is not legal at this stage: attention over rows cut by the ring is lowered to steps
        in %1 = attention %0 %0 %0 separate scale=0.5 : f32[b=1, s=(h=4 w=2), c=(n=2 d=4)] @{h.w: ring[0 4 8]}   ; attn1
    ");
    let mut whole = on_ring("comm");
    let attention = line(&whole, 1);
    whole.set_sharding(attention, terrace_compiler::ir::Sharding::replicated());
    assert_snapshot!(message(&whole), @"
    internal error: graph g is broken, 1 violation at stage comm:
      is not legal at this stage: attention over rows cut by the ring is lowered to steps
        in %1 = attention %0 %0 %0 separate scale=0.5 : f32[b=1, s=(h=4 w=2), c=(n=2 d=4)] @{}   ; attn1
    ");
}
