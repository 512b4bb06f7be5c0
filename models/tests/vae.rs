//! The decoder's graph: frame batches, caches, memory; and what its config refuses.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use terrace_compiler::ir::{Graph, Type};
use terrace_compiler::ops::Op;
use terrace_compiler::text::print;
use terrace_compiler::{CompileOptions, Provenance, SliceGranularity, compile};
use terrace_models::ModelError;
use terrace_models::config::ConfigFile;
use terrace_models::vae::{DecodeShape, VaeConfig, decoder};
use terrace_plan::{Action, DType, Fingerprint, Mesh, RankPlan};

fn config(keys: &str) -> Result<VaeConfig, ModelError> {
    let text = format!(r#"{{"_class_name": "AutoencoderKLCogVideoX"{keys}}}"#);
    VaeConfig::from_config(ConfigFile::parse("config.json", &text)?)
}

fn small() -> VaeConfig {
    config(
        r#", "block_out_channels": [4, 8], "layers_per_block": 0, "norm_num_groups": 2,
        "latent_channels": 3, "temporal_compression_ratio": 2,
        "up_block_types": ["CogVideoXUpBlock3D", "CogVideoXUpBlock3D"]"#,
    )
    .unwrap()
}

fn graph(config: &VaeConfig, frames: usize, height: usize, width: usize) -> Graph {
    let shape = DecodeShape {
        batch: 1,
        frames,
        height,
        width,
    };
    decoder(config, &shape).unwrap()
}

fn rank(graph: Graph) -> RankPlan {
    let options = CompileOptions {
        mesh: Mesh::ONE,
        granularity: SliceGranularity::Cell,
        dtype: DType::F32,
        activations: DType::F32,
    };
    let provenance = Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: String::new(),
            shape: String::new(),
            dtype: DType::F32,
            mesh: Mesh::ONE.to_string(),
            kernels: String::new(),
        },
        request: "{}".into(),
    };
    let plan = compile(graph, &options, &provenance, &mut |_, _| {}).unwrap();
    plan.ranks.into_iter().next().unwrap()
}

fn output(graph: &Graph) -> String {
    let mut outputs = graph.order().into_iter().filter_map(|id| {
        let node = graph.node(id);
        match &node.op {
            Op::Output(output) => Some(Type::f32(output.host.clone()).to_string()),
            _ => None,
        }
    });
    outputs.next().unwrap()
}

fn count(graph: &Graph, op: &str) -> usize {
    let nodes = graph.order().into_iter();
    nodes.filter(|&id| graph.node(id).op.name() == op).count()
}

#[test]
fn the_real_decoder_as_op_counts() {
    let graph = graph(&config("").unwrap(), 13, 60, 90);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut parameters = 0;
    for id in graph.order() {
        let node = graph.node(id);
        *counts.entry(node.op.name()).or_default() += 1;
        if let Op::Weight(_) = node.op {
            parameters += node.ty.elements();
        }
    }
    insta::assert_debug_snapshot!((counts, parameters), @r#"
    (
        {
            "concat": 1,
            "conv3d": 246,
            "conv_cache": 190,
            "group_norm": 222,
            "input": 1,
            "linear": 234,
            "output": 1,
            "take": 6,
            "upsample": 18,
            "weight": 234,
        },
        123368451,
    )
    "#);
}

#[test]
fn the_first_batch_takes_the_remainder() {
    let config = config("").unwrap();
    let sizes = |frames| output(&graph(&config, frames, 60, 90));
    insta::assert_snapshot!(sizes(13), @"f32[b=1, f=49, c=3, y=480, x=720]");
    insta::assert_snapshot!(sizes(1), @"f32[b=1, f=1, c=3, y=480, x=720]");
    insta::assert_snapshot!(sizes(2), @"f32[b=1, f=8, c=3, y=480, x=720]");
}

#[test]
fn batches_share_weights_and_pass_caches_on() {
    let config = config("").unwrap();
    let one = graph(&config, 3, 4, 4);
    let two = graph(&config, 5, 4, 4);
    let three = graph(&config, 7, 4, 4);
    let convolutions = count(&one, "conv3d");
    let images = 3;
    assert_eq!(count(&one, "conv_cache"), 0);
    assert_eq!(count(&two, "conv_cache"), convolutions - images);
    assert_eq!(count(&three, "conv_cache"), 2 * (convolutions - images));
    assert_eq!(count(&three, "conv3d"), 3 * convolutions);
    assert_eq!(count(&three, "weight"), count(&one, "weight"));
}

#[test]
fn memory_does_not_grow_with_the_number_of_batches() {
    let arena = |frames| rank(graph(&small(), frames, 8, 8)).arena_bytes;
    let frame_bytes = 3 * 16 * 16 * 4;
    // Decoded frames stay until the end, twice while they are joined; two per latent frame.
    let (short, long) = (arena(9), arena(19));
    assert!(
        long - short <= 10 * 2 * 2 * frame_bytes,
        "{short} and {long} bytes"
    );
}

#[test]
fn frames_are_kept_before_the_convolution_that_sees_them() {
    let kernels: Vec<String> = rank(graph(&small(), 4, 8, 8))
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Launch(call) => Some(call.name().to_owned()),
            _ => None,
        })
        .filter(|name| name.starts_with("conv"))
        .collect();
    let first: Vec<&str> = kernels.iter().take(4).map(String::as_str).collect();
    assert_eq!(first, ["conv_cache", "conv3d", "conv_cache", "conv3d"]);
}

#[test]
fn fields_that_the_decoder_never_reads_change_nothing() {
    let keys = r#", "sample_size": 256, "mid_block_add_attention": true, "force_upcast": true,
        "sample_height": 480, "sample_width": 720, "in_channels": 3, "use_quant_conv": false"#;
    assert_eq!(config(keys).unwrap(), config("").unwrap());
}

#[test]
fn refusals_name_what_is_wrong() {
    let refusal = |keys: &str| config(keys).unwrap_err().to_string();
    insta::assert_snapshot!(refusal(r#", "act_fn": "relu""#), @r#"config.json: key "act_fn": "relu" is not supported; supported: silu"#);
    insta::assert_snapshot!(refusal(r#", "latents_mean": [0.5]"#), @r#"config.json: key "latents_mean": [0.5] is not supported; supported: null"#);
    insta::assert_snapshot!(refusal(r#", "shift_factor": 0.1"#), @r#"config.json: key "shift_factor": 0.1 is not supported; supported: null"#);
    insta::assert_snapshot!(refusal(r#", "norm_num_groups": 48"#), @r#"config.json: key "block_out_channels": [128,256,256,512] is not supported; supported: multiples of the 48 groups of the norms"#);
    insta::assert_snapshot!(refusal(r#", "scaling_factor": 0"#), @r#"config.json: key "scaling_factor": 0.0 is not supported; supported: finite numbers other than 0"#);
    insta::assert_snapshot!(refusal(r#", "temporal_compression_ratio": 0"#), @r#"config.json: key "temporal_compression_ratio": 0.0 is not supported; supported: at least 1"#);
    insta::assert_snapshot!(refusal(r#", "use_post_quant_conv": true"#), @r#"config.json: key "use_post_quant_conv": true is not supported; supported: false, or true where out_channels is 16"#);
    insta::assert_snapshot!(refusal(r#", "up_block_types": ["UpDecoderBlock2D"]"#), @r#"config.json: key "up_block_types": ["UpDecoderBlock2D"] is not supported; supported: 4 times CogVideoXUpBlock3D"#);
    insta::assert_snapshot!(refusal(r#", "block_out_channels": []"#), @r#"config.json: key "block_out_channels": [] is not supported; supported: 1 to 16 blocks"#);
    insta::assert_snapshot!(refusal(r#", "use_tiling": true"#), @r#"config.json: unknown keys "use_tiling"; AutoencoderKLCogVideoX of diffusers 0.42 has no such fields"#);
    let empty = DecodeShape {
        batch: 1,
        frames: 0,
        height: 1,
        width: 1,
    };
    insta::assert_snapshot!(decoder(&small(), &empty).unwrap_err(), @"number of latent frames 0 is not served: expected at least 1");
}

#[test]
fn a_convolution_before_the_decoder_sees_the_latents() {
    let keys = r#", "use_post_quant_conv": true, "out_channels": 16"#;
    let graph = graph(&config(keys).unwrap(), 3, 4, 4);
    let text = print(&graph);
    assert!(text.contains("post_quant_conv.weight"), "{text}");
}
