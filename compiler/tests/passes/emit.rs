//! What works rank by rank: select-kernels chooses the calls, plan-memory places the buffers.

use crate::{graph, mesh, options, provenance};
use insta::assert_snapshot;
use proptest::prelude::*;
use terrace_compiler::SliceGranularity;
use terrace_compiler::passes::emit_plan;
use terrace_compiler::passes::pipeline::passes;
use terrace_compiler::passes::plan_memory::{LiveRange, place, stack};
use terrace_plan::{Buffer, Rank, explain};

/// Seven words and 2 x 3 cells of one frame, three heads of four channels.
const BLOCK: &str = r#"
        %0 = input "x" host=[b=1, seq=(txt=7 | t=1 h=2 w=3), c=12] : f32[b=1, seq=(txt=7 | t=1 h=2 w=3), c=12]   ; x
        %1 = weight layout=linear from=["w" [36, 12]] : f32[o=36, i=12]   ; w
        %2 = linear %0 %1 out=[c=(qkv=3 n=3 d=4)] : f32[b=1, seq=(txt=7 | t=1 h=2 w=3), c=(qkv=3 n=3 d=4)]   ; qkv
        %3 = attention %2 packed scale=0.5 : f32[b=1, seq=(txt=7 | t=1 h=2 w=3), c=(n=3 d=4)]   ; attn
        %4 = residual %0 %3 : f32[b=1, seq=(txt=7 | t=1 h=2 w=3), c=12]   ; sum
        %5 = output %4 "y" host=[b=1, seq=(txt=7 | t=1 h=2 w=3), c=12] : f32[b=1, seq=(txt=7 | t=1 h=2 w=3), c=12]   ; y"#;

#[test]
fn select_kernels_takes_local_sizes_and_the_packing_of_operands() {
    let mesh = mesh(1, 1, 2);
    let options = options(mesh, SliceGranularity::Cell);
    let mut graph = graph("assign-slices", BLOCK);
    for pass in passes().iter().skip_while(|p| p.name != "assign-slices") {
        pass.run(&mut graph, &options).unwrap();
    }
    let plan = emit_plan::run(&graph, &provenance(mesh)).unwrap();
    assert_snapshot!(explain::steps(&plan, Rank(1)).unwrap().to_text(), @r"
rank 1: 0 init steps, 11 steps
steps
   0  launch linear rows=6 k=12 n=36 x=b0 weight=w0 -> y=b1   ; qkv
   1  exchange all_to_all c0 pattern=0 keeps=72 axis=ulysses sends=576 B receives=336 B src=b1 -> dst=b2   ; qkv
   2  wait all_to_all c0   ; qkv
   3  free buffer=b1   ; qkv
   4  launch attention batch=1 heads=1 q_rows=13 kv_rows=13 head_dim=4 q=b2 k=b2+4 v=b2+8 -> y=b3   ; attn
   5  free buffer=b2   ; attn
   6  exchange all_to_all c1 pattern=1 keeps=24 axis=ulysses sends=112 B receives=192 B src=b3 -> dst=b4   ; attn
   7  wait all_to_all c1   ; attn
   8  free buffer=b3   ; attn
   9  launch gate_add rows=6 width=12 residual=b0 x=b4 -> y=b5   ; sum
  10  free buffer=b4   ; sum
");
}

#[test]
fn plan_memory_lets_what_is_not_alive_together_share_its_place() {
    let range = |bytes, first, last| LiveRange { bytes, first, last };
    let placement = place(&[range(60, 0, 2), range(64, 1, 3), range(64, 3, 4)]);
    assert_eq!(placement.offsets, [64, 0, 64]);
    assert_eq!(placement.bytes, 128);
    assert_eq!(stack([60, 0, 64]).offsets, [0, 64, 64]);
}

proptest! {
    #[test]
    fn buffers_alive_together_never_overlap(
        drafts in prop::collection::vec((0usize..500, 0usize..40, 0usize..12), 1..40)
    ) {
        let ranges: Vec<LiveRange> = drafts
            .iter()
            .map(|&(bytes, first, more)| LiveRange { bytes, first, last: first + more })
            .collect();
        let placement = place(&ranges);
        let end = |i: usize| placement.offsets[i] + ranges[i].bytes;
        for (i, a) in ranges.iter().enumerate() {
            prop_assert_eq!(placement.offsets[i] % Buffer::ALIGNMENT, 0);
            prop_assert!(end(i) <= placement.bytes);
            for (j, b) in ranges.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = end(i) <= placement.offsets[j] || end(j) <= placement.offsets[i];
                prop_assert!(!together || apart || a.bytes == 0 || b.bytes == 0);
            }
        }
        let stacked = stack(ranges.iter().map(|r| r.bytes)).bytes;
        prop_assert!(placement.bytes <= stacked);
    }
}
