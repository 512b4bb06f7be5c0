//! The text encoder's graph, and what its config refuses.

use terrace_compiler::text::print;
use terrace_models::ModelError;
use terrace_models::config::ConfigFile;
use terrace_models::text_encoder::{TextEncoderConfig, TextShape, text_encoder};

fn config(text: &str) -> Result<TextEncoderConfig, ModelError> {
    TextEncoderConfig::from_config(ConfigFile::parse("config.json", text)?)
}

/// The config that ships with the real models.
const XXL: &str = r#"{"_name_or_path": "google/t5-v1_1-xxl", "architectures": ["T5EncoderModel"],
    "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64, "d_model": 4096,
    "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1,
    "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
    "is_encoder_decoder": true, "is_gated_act": true, "layer_norm_epsilon": 1e-06,
    "model_type": "t5", "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24,
    "output_past": true, "pad_token_id": 0, "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16", "transformers_version": "4.43.2", "use_cache": true,
    "vocab_size": 32128}"#;

#[test]
fn one_block_in_full() {
    let config = config(
        r#"{"model_type": "t5", "feed_forward_proj": "gated-gelu", "num_layers": 1, "d_model": 6,
        "d_kv": 4, "d_ff": 10, "num_heads": 2, "vocab_size": 9,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}"#,
    );
    let shape = TextShape {
        batch: 2,
        length: 5,
    };
    let graph = text_encoder(&config.unwrap(), &shape).unwrap();
    insta::assert_snapshot!(print(&graph), @r#"
    mesh <cfg=1 ring=1 ulysses=1>
    graph "text-encoder" stage=model {
      %0 = input "input_ids" host=[b=2, txt=5] : u32[b=2, txt=5] @{}   ; input_ids
      %1 = weight layout=plain from=["shared.weight" or "encoder.embed_tokens.weight" [9, 6]] : f32[v=9, e=6] @{}   ; shared.weight
      %2 = embedding %0 %1 out=[e=6] : f32[b=2, txt=5, e=6] @{}   ; shared
      %3 = weight layout=plain from=["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight" [8, 2]] : f32[buckets=8, n=2] @{}   ; encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight
      %4 = relative_bias %3 rows=5 buckets=8 max_distance=16 : f32[n=2, rows=5, keys=5] @{}   ; encoder.block.0.layer.0.SelfAttention.relative_attention_bias
      %5 = weight layout=plain from=["encoder.block.0.layer.0.layer_norm.weight" [6]] : f32[o=6] @{}   ; encoder.block.0.layer.0.layer_norm.weight
      %6 = norm %2 %5 kind=rms eps=1e-6 : f32[b=2, txt=5, e=6] @{}   ; encoder.block.0.layer.0.layer_norm
      %7 = weight layout=linear from=["encoder.block.0.layer.0.SelfAttention.q.weight" [8, 6]] : f32[o=8, i=6] @{}   ; encoder.block.0.layer.0.SelfAttention.q.weight
      %8 = linear %6 %7 out=[c=(n=2 d=4)] : f32[b=2, txt=5, c=(n=2 d=4)] @{}   ; encoder.block.0.layer.0.SelfAttention.q
      %9 = weight layout=linear from=["encoder.block.0.layer.0.SelfAttention.k.weight" [8, 6]] : f32[o=8, i=6] @{}   ; encoder.block.0.layer.0.SelfAttention.k.weight
      %10 = linear %6 %9 out=[c=(n=2 d=4)] : f32[b=2, txt=5, c=(n=2 d=4)] @{}   ; encoder.block.0.layer.0.SelfAttention.k
      %11 = weight layout=linear from=["encoder.block.0.layer.0.SelfAttention.v.weight" [8, 6]] : f32[o=8, i=6] @{}   ; encoder.block.0.layer.0.SelfAttention.v.weight
      %12 = linear %6 %11 out=[c=(n=2 d=4)] : f32[b=2, txt=5, c=(n=2 d=4)] @{}   ; encoder.block.0.layer.0.SelfAttention.v
      %13 = attention %8 %10 %12 %4 separate scale=1.0 bias : f32[b=2, txt=5, c=(n=2 d=4)] @{}   ; encoder.block.0.layer.0.SelfAttention
      %14 = weight layout=linear from=["encoder.block.0.layer.0.SelfAttention.o.weight" [6, 8]] : f32[o=6, i=8] @{}   ; encoder.block.0.layer.0.SelfAttention.o.weight
      %15 = linear %13 %14 out=[e=6] : f32[b=2, txt=5, e=6] @{}   ; encoder.block.0.layer.0.SelfAttention.o
      %16 = residual %2 %15 : f32[b=2, txt=5, e=6] @{}   ; encoder.block.0.layer.0
      %17 = weight layout=plain from=["encoder.block.0.layer.1.layer_norm.weight" [6]] : f32[o=6] @{}   ; encoder.block.0.layer.1.layer_norm.weight
      %18 = norm %16 %17 kind=rms eps=1e-6 : f32[b=2, txt=5, e=6] @{}   ; encoder.block.0.layer.1.layer_norm
      %19 = weight layout=linear from=["encoder.block.0.layer.1.DenseReluDense.wi_0.weight" [10, 6], "encoder.block.0.layer.1.DenseReluDense.wi_1.weight" [10, 6]] : f32[o=20, i=6] @{}   ; encoder.block.0.layer.1.DenseReluDense.wi_0.weight
      %20 = linear %18 %19 out=[m=(g=2 f=10)] : f32[b=2, txt=5, m=(g=2 f=10)] @{}   ; encoder.block.0.layer.1.DenseReluDense.wi
      %21 = gated_gelu %20 : f32[b=2, txt=5, f=10] @{}   ; encoder.block.0.layer.1.DenseReluDense
      %22 = weight layout=linear from=["encoder.block.0.layer.1.DenseReluDense.wo.weight" [6, 10]] : f32[o=6, i=10] @{}   ; encoder.block.0.layer.1.DenseReluDense.wo.weight
      %23 = linear %21 %22 out=[e=6] : f32[b=2, txt=5, e=6] @{}   ; encoder.block.0.layer.1.DenseReluDense.wo
      %24 = residual %16 %23 : f32[b=2, txt=5, e=6] @{}   ; encoder.block.0.layer.1
      %25 = weight layout=plain from=["encoder.final_layer_norm.weight" [6]] : f32[o=6] @{}   ; encoder.final_layer_norm.weight
      %26 = norm %24 %25 kind=rms eps=1e-6 : f32[b=2, txt=5, e=6] @{}   ; encoder.final_layer_norm
      %27 = output %26 "prompt_embeds" host=[b=2, txt=5, e=6] : f32[b=2, txt=5, e=6] @{}   ; prompt_embeds
    }
    "#);
}

#[test]
fn the_real_encoder_has_its_parameters() {
    let config = config(XXL).unwrap();
    let shape = TextShape {
        batch: 1,
        length: 226,
    };
    let graph = text_encoder(&config, &shape).unwrap();
    let parameters: usize = graph
        .order()
        .into_iter()
        .map(|id| graph.node(id))
        .filter(|node| node.op.name() == "weight")
        .map(|node| node.ty.elements())
        .sum();
    // As `T5EncoderModel` counts them.
    assert_eq!(parameters, 4_762_310_656);
}

#[test]
fn refusals_name_what_is_wrong() {
    let refusal = |keys: &str| {
        let text = XXL.replacen('{', &format!("{{{keys}, "), 1);
        config(&text).unwrap_err().to_string()
    };
    let replaced = |from: &str, to: &str| config(&XXL.replace(from, to)).unwrap_err().to_string();
    insta::assert_snapshot!(refusal(r#""rope_theta": 1.0"#), @r#"config.json: unknown keys "rope_theta"; T5Config of transformers 5.23 has no such fields"#);
    insta::assert_snapshot!(refusal(r#""is_decoder": true"#), @r#"config.json: key "is_decoder": true is not supported; supported: false"#);
    insta::assert_snapshot!(replaced("gated-gelu", "relu"), @r#"config.json: key "feed_forward_proj": "relu" is not supported; supported: gated-gelu"#);
    insta::assert_snapshot!(replaced("gelu_new", "silu"), @r#"config.json: key "dense_act_fn": "silu" is not supported; supported: gelu_new"#);
    insta::assert_snapshot!(replaced("\"t5\"", "\"umt5\""), @r#"config.json: key "model_type": "umt5" is not supported; supported: t5"#);
    insta::assert_snapshot!(replaced("buckets\": 32", "buckets\": 30"), @r#"config.json: key "relative_attention_num_buckets": 30 is not supported; supported: multiples of 4"#);
    insta::assert_snapshot!(replaced("distance\": 128", "distance\": 8"), @r#"config.json: key "relative_attention_max_distance": 8 is not supported; supported: more than a quarter of the 32 buckets"#);
    insta::assert_snapshot!(replaced("\"num_heads\": 64", "\"num_heads\": 0"), @r#"config.json: key "num_heads": 0 is not supported; supported: at least 1"#);
    let zero = TextShape {
        batch: 1,
        length: 0,
    };
    let error = text_encoder(&config(XXL).unwrap(), &zero).unwrap_err();
    insta::assert_snapshot!(error, @"text length 0 is not served: expected at least 1");
}
