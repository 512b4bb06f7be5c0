//! What cannot be compiled is refused with one message that says what to do.

use crate::transformer::Step;
use crate::{after_cut, graph, mesh, options, provenance};
use insta::assert_snapshot;
use terrace_compiler::ir::Graph;
use terrace_compiler::{SliceGranularity, compile};
use terrace_plan::Mesh;

fn refusal(graph: Graph, mesh: Mesh, granularity: SliceGranularity) -> String {
    let options = options(mesh, granularity);
    let result = compile(graph, &options, &provenance(mesh), &mut |_, _| {});
    result.unwrap_err().to_string()
}

fn step(mesh: Mesh, granularity: SliceGranularity) -> String {
    refusal(Step::SMALL.graph(), mesh, granularity)
}

#[test]
fn more_ranks_than_heads() {
    assert_snapshot!(step(mesh(1, 1, 6), SliceGranularity::Cell), @"ulysses degree 6 cannot be served: there are 5 attention heads; use ulysses degree 5 or less");
}

#[test]
fn more_ranks_than_rows() {
    assert_snapshot!(step(mesh(1, 5, 2), SliceGranularity::Row), @"ring x ulysses degree 10 cannot be served: there are 9 rows of the token grid; use ring x ulysses degree 9 or less");
}

#[test]
fn more_ranks_than_cells() {
    assert_snapshot!(step(mesh(1, 23, 2), SliceGranularity::Cell), @"ring x ulysses degree 46 cannot be served: there are 45 cells of the token grid; use ring x ulysses degree 45 or less");
}

#[test]
fn more_cfg_ranks_than_predictions() {
    let one = Step {
        guidance: terrace_compiler::ops::Guidance::None,
        ..Step::SMALL
    };
    assert_snapshot!(refusal(one.graph(), mesh(2, 1, 1), SliceGranularity::Cell), @"cfg degree 2 cannot be served: there are 1 batch items (guided predictions); use cfg degree 1 or less");
}

#[test]
fn nothing_to_slice() {
    let lines = r#"
        %0 = input "x" host=[b=1, c=8] : f32[b=1, c=8]
        %1 = output %0 "y" host=[b=1, c=8] : f32[b=1, c=8]"#;
    let graph = graph("canonicalize", lines);
    assert_snapshot!(refusal(graph, mesh(1, 2, 1), SliceGranularity::Cell), @"graph g has no attention over a latent grid to slice; it runs on one rank, not 2");
}

/// Queries alone are turned, which no kernel does.
#[test]
fn rotary_positions_that_could_not_be_fused() {
    let lines = r#"
        %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]
        %1 = position_table rotary theta=10000.0 columns=[t dim=4 start=0.0 step=1.0] rows=[v=(t=1 h=1 w=2)] out=[r=(cs=2 d=4)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=4)]
        %2 = rope %0 %1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]   ; blocks.0.attn1.rotary_q
        %3 = attention %2 %0 %0 separate scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]
        %4 = output %3 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]"#;
    let graph = graph("canonicalize", lines);
    assert_snapshot!(refusal(graph, Mesh::ONE, SliceGranularity::Cell), @"rope at blocks.0.attn1.rotary_q: no kernel serves it: rotary positions need packed queries and keys");
}

#[test]
fn a_part_of_a_stored_tensor() {
    let lines = r#"
        %0 = weight layout=plain from=["table" [8, 4]] : f32[v=8, c=4]
        %1 = take %0 v start=0 count=4 : f32[v=4, c=4]   ; half
        %2 = output %1 "y" host=[v=4, c=4] : f32[v=4, c=4]"#;
    let graph = graph("canonicalize", lines);
    assert_snapshot!(refusal(graph, Mesh::ONE, SliceGranularity::Cell), @"take at half: no kernel serves it: a weight lies packed in memory and cannot be moved");
}

#[test]
fn a_weight_as_output() {
    let lines = r#"
        %0 = weight layout=plain from=["table" [8, 4]] : f32[v=8, c=4]
        %1 = output %0 "y" host=[v=8, c=4] : f32[v=8, c=4]   ; y"#;
    let graph = graph("canonicalize", lines);
    assert_snapshot!(refusal(graph, Mesh::ONE, SliceGranularity::Cell), @"output at y: no kernel serves it: a weight lies packed in memory and cannot be an output");
}

/// The rows of attention that is not packed cannot travel around a ring.
#[test]
fn a_ring_of_attention_that_is_not_packed() {
    let lines = r#"
        %0 = input "x" host=[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)]
        %1 = attention %0 %0 %0 separate scale=0.5 : f32[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)]   ; attn
        %2 = output %1 "y" host=[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)]"#;
    let refused = after_cut("lower-attention", lines, mesh(1, 2, 1));
    assert_snapshot!(refused.unwrap_err().to_string(), @"attention at attn cannot work on parts cut as @{h.w: ring[0 2 4]}");
}

#[test]
fn pixels_next_to_a_cut() {
    let lines = r#"
        %0 = input "x" host=[b=1, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)]
        %1 = attention %0 packed scale=0.5 : f32[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)]
        %2 = output %1 "y" host=[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=2 w=2), c=(n=2 d=4)]
        %3 = input "z" host=[b=1, f=1, y=(h=2 w=2), x=1, e=8] : f32[b=1, f=1, y=(h=2 w=2), x=1, e=8]
        %4 = upsample %3 keep : f32[b=1, f=1, y=8, x=2, e=8]   ; up
        %5 = output %4 "u" host=[b=1, f=1, y=8, x=2, e=8] : f32[b=1, f=1, y=8, x=2, e=8]"#;
    let refused = after_cut("propagate-sharding", lines, mesh(1, 1, 2));
    assert_snapshot!(refused.map(|_| ()).unwrap_err().to_string(), @"upsample at up cannot work on parts cut as @{h.w: ulysses[0 2 4]}");
}

/// Taking a range of rows would leave some ranks without work and others with all of it.
#[test]
fn a_take_along_a_cut() {
    let lines = r#"
        %0 = input "x" host=[b=2, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)] : f32[b=2, seq=(t=1 h=2 w=2), c=(qkv=3 n=2 d=4)]
        %1 = attention %0 packed scale=0.5 : f32[b=2, seq=(t=1 h=2 w=2), c=(n=2 d=4)]
        %2 = take %1 h start=0 count=1 : f32[b=2, seq=(t=1 w=2), c=(n=2 d=4)]   ; top
        %3 = output %2 "y" host=[b=2, seq=(t=1 w=2), c=(n=2 d=4)] : f32[b=2, seq=(t=1 w=2), c=(n=2 d=4)]"#;
    let refused = after_cut("propagate-sharding", lines, mesh(1, 1, 2));
    assert_snapshot!(refused.map(|_| ()).unwrap_err().to_string(), @"take at top cannot work on parts cut as @{h.w: ulysses[0 2 4]}");
}
