//! Plans of the real models, from configs alone.

use crate::support::{refuse, succeed, text};
use serde_json::{Value, json};
use std::path::Path;

/// A folder that holds the config of a transformer and nothing else.
fn model(folder: &Path, changes: &Value) {
    let mut config = json!({
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": 30,
        "attention_head_dim": 64,
        "num_layers": 30,
        "sample_height": 60,
        "sample_width": 90,
        "sample_frames": 49,
        "spatial_interpolation_scale": 1.875,
    });
    let (config_map, changes) = (
        config.as_object_mut().unwrap(),
        changes.as_object().unwrap(),
    );
    config_map.extend(changes.clone());
    std::fs::create_dir_all(folder.join("transformer")).unwrap();
    std::fs::write(folder.join("transformer/config.json"), config.to_string()).unwrap();
}

fn compile(folder: &Path, flags: &[&str]) {
    let args = ["compile", "--model", text(folder), "-o", "x.plan.json"];
    succeed(folder, &[&args[..], flags].concat());
}

fn inspect(folder: &Path, flags: &[&str]) -> String {
    succeed(folder, &[&["inspect", "x.plan.json"], flags].concat()).out
}

#[test]
fn the_2b_model_on_four_ranks_has_4444_tokens_on_every_rank() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), &json!({}));
    let degrees = [
        "--ulysses-degree",
        "2",
        "--ring-degree",
        "2",
        "--guidance-scale",
        "1",
    ];
    compile(folder.path(), &degrees);
    let shown = inspect(folder.path(), &[]);
    let tokens = shown
        .lines()
        .find(|line| line.trim_start().starts_with("tokens  "))
        .unwrap();
    assert!(tokens.contains("4444 on every rank"), "{shown}");
    let json: Value = serde_json::from_str(&inspect(folder.path(), &["--format", "json"])).unwrap();
    for rank in json["ranks"].as_array().unwrap() {
        assert_eq!(rank["tokens"]["total"], 4444);
    }
    let steps = inspect(folder.path(), &["--rank", "3"]);
    let exchanges = |kind| steps.matches(&format!("wait {kind} ")).count();
    assert_eq!([exchanges("all_to_all"), exchanges("ring_shift")], [60, 30]);
    assert!(inspect(folder.path(), &["--format", "dot"]).starts_with("digraph"));
    let ran = succeed(folder.path(), &["check", "x.plan.json"]);
    assert!(ran.out.contains("sound (4 ranks"), "{}", ran.out);
}

#[test]
fn graphs_are_shown_after_every_pass() {
    let folder = tempfile::tempdir().unwrap();
    succeed(
        folder.path(),
        &["compile", "--num-gpus", "6", "-o", "x.plan.json"],
    );
    let before = inspect(folder.path(), &["--graph", "model"]);
    assert!(!before.contains("reshard"), "{before}");
    let after = inspect(folder.path(), &["--graph", "insert-reshards"]);
    assert!(after.contains("= reshard %"), "{after}");
    let lowered = inspect(folder.path(), &["--graph", "lower-reshards"]);
    assert!(lowered.contains("= all_to_all %") && !lowered.contains("= reshard %"));
    let dot = inspect(folder.path(), &["--graph", "schedule", "--format", "dot"]);
    assert!(dot.starts_with("digraph"));
}

#[test]
fn every_variant_compiles_from_its_config() {
    let v5b = json!({
        "num_attention_heads": 48,
        "num_layers": 4,
        "use_rotary_positional_embeddings": true,
        "spatial_interpolation_scale": 1.0,
    });
    let mut v15 = v5b.clone();
    v15.as_object_mut().unwrap().extend(
        json!({
            "patch_size_t": 2, "patch_bias": false, "sample_height": 96, "sample_width": 170,
            "sample_frames": 81,
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    for (config, tokens) in [(v5b, 17_776), (v15, 45_106)] {
        for (flags, ranks) in [(["--num-gpus", "7"], 7), (["--num-gpus", "16"], 16)] {
            let folder = tempfile::tempdir().unwrap();
            model(folder.path(), &config);
            compile(folder.path(), &flags);
            let shown = inspect(folder.path(), &["--format", "json"]);
            let json: Value = serde_json::from_str(&shown).unwrap();
            let all = json["ranks"].as_array().unwrap();
            assert_eq!(all.len(), ranks);
            let cfg = json["mesh"]["cfg"].as_u64().unwrap() as usize;
            let each: Vec<u64> = all
                .iter()
                .map(|rank| rank["tokens"]["total"].as_u64().unwrap())
                .collect();
            assert_eq!(each.iter().sum::<u64>() as usize, tokens * cfg);
            assert!(
                each.iter().max().unwrap() - each.iter().min().unwrap() <= 11,
                "{each:?}"
            );
        }
    }
}

#[test]
fn plans_for_gpus_have_their_activations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let size = ["--num-frames", "1", "--height", "32", "--width", "32"];
    let compiled = |device: &str, dtype: &str| {
        let to = ["--device", device, "--dtype", dtype, "-o", "x.plan.json"];
        let ran = succeed(path, &[&["compile"], &size[..], &to].concat());
        let shown = inspect(path, &[]);
        let line = shown.lines().find(|line| line.starts_with("dtype"));
        (ran.out, line.unwrap().to_owned())
    };
    for (device, dtype, activations) in [
        ("cpu", "bf16", "f32"),
        ("cuda", "f32", "f32"),
        ("wgpu:3", "f16", "f16"),
        ("cuda:0,1", "bf16", "bf16"),
    ] {
        let (said, line) = compiled(device, dtype);
        assert!(
            said.contains(&format!(", activations {activations}, ")),
            "{said}"
        );
        let narrow = format!("{dtype}, activations {activations}");
        let expected = if activations == "f32" { dtype } else { &narrow };
        assert_eq!(line, format!("dtype     {expected}"));
    }
    let run = ["run", "x.plan.json", "--prompt", "a", "-o", "out.gif"];
    refuse(
        path,
        &run,
        &["activations in bf16", "device cpu", "--device cpu"],
    );
}
