//! fuse-qkv, fuse-qk-norm-rope, fuse-modulate, fuse-epilogue, hoist-modulation.

use crate::after;
use insta::assert_snapshot;

#[test]
fn fuse_qkv_joins_weights_and_biases() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %1 = weight layout=linear from=["a.to_q.weight" [8, 8]] : f32[o=8, i=8]   ; a.to_q.weight
        %2 = weight layout=plain from=["a.to_q.bias" [8]] : f32[o=8]   ; a.to_q.bias
        %3 = linear %0 %1 %2 out=[c=(n=2 d=4)] bias : f32[b=1, seq=(txt=4), c=(n=2 d=4)]   ; a.to_q
        %4 = weight layout=linear from=["a.to_k.weight" [8, 8]] : f32[o=8, i=8]   ; a.to_k.weight
        %5 = weight layout=plain from=["a.to_k.bias" [8]] : f32[o=8]   ; a.to_k.bias
        %6 = linear %0 %4 %5 out=[c=(n=2 d=4)] bias : f32[b=1, seq=(txt=4), c=(n=2 d=4)]   ; a.to_k
        %7 = weight layout=linear from=["a.to_v.weight" [8, 8]] : f32[o=8, i=8]   ; a.to_v.weight
        %8 = weight layout=plain from=["a.to_v.bias" [8]] : f32[o=8]   ; a.to_v.bias
        %9 = linear %0 %7 %8 out=[c=(n=2 d=4)] bias : f32[b=1, seq=(txt=4), c=(n=2 d=4)]   ; a.to_v
        %10 = head_norm %3 kind=layer eps=1e-6 affine=none : f32[b=1, seq=(txt=4), c=(n=2 d=4)]   ; a.norm_q
        %11 = attention %10 %6 %9 separate scale=0.5 : f32[b=1, seq=(txt=4), c=(n=2 d=4)]   ; a
        %12 = output %11 "y" host=[b=1, seq=(txt=4), c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)]   ; y"#;
    assert_snapshot!(after("fuse-qkv", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
  %1 = weight layout=linear from=["a.to_q.weight" [8, 8], "a.to_k.weight" [8, 8], "a.to_v.weight" [8, 8]] : f32[o=24, i=8] @{}   ; a
  %2 = weight layout=plain from=["a.to_q.bias" [8], "a.to_k.bias" [8], "a.to_v.bias" [8]] : f32[o=24] @{}   ; a
  %3 = linear %0 %1 %2 out=[c=(qkv=3 n=2 d=4)] bias : f32[b=1, seq=(txt=4), c=(qkv=3 n=2 d=4)] @{}   ; a
  %4 = take %3 qkv start=1 count=1 : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}   ; a.to_k
  %5 = take %3 qkv start=2 count=1 : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}   ; a.to_v
  %6 = take %3 qkv start=0 count=1 : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}   ; a.to_q
  %7 = head_norm %6 kind=layer eps=1e-6 affine=none : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}   ; a.norm_q
  %8 = attention %7 %4 %5 separate scale=0.5 : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}   ; a
  %9 = output %8 "y" host=[b=1, seq=(txt=4), c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}   ; y
}
"#);
}

/// Keys and values of another sequence cannot share a product with the queries.
#[test]
fn fuse_qkv_leaves_cross_attention_alone() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %1 = input "z" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %2 = weight layout=linear from=["q" [8, 8]] : f32[o=8, i=8]
        %3 = weight layout=linear from=["k" [8, 8]] : f32[o=8, i=8]
        %4 = weight layout=linear from=["v" [8, 8]] : f32[o=8, i=8]
        %5 = linear %0 %2 out=[c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)]
        %6 = linear %1 %3 out=[c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)]
        %7 = linear %1 %4 out=[c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)]
        %8 = attention %5 %6 %7 separate scale=0.5 : f32[b=1, seq=(txt=4), c=(n=2 d=4)]
        %9 = output %8 "y" host=[b=1, seq=(txt=4), c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)]"#;
    assert_snapshot!(after("fuse-qkv", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
  %1 = input "z" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
  %2 = weight layout=linear from=["q" [8, 8]] : f32[o=8, i=8] @{}
  %3 = weight layout=linear from=["k" [8, 8]] : f32[o=8, i=8] @{}
  %4 = weight layout=linear from=["v" [8, 8]] : f32[o=8, i=8] @{}
  %5 = linear %0 %2 out=[c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}
  %6 = linear %1 %3 out=[c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}
  %7 = linear %1 %4 out=[c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}
  %8 = attention %5 %6 %7 separate scale=0.5 : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}
  %9 = output %8 "y" host=[b=1, seq=(txt=4), c=(n=2 d=4)] : f32[b=1, seq=(txt=4), c=(n=2 d=4)] @{}
}
"#);
}

const PACKED: &str = r#"
        %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)]
        %1 = take %0 qkv start=0 count=1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]
        %2 = take %0 qkv start=1 count=1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]
        %3 = take %0 qkv start=2 count=1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]"#;

const TABLE: &str = r#"
        %4 = position_table rotary theta=10000.0 columns=[t dim=4 start=0.0 step=1.0] rows=[v=(t=1 h=1 w=2)] out=[r=(cs=2 d=4)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=4)]"#;

fn prepared(lines: &str) -> String {
    let end = r#" separate scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]
        %20 = output %19 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]"#;
    let ty = " : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)]";
    let text = format!("{PACKED}{}", lines.replace(" :t", ty).replace(" :end", end));
    after("fuse-qk-norm-rope", &numbered(&text))
}

/// Gives nodes dense numbers: `%19` stands for attention, `%20` for the output.
fn numbered(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    let (last, attention) = (format!("%{}", lines - 1), format!("%{}", lines - 2));
    text.replace("%20", &last).replace("%19", &attention)
}

#[test]
fn fuse_qk_norm_rope_takes_norms_and_positions() {
    let lines = format!(
        r#"{TABLE}
        %5 = weight layout=plain from=["q.w" [4]] : f32[o=4]
        %6 = weight layout=plain from=["q.b" [4]] : f32[o=4]
        %7 = weight layout=plain from=["k.w" [4]] : f32[o=4]
        %8 = weight layout=plain from=["k.b" [4]] : f32[o=4]
        %9 = head_norm %1 %5 %6 kind=layer eps=1e-6 affine=weight_bias :t
        %10 = head_norm %2 %7 %8 kind=layer eps=1e-6 affine=weight_bias :t
        %11 = rope %9 %4 :t
        %12 = rope %10 %4 :t
        %19 = attention %11 %12 %3 :end"#
    );
    assert_snapshot!(prepared(&lines), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %1 = position_table rotary theta=10000.0 columns=[t dim=4 start=0.0 step=1.0] rows=[v=(t=1 h=1 w=2)] out=[r=(cs=2 d=4)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=4)] @{}
  %2 = weight layout=plain from=["q.w" [4]] : f32[o=4] @{}
  %3 = weight layout=plain from=["q.b" [4]] : f32[o=4] @{}
  %4 = weight layout=plain from=["k.w" [4]] : f32[o=4] @{}
  %5 = weight layout=plain from=["k.b" [4]] : f32[o=4] @{}
  %6 = qk_norm_rope %0 %2 %3 %4 %5 %1 kind=layer eps=1e-6 affine=weight_bias rope : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %7 = attention %6 packed scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %8 = output %7 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
}
"#);
}

#[test]
fn fuse_qk_norm_rope_takes_norms_alone() {
    let lines = r#"
        %4 = head_norm %1 kind=layer eps=1e-6 affine=none :t
        %5 = head_norm %2 kind=layer eps=1e-6 affine=none :t
        %19 = attention %4 %5 %3 :end"#;
    assert_snapshot!(prepared(lines), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %1 = qk_norm_rope %0 kind=layer eps=1e-6 affine=none : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %2 = attention %1 packed scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %3 = output %2 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
}
"#);
}

#[test]
fn fuse_qk_norm_rope_takes_positions_alone() {
    let lines = format!(
        r#"{TABLE}
        %5 = rope %1 %4 :t
        %6 = rope %2 %4 :t
        %19 = attention %5 %6 %3 :end"#
    );
    assert_snapshot!(prepared(&lines), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %1 = position_table rotary theta=10000.0 columns=[t dim=4 start=0.0 step=1.0] rows=[v=(t=1 h=1 w=2)] out=[r=(cs=2 d=4)] : f32[v=(t=1 h=1 w=2), r=(cs=2 d=4)] @{}
  %2 = qk_norm_rope %0 %1 rope : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %3 = attention %2 packed scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %4 = output %3 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
}
"#);
}

#[test]
fn fuse_qk_norm_rope_packs_attention_with_nothing_in_between() {
    let lines = "\n        %19 = attention %1 %2 %3 :end";
    assert_snapshot!(prepared(lines), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %1 = attention %0 packed scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %2 = output %1 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
}
"#);
}

#[test]
fn fuse_qk_norm_rope_leaves_unlike_queries_and_keys_alone() {
    let lines = r#"
        %4 = head_norm %1 kind=layer eps=1e-6 affine=none :t
        %19 = attention %4 %2 %3 :end"#;
    assert_snapshot!(prepared(lines), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(qkv=3 n=2 d=4)] @{}
  %1 = take %0 qkv start=0 count=1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %2 = take %0 qkv start=1 count=1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %3 = take %0 qkv start=2 count=1 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %4 = head_norm %1 kind=layer eps=1e-6 affine=none : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %5 = attention %4 %2 %3 separate scale=0.5 : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
  %6 = output %5 "y" host=[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] : f32[b=1, seq=(t=1 h=1 w=2), c=(n=2 d=4)] @{}
}
"#);
}

#[test]
fn fuse_modulate_joins_norm_and_modulation() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8]
        %1 = input "mods" host=[b=1, m=(k=6 c=8)] : f32[b=1, m=(k=6 c=8)]
        %2 = norm %0 kind=layer eps=1e-5 affine=none : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8]   ; norm1.norm
        %3 = modulate %2 %1 chunks=[shift=3 scale=4, shift=0 scale=1] : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8]   ; norm1
        %4 = output %3 "y" host=[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8]"#;
    assert_snapshot!(after("fuse-modulate", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] @{}
  %1 = input "mods" host=[b=1, m=(k=6 c=8)] : f32[b=1, m=(k=6 c=8)] @{}
  %2 = norm %0 %1 kind=layer eps=1e-5 affine=none chunks=[shift=3 scale=4, shift=0 scale=1] : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] @{}   ; norm1.norm
  %3 = output %2 "y" host=[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] : f32[b=1, seq=(txt=2 | t=1 h=2 w=2), c=8] @{}
}
"#);
}

#[test]
fn fuse_modulate_leaves_a_norm_with_other_users_alone() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]
        %1 = input "mods" host=[b=1, m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)]
        %2 = norm %0 kind=layer eps=1e-5 affine=none : f32[b=1, seq=(txt=2), c=8]
        %3 = modulate %2 %1 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]
        %4 = residual %2 %3 : f32[b=1, seq=(txt=2), c=8]
        %5 = output %4 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]"#;
    assert_snapshot!(after("fuse-modulate", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %1 = input "mods" host=[b=1, m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)] @{}
  %2 = norm %0 kind=layer eps=1e-5 affine=none : f32[b=1, seq=(txt=2), c=8] @{}
  %3 = modulate %2 %1 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8] @{}
  %4 = residual %2 %3 : f32[b=1, seq=(txt=2), c=8] @{}
  %5 = output %4 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
}
"#);
}

#[test]
fn fuse_epilogue_takes_activations_residuals_and_gates() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]
        %1 = input "mods" host=[b=1, m=(k=6 c=8)] : f32[b=1, m=(k=6 c=8)]
        %2 = weight layout=linear from=["up" [16, 8]] : f32[o=16, i=8]
        %3 = linear %0 %2 out=[f=16] : f32[b=1, seq=(txt=2), f=16]   ; up
        %4 = activate %3 gelu_tanh : f32[b=1, seq=(txt=2), f=16]   ; act
        %5 = weight layout=linear from=["down" [8, 16]] : f32[o=8, i=16]
        %6 = linear %4 %5 out=[c=8] : f32[b=1, seq=(txt=2), c=8]   ; down
        %7 = residual %0 %6 %1 gates=[5] : f32[b=1, seq=(txt=2), c=8]   ; block
        %8 = weight layout=linear from=["more" [8, 8]] : f32[o=8, i=8]
        %9 = linear %7 %8 out=[c=8] : f32[b=1, seq=(txt=2), c=8]   ; more
        %10 = residual %7 %9 : f32[b=1, seq=(txt=2), c=8]   ; sum
        %11 = output %10 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]"#;
    assert_snapshot!(after("fuse-epilogue", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %1 = input "mods" host=[b=1, m=(k=6 c=8)] : f32[b=1, m=(k=6 c=8)] @{}
  %2 = weight layout=linear from=["up" [16, 8]] : f32[o=16, i=8] @{}
  %3 = weight layout=linear from=["down" [8, 16]] : f32[o=8, i=16] @{}
  %4 = weight layout=linear from=["more" [8, 8]] : f32[o=8, i=8] @{}
  %5 = linear %0 %2 out=[f=16] epilogue=gelu_tanh : f32[b=1, seq=(txt=2), f=16] @{}   ; up
  %6 = linear %5 %3 %0 %1 out=[c=8] epilogue=gated_residual[5] : f32[b=1, seq=(txt=2), c=8] @{}   ; down
  %7 = linear %6 %4 %6 out=[c=8] epilogue=residual : f32[b=1, seq=(txt=2), c=8] @{}   ; more
  %8 = output %7 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
}
"#);
}

/// The sum of a product with itself needs the product, and so does a second user.
#[test]
fn fuse_epilogue_leaves_a_product_with_other_users_alone() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]
        %1 = weight layout=linear from=["w" [8, 8]] : f32[o=8, i=8]
        %2 = linear %0 %1 out=[c=8] : f32[b=1, seq=(txt=2), c=8]
        %3 = residual %2 %2 : f32[b=1, seq=(txt=2), c=8]
        %4 = output %3 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]"#;
    assert_snapshot!(after("fuse-epilogue", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %1 = weight layout=linear from=["w" [8, 8]] : f32[o=8, i=8] @{}
  %2 = linear %0 %1 out=[c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %3 = residual %2 %2 : f32[b=1, seq=(txt=2), c=8] @{}
  %4 = output %3 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
}
"#);
}

#[test]
fn hoist_modulation_joins_products_and_shifts_chunks() {
    let before = r#"
        %0 = input "t" host=[b=1, e=4] : f32[b=1, e=4]
        %1 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]
        %2 = weight layout=linear from=["0.mod.weight" [24, 4]] : f32[o=24, i=4]   ; blocks.0.mod.weight
        %3 = linear %0 %2 out=[m=(k=3 c=8)] : f32[b=1, m=(k=3 c=8)]   ; blocks.0.mod
        %4 = norm %1 %3 kind=layer eps=1e-5 affine=none chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]   ; blocks.0.norm
        %5 = weight layout=linear from=["up" [8, 8]] : f32[o=8, i=8]
        %6 = linear %4 %5 %1 %3 out=[c=8] epilogue=gated_residual[2] : f32[b=1, seq=(txt=2), c=8]   ; blocks.0.up
        %7 = weight layout=linear from=["1.mod.weight" [24, 4]] : f32[o=24, i=4]   ; blocks.1.mod.weight
        %8 = linear %0 %7 out=[m=(k=3 c=8)] : f32[b=1, m=(k=3 c=8)]   ; blocks.1.mod
        %9 = modulate %6 %8 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]   ; blocks.1.norm
        %10 = residual %6 %9 %8 gates=[2] : f32[b=1, seq=(txt=2), c=8]   ; blocks.1
        %11 = output %10 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]"#;
    assert_snapshot!(after("hoist-modulation", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "t" host=[b=1, e=4] : f32[b=1, e=4] @{}
  %1 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %2 = weight layout=linear from=["up" [8, 8]] : f32[o=8, i=8] @{}
  %3 = weight layout=linear from=["0.mod.weight" [24, 4], "1.mod.weight" [24, 4]] : f32[o=48, i=4] @{}   ; blocks
  %4 = linear %0 %3 out=[m=(k=6 c=8)] : f32[b=1, m=(k=6 c=8)] @{}   ; blocks
  %5 = norm %1 %4 kind=layer eps=1e-5 affine=none chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8] @{}   ; blocks.0.norm
  %6 = linear %5 %2 %1 %4 out=[c=8] epilogue=gated_residual[2] : f32[b=1, seq=(txt=2), c=8] @{}   ; blocks.0.up
  %7 = modulate %6 %4 chunks=[shift=3 scale=4] : f32[b=1, seq=(txt=2), c=8] @{}   ; blocks.1.norm
  %8 = residual %6 %7 %4 gates=[5] : f32[b=1, seq=(txt=2), c=8] @{}   ; blocks.1
  %9 = output %8 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
}
"#);
}

/// A product that is read as rows too must stay a tensor of its own.
#[test]
fn hoist_modulation_leaves_products_with_other_uses_alone() {
    let before = r#"
        %0 = input "t" host=[b=1, e=4] : f32[b=1, e=4]
        %1 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]
        %2 = weight layout=linear from=["a" [16, 4]] : f32[o=16, i=4]
        %3 = linear %0 %2 out=[m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)]
        %4 = weight layout=linear from=["b" [16, 4]] : f32[o=16, i=4]
        %5 = linear %0 %4 out=[m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)]
        %6 = modulate %1 %3 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]
        %7 = modulate %6 %5 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8]
        %8 = output %7 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8]
        %9 = output %5 "z" host=[b=1, m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)]"#;
    assert_snapshot!(after("hoist-modulation", before), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "t" host=[b=1, e=4] : f32[b=1, e=4] @{}
  %1 = input "x" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %2 = weight layout=linear from=["a" [16, 4]] : f32[o=16, i=4] @{}
  %3 = linear %0 %2 out=[m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)] @{}
  %4 = weight layout=linear from=["b" [16, 4]] : f32[o=16, i=4] @{}
  %5 = linear %0 %4 out=[m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)] @{}
  %6 = modulate %1 %3 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8] @{}
  %7 = modulate %6 %5 chunks=[shift=0 scale=1] : f32[b=1, seq=(txt=2), c=8] @{}
  %8 = output %7 "y" host=[b=1, seq=(txt=2), c=8] : f32[b=1, seq=(txt=2), c=8] @{}
  %9 = output %5 "z" host=[b=1, m=(k=2 c=8)] : f32[b=1, m=(k=2 c=8)] @{}
}
"#);
}
