//! choose-precision, cast-activations.

use crate::transformer::Step;
use crate::{graph, options, run_with};
use insta::assert_snapshot;
use terrace_compiler::ir::Graph;
use terrace_compiler::ops::Op;
use terrace_compiler::passes::pipeline;
use terrace_compiler::text::print;
use terrace_compiler::{CompileError, CompileOptions, SliceGranularity};
use terrace_plan::{DType, Mesh};

/// What choose-precision leaves.
fn chosen(before: &str, dtype: DType) -> Result<String, CompileError> {
    let options = CompileOptions {
        dtype,
        ..options(Mesh::ONE, SliceGranularity::Cell)
    };
    run_with(
        "choose-precision",
        graph("choose-precision", before),
        &options,
    )
}

#[test]
fn choose_precision_takes_8_bits_over_the_joint_sequence_only() {
    let before = r#"
        %0 = input "t" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %1 = input "x" host=[b=1, seq=(txt=4 | h=2 w=3), c=8] : f32[b=1, seq=(txt=4 | h=2 w=3), c=8]
        %2 = weight layout=linear from=["text" [8, 8]] : f32[o=8, i=8]
        %3 = weight layout=linear from=["ff" [8, 8]] : f32[o=8, i=8]
        %4 = weight layout=linear from=["both" [8, 8]] : f32[o=8, i=8]
        %5 = linear %0 %2 out=[c=8] : f32[b=1, seq=(txt=4), c=8]
        %6 = linear %1 %3 out=[c=8] : f32[b=1, seq=(txt=4 | h=2 w=3), c=8]
        %7 = linear %5 %4 out=[c=8] : f32[b=1, seq=(txt=4), c=8]
        %8 = linear %6 %4 out=[c=8] : f32[b=1, seq=(txt=4 | h=2 w=3), c=8]
        %9 = output %7 "u" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %10 = output %8 "y" host=[b=1, seq=(txt=4 | h=2 w=3), c=8] : f32[b=1, seq=(txt=4 | h=2 w=3), c=8]"#;
    let weights = |dtype| {
        let after = chosen(before, dtype).unwrap();
        let weights = after.lines().filter(|line| line.contains(" = weight "));
        weights.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(weights(DType::I8), @r#"
  %2 = weight layout=linear from=["ff" [8, 8]] : i8[o=8, i=8] @{}
  %3 = weight layout=linear from=["both" [8, 8]] : bf16[o=8, i=8] @{}
  %7 = weight layout=linear from=["text" [8, 8]] : bf16[o=8, i=8] @{}
"#);
    assert_snapshot!(weights(DType::F8E4M3), @r#"
  %2 = weight layout=linear from=["ff" [8, 8]] : f8e4m3[o=8, i=8] @{}
  %3 = weight layout=linear from=["both" [8, 8]] : bf16[o=8, i=8] @{}
  %7 = weight layout=linear from=["text" [8, 8]] : bf16[o=8, i=8] @{}
"#);
}

#[test]
fn choose_precision_leaves_attention_with_a_bias() {
    let before = r#"
        %0 = input "x" host=[b=1, s=4, n=2, d=3] : f32[b=1, s=4, c=(n=2 d=3)]
        %1 = input "bias" host=[n=2, q=4, k=4] : f32[n=2, q=4, k=4]
        %2 = attention %0 %0 %0 separate scale=0.5 : f32[b=1, s=4, c=(n=2 d=3)]
        %3 = attention %2 %2 %2 %1 separate scale=1.0 bias : f32[b=1, s=4, c=(n=2 d=3)]
        %4 = output %3 "y" host=[b=1, s=4, n=2, d=3] : f32[b=1, s=4, c=(n=2 d=3)]"#;
    for (dtype, products) in [
        (DType::F32, None),
        (DType::Bf16, Some("bf16")),
        (DType::I8, Some("bf16")),
        (DType::F8E4M3, Some("bf16")),
    ] {
        let after = chosen(before, dtype).unwrap();
        let found: Vec<_> = after
            .lines()
            .filter(|line| line.contains(" = attention "))
            .map(|line| line.split_once("products=").map(|(_, rest)| &rest[..4]))
            .collect();
        assert_eq!(found, [products, None], "{after}");
    }
}

#[test]
fn choose_precision_takes_products_and_leaves_vectors() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %1 = weight layout=linear from=["w" [6, 8]] : f32[o=6, i=8]
        %2 = weight layout=plain from=["b" [6]] : f32[o=6]
        %3 = linear %0 %1 %2 out=[c=6] bias : f32[b=1, seq=(txt=4), c=6]
        %4 = output %3 "y" host=[b=1, seq=(txt=4), c=6] : f32[b=1, seq=(txt=4), c=6]"#;
    assert_snapshot!(chosen(before, DType::Bf16).unwrap(), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
  %1 = weight layout=plain from=["b" [6]] : f32[o=6] @{}
  %2 = weight layout=linear from=["w" [6, 8]] : bf16[o=6, i=8] @{}
  %3 = linear %0 %2 %1 out=[c=6] bias : f32[b=1, seq=(txt=4), c=6] @{}
  %4 = output %3 "y" host=[b=1, seq=(txt=4), c=6] : f32[b=1, seq=(txt=4), c=6] @{}
}
"#);
    assert_snapshot!(chosen(before, DType::U32).unwrap_err(), @"no matrix product has element type u32; use f32, f16, bf16, i8 or f8e4m3");
}

#[test]
fn cast_activations_casts_what_is_made_in_another_type_once() {
    let before = r#"
        %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]
        %1 = weight layout=linear from=["w" [8, 8]] : bf16[o=8, i=8]
        %2 = linear %0 %1 out=[c=8] epilogue=silu : f32[b=1, seq=(txt=4), c=8]
        %3 = residual %0 %2 : f32[b=1, seq=(txt=4), c=8]
        %4 = output %3 "y" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8]"#;
    let run = |activations| {
        let options = CompileOptions {
            activations,
            ..options(Mesh::ONE, SliceGranularity::Cell)
        };
        run_with(
            "cast-activations",
            graph("cast-activations", before),
            &options,
        )
    };
    assert_snapshot!(run(DType::Bf16).unwrap(), @r#"
mesh <cfg=1 ring=1 ulysses=1>
graph g stage=fused {
  %0 = input "x" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
  %1 = weight layout=linear from=["w" [8, 8]] : bf16[o=8, i=8] @{}
  %2 = cast %0 to=bf16 : bf16[b=1, seq=(txt=4), c=8] @{}
  %3 = linear %2 %1 out=[c=8] epilogue=silu : bf16[b=1, seq=(txt=4), c=8] @{}
  %4 = residual %2 %3 : bf16[b=1, seq=(txt=4), c=8] @{}
  %5 = cast %4 to=f32 : f32[b=1, seq=(txt=4), c=8] @{}
  %6 = output %5 "y" host=[b=1, seq=(txt=4), c=8] : f32[b=1, seq=(txt=4), c=8] @{}
}
"#);
    let untouched = print(&graph("cast-activations", before));
    assert_eq!(run(DType::F32).unwrap(), untouched);
    assert_snapshot!(run(DType::U32).unwrap_err(), @"activations are no numbers of type u32; use f32, f16 or bf16");
}

#[test]
fn cast_activations_leaves_positions_and_the_sampler_in_f32() {
    let graph_of = |activations| {
        let mut graph = Step::SMALL.graph();
        let options = CompileOptions {
            activations,
            ..options(Mesh::ONE, SliceGranularity::Cell)
        };
        pipeline::run(&mut graph, &options, &mut |_, _| {}).unwrap();
        graph
    };
    let graph = graph_of(DType::F16);
    for id in graph.ids() {
        let node = graph.node(id);
        let expected = match &node.op {
            Op::Input(_) | Op::Weight(_) | Op::Cast(_) => continue,
            Op::TimestepEmbedding(_) | Op::PositionTable(_) | Op::Denoise(_) | Op::Advance(_) => {
                DType::F32
            }
            Op::Noise(_) | Op::Output(_) => DType::F32,
            // Latents are taken apart before they are cast.
            Op::Segment(_) | Op::Take(_) | Op::Repeat(_) | Op::Concat(_) => continue,
            _ => DType::F16,
        };
        assert_eq!(node.ty.dtype, expected, "{}", node.op.name());
    }
    let casts = |graph: &Graph| {
        graph
            .ids()
            .filter(|&id| matches!(graph.node(id).op, Op::Cast(_)))
            .count()
    };
    // Video, text and time in, the prediction out.
    assert_eq!(casts(&graph), 4);
    assert_eq!(casts(&graph_of(DType::F32)), 0);
}
