//! Transformer configs: what is read, and the whole message of what is refused.

use terrace_models::ModelError;
use terrace_models::config::ConfigFile;
use terrace_models::transformer::TransformerConfig;
use terrace_plan::Activation;

fn read(text: &str) -> Result<TransformerConfig, ModelError> {
    TransformerConfig::from_config(ConfigFile::parse("config.json", text)?)
}

/// A config of the right class with these keys.
fn with(keys: &str) -> Result<TransformerConfig, ModelError> {
    read(&format!(
        r#"{{"_class_name": "CogVideoXTransformer3DModel"{keys}}}"#
    ))
}

fn refused(keys: &str) -> String {
    with(keys).expect_err("refused").to_string()
}

#[test]
fn absent_keys_have_the_defaults_of_the_reference() {
    let config = with("").unwrap();
    let expected = TransformerConfig {
        num_attention_heads: 30,
        attention_head_dim: 64,
        in_channels: 16,
        out_channels: 16,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        time_embed_dim: 512,
        ofs_embed_dim: None,
        text_embed_dim: 4096,
        num_layers: 30,
        attention_bias: true,
        sample_width: 90,
        sample_height: 60,
        sample_frames: 49,
        patch_size: 2,
        patch_size_t: None,
        temporal_compression_ratio: 4,
        max_text_seq_length: 226,
        activation_fn: Activation::GeluTanh,
        timestep_activation_fn: Activation::Silu,
        norm_elementwise_affine: true,
        norm_eps: 1e-5,
        spatial_interpolation_scale: 1.875,
        temporal_interpolation_scale: 1.0,
        use_rotary_positional_embeddings: false,
        use_learned_positional_embeddings: false,
        patch_bias: true,
    };
    assert_eq!(config, expected);
}

#[test]
fn every_key_is_read() {
    let config = with(
        r#", "_name_or_path": "somewhere", "num_attention_heads": 2, "attention_head_dim": 32,
        "in_channels": 5, "out_channels": 7, "flip_sin_to_cos": false, "freq_shift": 1,
        "time_embed_dim": 11, "ofs_embed_dim": 11, "text_embed_dim": 13, "num_layers": 3,
        "dropout": 0.5, "attention_bias": false, "sample_width": 17, "sample_height": 19,
        "sample_frames": 23, "patch_size": 4, "patch_size_t": 6, "temporal_compression_ratio": 8,
        "max_text_seq_length": 29, "activation_fn": "gelu", "timestep_activation_fn": "GELU",
        "norm_elementwise_affine": false, "norm_eps": 0.25, "spatial_interpolation_scale": 1.5,
        "temporal_interpolation_scale": 2, "use_rotary_positional_embeddings": true,
        "use_learned_positional_embeddings": false, "patch_bias": false"#,
    )
    .unwrap();
    let expected = TransformerConfig {
        num_attention_heads: 2,
        attention_head_dim: 32,
        in_channels: 5,
        out_channels: 7,
        flip_sin_to_cos: false,
        freq_shift: 1.0,
        time_embed_dim: 11,
        ofs_embed_dim: Some(11),
        text_embed_dim: 13,
        num_layers: 3,
        attention_bias: false,
        sample_width: 17,
        sample_height: 19,
        sample_frames: 23,
        patch_size: 4,
        patch_size_t: Some(6),
        temporal_compression_ratio: 8,
        max_text_seq_length: 29,
        activation_fn: Activation::Gelu,
        timestep_activation_fn: Activation::Gelu,
        norm_elementwise_affine: false,
        norm_eps: 0.25,
        spatial_interpolation_scale: 1.5,
        temporal_interpolation_scale: 2.0,
        use_rotary_positional_embeddings: true,
        use_learned_positional_embeddings: false,
        patch_bias: false,
    };
    assert_eq!(config, expected);
}

#[test]
fn other_files_are_refused() {
    let refused = |text: &str| read(text).expect_err("refused").to_string();
    assert_eq!(
        refused("{"),
        "config.json is not JSON: EOF while parsing an object at line 1 column 1"
    );
    assert_eq!(
        refused("[1, 2]"),
        "config.json: expected an object of config keys, found [1,2]"
    );
    assert_eq!(
        refused("{}"),
        "config.json: expected the config of CogVideoXTransformer3DModel, found no key \"_class_name\""
    );
    assert_eq!(
        refused(r#"{"_class_name": "FluxTransformer2DModel"}"#),
        "config.json: expected the config of CogVideoXTransformer3DModel, found FluxTransformer2DModel"
    );
    let missing = std::path::Path::new("nowhere/config.json");
    assert_eq!(
        TransformerConfig::read(missing)
            .expect_err("refused")
            .to_string(),
        "cannot read nowhere/config.json: No such file or directory (os error 2)"
    );
}

#[test]
fn keys_and_types_are_refused_by_name() {
    assert_eq!(
        refused(r#", "qk_norm": true, "a": 1"#),
        "config.json: unknown keys \"a\", \"qk_norm\"; CogVideoXTransformer3DModel of diffusers 0.42 has no such fields"
    );
    for (key, expected, found) in [
        ("\"num_layers\": \"30\"", "a whole number", "\"30\""),
        ("\"num_layers\": 2.5", "a whole number", "2.5"),
        ("\"num_layers\": -1", "a whole number", "-1"),
        ("\"num_layers\": null", "a whole number", "null"),
        ("\"norm_eps\": [0.5]", "a number", "[0.5]"),
        ("\"attention_bias\": 1", "true or false", "1"),
        ("\"activation_fn\": 3", "a string", "3"),
        ("\"patch_size_t\": false", "a whole number or null", "false"),
    ] {
        let name = key.split('"').nth(1).unwrap();
        assert_eq!(
            refused(&format!(", {key}")),
            format!("config.json: key \"{name}\": expected {expected}, found {found}")
        );
    }
}

/// Keys, and of the one that is refused its name, value and what is supported.
const WITHOUT_MEANING: &[[&str; 4]] = &[
    [
        r#", "activation_fn": "geglu""#,
        "activation_fn",
        "\"geglu\"",
        "gelu-approximate, gelu, linear-silu",
    ],
    [
        r#", "timestep_activation_fn": "mish""#,
        "timestep_activation_fn",
        "\"mish\"",
        "silu, swish, gelu",
    ],
    [r#", "patch_size": 0"#, "patch_size", "0", "1 to 1048576"],
    [
        r#", "num_layers": 18446744073709551615"#,
        "num_layers",
        "18446744073709551615",
        "1 to 1048576",
    ],
    [
        r#", "patch_size_t": 0"#,
        "patch_size_t",
        "0",
        "null or 1 to 1048576",
    ],
    [
        r#", "num_attention_heads": 1048576"#,
        "attention_head_dim",
        "64",
        "products of sizes up to 1048576",
    ],
    [
        r#", "patch_size": 257"#,
        "patch_size",
        "257",
        "patches of up to 256",
    ],
    [
        r#", "patch_size": 256, "in_channels": 17"#,
        "patch_size",
        "256",
        "products of sizes up to 1048576",
    ],
    [
        r#", "ofs_embed_dim": 256"#,
        "ofs_embed_dim",
        "256",
        "null or time_embed_dim 512",
    ],
    [
        r#", "spatial_interpolation_scale": 0"#,
        "spatial_interpolation_scale",
        "0.0",
        "positive numbers",
    ],
    [
        r#", "temporal_interpolation_scale": -1"#,
        "temporal_interpolation_scale",
        "-1.0",
        "positive numbers",
    ],
    [
        r#", "norm_eps": -1e-5"#,
        "norm_eps",
        "-0.00001",
        "zero or a positive number",
    ],
    [
        r#", "freq_shift": 960"#,
        "freq_shift",
        "960.0",
        "numbers below 960",
    ],
    [
        r#", "use_learned_positional_embeddings": true"#,
        "use_learned_positional_embeddings",
        "true",
        "false, unless use_rotary_positional_embeddings is true",
    ],
    [
        r#", "patch_size_t": 2"#,
        "patch_size_t",
        "2",
        "null where sin-cos or learned positions are added",
    ],
    [
        r#", "num_attention_heads": 3, "attention_head_dim": 8"#,
        "attention_head_dim",
        "8",
        "multiples of 16, of which positions take 1/4, 3/8 and 3/8",
    ],
    [
        r#", "num_attention_heads": 2, "attention_head_dim": 8, "use_rotary_positional_embeddings": true"#,
        "attention_head_dim",
        "8",
        "multiples of 16, of which positions take 1/4, 3/8 and 3/8",
    ],
];

#[test]
fn values_without_meaning_are_refused_by_name() {
    for [keys, key, value, supported] in WITHOUT_MEANING {
        assert_eq!(
            refused(keys),
            format!("config.json: key \"{key}\": {value} is not supported; supported: {supported}")
        );
    }
}

#[test]
fn narrow_heads_are_served_where_positions_are_added() {
    let config = with(r#", "num_attention_heads": 2, "attention_head_dim": 8"#).unwrap();
    assert_eq!(config.width(), 16);
    assert_eq!(with(r#", "ofs_embed_dim": 0"#).unwrap().ofs_embed_dim, None);
}
