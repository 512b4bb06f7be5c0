//! canonicalize, fold-constants, dedup, remove-dead.

use crate::after;
use insta::assert_snapshot;

#[test]
fn canonicalize_joins_takes_and_drops_what_moves_nothing() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %1 = take %0 c start=2 count=5 : f32[b=1, seq=(txt=4), c=5]
        %2 = take %1 c start=1 count=3 : f32[b=1, seq=(txt=4), c=3]
        %3 = repeat %2 b count=1 : f32[b=1, seq=(txt=4), c=3]
        %4 = segment %3 0 : f32[b=1, seq=(txt=4), c=3]
        %5 = concat %4 c : f32[b=1, seq=(txt=4), c=3]
        %6 = take %5 txt start=0 count=4 : f32[b=1, seq=(txt=4), c=3]
        %7 = output %6 "y" host=[b=1, seq=(txt=4), c=3] : f32[b=1, seq=(txt=4), c=3]"#;
    assert_snapshot!(after("canonicalize", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
  %1 = take %0 c start=3 count=3 : f32[b=1, seq=(txt=4), c=3] @{}
  %2 = output %1 "y" host=[b=1, seq=(txt=4), c=3] : f32[b=1, seq=(txt=4), c=3] @{}
}
"#);
}

#[test]
fn canonicalize_keeps_takes_of_several_factors() {
    let before = r#"
        %0 = input "x" host=[b=2, c=8] : f32[b=2, c=8]
        %1 = take %0 c start=2 count=5 : f32[b=2, c=5]
        %2 = take %1 b start=0 count=1 : f32[b=1, c=5]
        %3 = output %2 "y" host=[b=1, c=5] : f32[b=1, c=5]"#;
    assert_snapshot!(after("canonicalize", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = input "x" host=[b=2, c=8] : f32[b=2, c=8] @{}
  %1 = take %0 c start=2 count=5 : f32[b=2, c=5] @{}
  %2 = take %1 b start=0 count=1 : f32[b=1, c=5] @{}
  %3 = output %2 "y" host=[b=1, c=5] : f32[b=1, c=5] @{}
}
"#);
}

#[test]
fn fold_constants_takes_stored_tensors_from_a_weight() {
    let before = r#"
        %0 = input "x" host=[b=1, i=4] : f32[b=1, i=4]
        %1 = weight layout=linear from=["k" [8, 4], "v" [8, 4]] : f32[o=16, i=4]
        %2 = take %1 o start=8 count=8 : f32[o=8, i=4]
        %3 = linear %0 %2 out=[c=8] : f32[b=1, c=8]
        %4 = output %3 "y" host=[b=1, c=8] : f32[b=1, c=8]"#;
    assert_snapshot!(after("fold-constants", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = input "x" host=[b=1, i=4] : f32[b=1, i=4] @{}
  %1 = weight layout=linear from=["v" [8, 4]] : f32[o=8, i=4] @{}
  %2 = linear %0 %1 out=[c=8] : f32[b=1, c=8] @{}
  %3 = output %2 "y" host=[b=1, c=8] : f32[b=1, c=8] @{}
}
"#);
}

#[test]
fn fold_constants_joins_weights() {
    let before = r#"
        %0 = input "x" host=[b=1, i=4] : f32[b=1, i=4]
        %1 = weight layout=linear from=["k" [8, 4]] : f32[o=8, i=4]
        %2 = weight layout=linear from=["v" [6, 4]] : f32[o=6, i=4]
        %3 = concat %1 %2 o : f32[o=14, i=4]
        %4 = linear %0 %3 out=[c=14] : f32[b=1, c=14]
        %5 = output %4 "y" host=[b=1, c=14] : f32[b=1, c=14]"#;
    assert_snapshot!(after("fold-constants", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = input "x" host=[b=1, i=4] : f32[b=1, i=4] @{}
  %1 = weight layout=linear from=["k" [8, 4], "v" [6, 4]] : f32[o=14, i=4] @{}
  %2 = linear %0 %1 out=[c=14] : f32[b=1, c=14] @{}
  %3 = output %2 "y" host=[b=1, c=14] : f32[b=1, c=14] @{}
}
"#);
}

/// The loader joins whole tensors only, so half of one stays a take.
#[test]
fn fold_constants_leaves_half_a_tensor_alone() {
    let before = r#"
        %0 = weight layout=plain from=["table" [8, 4]] : f32[v=8, c=4]
        %1 = take %0 v start=0 count=4 : f32[v=4, c=4]
        %2 = output %1 "y" host=[v=4, c=4] : f32[v=4, c=4]"#;
    assert_snapshot!(after("fold-constants", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = weight layout=plain from=["table" [8, 4]] : f32[v=8, c=4] @{}
  %1 = take %0 v start=0 count=4 : f32[v=4, c=4] @{}
  %2 = output %1 "y" host=[v=4, c=4] : f32[v=4, c=4] @{}
}
"#);
}

#[test]
fn dedup_merges_equal_ops_of_equal_operands() {
    let before = r#"
        %0 = input "x" host=[b=1, i=4] : f32[b=1, i=4]
        %1 = weight layout=linear from=["w" [4, 4]] : f32[o=4, i=4]   ; first
        %2 = weight layout=linear from=["w" [4, 4]] : f32[o=4, i=4]   ; second
        %3 = weight layout=linear from=["other" [4, 4]] : f32[o=4, i=4]
        %4 = linear %0 %1 out=[c=4] : f32[b=1, c=4]   ; first
        %5 = linear %0 %2 out=[c=4] : f32[b=1, c=4]   ; second
        %6 = linear %0 %3 out=[c=4] : f32[b=1, c=4]   ; other
        %7 = residual %4 %5 : f32[b=1, c=4]
        %8 = residual %7 %6 : f32[b=1, c=4]
        %9 = output %8 "y" host=[b=1, c=4] : f32[b=1, c=4]"#;
    assert_snapshot!(after("dedup", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = input "x" host=[b=1, i=4] : f32[b=1, i=4] @{}
  %1 = weight layout=linear from=["w" [4, 4]] : f32[o=4, i=4] @{}   ; first
  %2 = weight layout=linear from=["other" [4, 4]] : f32[o=4, i=4] @{}
  %3 = linear %0 %1 out=[c=4] : f32[b=1, c=4] @{}   ; first
  %4 = linear %0 %2 out=[c=4] : f32[b=1, c=4] @{}   ; other
  %5 = residual %3 %3 : f32[b=1, c=4] @{}
  %6 = residual %5 %4 : f32[b=1, c=4] @{}
  %7 = output %6 "y" host=[b=1, c=4] : f32[b=1, c=4] @{}
}
"#);
}

#[test]
fn dedup_merges_position_tables() {
    let table = r#"position_table rotary theta=10000.0 columns=[t dim=2 start=0.0 step=1.0] rows=[v=(t=1 h=1 w=2)] out=[r=(cs=2 d=2)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=2)]"#;
    let before = format!(
        r#"
        %0 = {table}
        %1 = {table}
        %2 = residual %0 %1 : f32[v=(t=1 h=1 w=2), r=(cs=2 d=2)]
        %3 = output %2 "y" host=[v=(t=1 h=1 w=2), r=(cs=2 d=2)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=2)]"#
    );
    assert_snapshot!(after("dedup", &before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = position_table rotary theta=10000.0 columns=[t dim=2 start=0.0 step=1.0] rows=[v=(t=1 h=1 w=2)] out=[r=(cs=2 d=2)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=2)] @{}
  %1 = residual %0 %0 : f32[v=(t=1 h=1 w=2), r=(cs=2 d=2)] @{}
  %2 = output %1 "y" host=[v=(t=1 h=1 w=2), r=(cs=2 d=2)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=2)] @{}
}
"#);
}

#[test]
fn remove_dead_keeps_inputs() {
    let before = r#"
        %0 = input "x" host=[b=1, c=8] : f32[b=1, c=8]
        %1 = input "unused" host=[b=1, c=8] : f32[b=1, c=8]
        %2 = activate %1 silu : f32[b=1, c=8]
        %3 = activate %2 silu : f32[b=1, c=8]
        %4 = output %0 "y" host=[b=1, c=8] : f32[b=1, c=8]"#;
    assert_snapshot!(after("remove-dead", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=model {
  %0 = input "x" host=[b=1, c=8] : f32[b=1, c=8] @{}
  %1 = input "unused" host=[b=1, c=8] : f32[b=1, c=8] @{}
  %2 = output %0 "y" host=[b=1, c=8] : f32[b=1, c=8] @{}
}
"#);
}
