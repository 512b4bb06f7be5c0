//! One graph with every op and every attribute, as text: it comes back from the parser unchanged.

use std::collections::BTreeSet;
use terrace_compiler::ops::Op;
use terrace_compiler::text::{parse, print};

const EVERY_OP: &str = r#"mesh <cfg=2 ring=2 ulysses=1>
graph every_op stage=comm order=fixed {
  slices rows {h=2 w=3: ring[0 3 6], txt=4: ring[0 2 4], b=2: cfg[0 1 2]}
  slices heads {h=2 w=3: ring[0 3 6], txt=4: ring[0 2 4], b=2: cfg[0 1 2], n=2: ulysses[0 2]}
  %0 = input "tokens" host=[b=2, y=(h=2 p=2), x=(w=3), f=(t=1), c=2] : f32[b=2, v=(t=1 h=2 w=3), e=(c=2 p=2)] @{b: cfg[0 1 2], h.w: ring[0 3 6]}   ; tokens
  %1 = input "ids" host=[b=2, txt=4] : u32[b=2, txt=4] @{}   ; \"quoted\" \\ path\u{a}
  %2 = weight layout=plain from=["shared" or "embed" or "wte" [10, 8]] : f32[o=10, i=8] @{} init   ; shared
  %3 = embedding %1 %2 out=[c=8] : f32[b=2, txt=4, c=8] @{}
  %4 = weight layout=linear from=["proj" [8, 4]] : f32[o=8, i=4] @{} init
  %5 = weight layout=plain from=["a" [3], "b" [5]] : f32[o=8] @{} init
  %6 = linear %0 %4 %5 out=[c=8] bias epilogue=silu : f32[b=2, v=(t=1 h=2 w=3), c=8] @{}
  %7 = position_table sin_cos columns=[t dim=2 start=0.0 step=1.0, h dim=2 start=-0.5 step=0.1, w dim=4 start=1e-300 step=0.30000000000000004] rows=[seq=(txt=4 | t=1 h=2 w=3)] out=[c=8] : f32[seq=(txt=4 | t=1 h=2 w=3), c=8] @{} init
  %8 = join %3 %6 %7 positions : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{b: cfg[0 1 2], h.w: ring[0 3 6], txt: ring[0 2 4]}
  %9 = input "timestep" host=[b=2] : f32[b=2] @{}
  %10 = timestep_embedding %9 out=[c=8] order=cos_sin shift=0.0 : f32[b=2, c=8] @{}
  %11 = activate %10 gelu_tanh : f32[b=2, c=8] @{}
  %12 = weight layout=linear from=["mods" [48, 8]] : f32[o=48, i=8] @{} init
  %13 = linear %11 %12 out=[m=(k=6 c=8)] epilogue=gelu : f32[b=2, m=(k=6 c=8)] @{}
  %14 = norm %8 %5 %5 %13 kind=layer eps=1e-5 affine=weight_bias chunks=[shift=0 scale=1, shift=3 scale=4] : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{}
  %15 = norm %14 %5 kind=rms eps=1e-6 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{}
  %16 = modulate %15 %13 chunks=[shift=0 scale=1, shift=3 scale=4] : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{}
  %17 = residual %8 %16 %13 gates=[2, 5] : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{}
  %18 = residual %8 %17 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{}
  %19 = weight layout=linear from=["q" [8, 8]] : f32[o=8, i=8] @{} init
  %20 = linear %18 %19 %8 out=[c=(n=2 d=4)] epilogue=residual : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 d=4)] @{}
  %21 = weight layout=plain from=["norm_q" [4]] : f32[o=4] @{} init
  %22 = head_norm %20 %21 kind=layer eps=1e-6 affine=weight : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 d=4)] @{}
  %23 = position_table rotary theta=10000.0 columns=[t dim=2 start=0.0 step=1.0, w dim=2 start=0.0 step=1.0] rows=[v=(t=1 h=2 w=3)] out=[r=(cs=2 d=4)] : f32[v=(t=1 h=2 w=3), r=(cs=2 d=4)] @{h.w: ring[0 3 6]} init
  %24 = rope %22 %23 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 d=4)] @{}
  %25 = attention %24 %24 %22 separate scale=0.5 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 d=4)] @{}
  %26 = weight layout=linear from=["qkv" [24, 8]] : f32[o=24, i=8] @{} init
  %27 = linear %25 %26 out=[c=(qkv=3 n=2 d=4)] : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{h.w: ring[0 3 6], txt: ring[0 2 4]}
  %28 = qk_norm_rope %27 %21 %21 %23 kind=layer eps=1e-6 affine=weight rope : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{h.w: ring[0 3 6], txt: ring[0 2 4]}
  %29 = qk_norm_rope %28 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{h.w: ring[0 3 6], txt: ring[0 2 4]}
  %30 = attention_step %29 %29 first scale=0.125 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 state=6)] @{h.w: ring[0 3 6], txt: ring[0 2 4]}
  %31 = ring_shift %29 axis=ring : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(kv=2 n=2 d=4)] @{h.w: ring[0 3 6]>>1, txt: ring[0 2 4]>>1}
  %32 = attention_step %29 %31 %30 next scale=0.125 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 state=6)] @{h.w: ring[0 3 6], txt: ring[0 2 4]}
  %33 = attention_finish %32 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 d=4)] @{h.w: ring[0 3 6], txt: ring[0 2 4]}
  %34 = weight layout=plain from=["relative" [32, 2]] : f32[o=32, i=2] @{} init
  %35 = relative_bias %34 rows=4 buckets=32 max_distance=128 : f32[n=2, rows=4, keys=4] @{} init
  %36 = attention %29 %35 packed scale=inf bias : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(n=2 d=4)] @{}
  %37 = linear %36 %19 %18 %13 out=[c=8] epilogue=gated_residual[2, 5] : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=8] @{}
  %38 = segment %37 1 : f32[b=2, seq=(t=1 h=2 w=3), c=8] @{}
  %39 = linear %37 %12 out=[m=(g=2 f=24)] : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), m=(g=2 f=24)] @{}
  %40 = gated_gelu %39 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), f=24] @{}
  %41 = take %38 h start=1 count=1 : f32[b=2, seq=(t=1 w=3), c=8] @{}
  %42 = concat %41 %41 c : f32[b=2, seq=(t=1 w=3), c=16] @{}
  %43 = repeat %42 t count=3 : f32[b=2, seq=(t=3 w=3), c=16] @{}
  %44 = input "latents" host=[b=1, f=3, y=2, x=2, c=4] : f32[b=1, f=3, y=2, x=2, c=4] @{}
  %45 = weight layout=conv3d from=["conv" [4, 4, 3, 3, 3]] : f32[o=4, i=4, kt=3, kh=3, kw=3] @{} init
  %46 = conv_cache %44 keep=2 : f32[b=1, f=2, y=2, x=2, c=4] @{}
  %47 = conv_cache %44 %46 keep=2 cache : f32[b=1, f=2, y=2, x=2, c=4] @{}
  %48 = conv3d %44 %45 %21 %47 %44 out=[c=4] kernel=[3, 3, 3] bias cache residual : f32[b=1, f=3, y=2, x=2, c=4] @{}
  %49 = upsample %48 double : f32[b=1, f=5, y=4, x=4, c=4] @{}
  %50 = upsample %49 keep : f32[b=1, f=5, y=8, x=8, c=4] @{}
  %51 = input "spatial" host=[b=1, f=3, y=2, x=2, m=8] : f32[b=1, f=3, y=2, x=2, m=8] @{}
  %52 = group_norm %50 %21 %21 %51 groups=2 eps=1e-6 affine=weight_bias spatial activation=silu : f32[b=1, f=5, y=8, x=8, c=4] @{}
  %53 = group_norm %52 groups=2 eps=1e-6 affine=none : f32[b=1, f=5, y=8, x=8, c=4] @{}
  %54 = input "coefficients" host=[k=7] : f32[k=7] @{}
  %55 = input "pred" host=[b=2, f=3, y=2, x=2, c=4] : f32[b=2, f=3, y=2, x=2, c=4] @{}
  %56 = denoise %55 %44 %54 guidance=classifier_free : f32[b=1, f=3, y=2, x=2, c=4] @{}
  %57 = denoise %56 %44 %54 guidance=none : f32[b=1, f=3, y=2, x=2, c=4] @{}
  %58 = input "key" host=[k=4] : u32[k=4] @{}
  %59 = noise %58 host=[b=1, c=4, f=3, x=2, y=2] : f32[b=1, f=3, y=2, x=2, c=4] @{}
  %60 = advance %44 %57 %54 %56 %59 previous noise : f32[b=1, f=3, y=2, x=2, c=4] @{}
  %61 = reshard %27 : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{n: ulysses[0 1 2]}
  %62 = all_to_all %61 axis=ulysses gather=seq split=c : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{}
  %63 = all_gather %62 axis=cfg gather=b : f32[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{}
  %64 = cast %63 to=bf16 : bf16[b=2, seq=(txt=4 | t=1 h=2 w=3), c=(qkv=3 n=2 d=4)] @{}
  %65 = output %60 "latents" host=[b=1, f=3, c=4, y=2, x=2] : f32[b=1, f=3, y=2, x=2, c=4] @{}   ; out
}
"#;

#[test]
fn comes_back_unchanged() {
    let graph = parse(EVERY_OP).unwrap_or_else(|e| panic!("{e}"));
    let printed = print(&graph);
    for (printed, expected) in printed.lines().zip(EVERY_OP.lines()) {
        assert_eq!(printed, expected);
    }
    assert_eq!(printed, EVERY_OP);
    assert!(parse(&printed).unwrap() == graph);
}

#[test]
fn has_every_op() {
    let graph = parse(EVERY_OP).unwrap();
    let seen: BTreeSet<usize> = graph.ids().map(|id| place(&graph.node(id).op)).collect();
    assert!(seen.into_iter().eq(0..=35));
}

/// Matched without a wildcard, so that a new op cannot be forgotten above.
fn place(op: &Op) -> usize {
    match op {
        Op::Input(_) => 0,
        Op::Output(_) => 1,
        Op::Weight(_) => 2,
        Op::Linear(_) => 3,
        Op::Norm(_) => 4,
        Op::Modulate(_) => 5,
        Op::Residual(_) => 6,
        Op::HeadNorm(_) => 7,
        Op::Rope(_) => 8,
        Op::QkNormRope(_) => 9,
        Op::Attention(_) => 10,
        Op::AttentionStep(_) => 11,
        Op::AttentionFinish(_) => 12,
        Op::Activate(_) => 13,
        Op::GatedGelu => 14,
        Op::Embedding(_) => 15,
        Op::RelativeBias(_) => 16,
        Op::TimestepEmbedding(_) => 17,
        Op::PositionTable(_) => 18,
        Op::Join(_) => 19,
        Op::Segment(_) => 20,
        Op::Take(_) => 21,
        Op::Concat(_) => 22,
        Op::Repeat(_) => 23,
        Op::Conv3d(_) => 24,
        Op::ConvCache(_) => 25,
        Op::GroupNorm(_) => 26,
        Op::Upsample(_) => 27,
        Op::Denoise(_) => 28,
        Op::Advance(_) => 29,
        Op::Noise(_) => 30,
        Op::Reshard(_) => 31,
        Op::AllToAll(_) => 32,
        Op::AllGather(_) => 33,
        Op::RingShift(_) => 34,
        Op::Cast(_) => 35,
    }
}
