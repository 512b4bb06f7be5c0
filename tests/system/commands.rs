//! Commands that do their work.

use crate::support::{copy_golden, error, golden, succeed, tensors, text};
use serde_json::Value;
use std::path::Path;

const PROMPT: [&str; 4] = [
    "--prompt",
    "a red circle moving right on a black background",
    "--num-inference-steps",
    "2",
];

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn with<'a>(head: &[&'a str], tail: &[&'a str]) -> Vec<&'a str> {
    head.iter().chain(&PROMPT).chain(tail).copied().collect()
}

#[test]
fn generate_writes_video_latents_and_trace() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--num_gpus=4",
        "--save-latents",
        "latents.safetensors",
        "--trace",
        "trace.json",
        "--json",
        "-o",
        "out.mp4",
    ];
    let ran = succeed(folder.path(), &with(&["generate"], &args));
    let events = lines(&ran.out);
    let steps = events.iter().filter(|e| e["event"] == "step").count();
    assert_eq!(steps, 2);
    let done = events.last().unwrap();
    assert_eq!(done["event"], "done");
    assert_eq!(done["frames"], 17);
    assert_eq!(done["mesh"]["cfg"], 2);
    let trace: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("trace.json")).unwrap()).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 100);
    let latents = terrace::tensors::read_latents(folder.path().join("latents.safetensors"));
    assert_eq!(latents.unwrap().shape(), [1, 5, 16, 12, 18]);
    assert!(folder.path().join("out.mp4").is_file());
}

#[test]
fn a_compiled_plan_gives_the_same_video_as_generate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let size = ["--height", "80", "--width", "112", "--num-frames", "9"];
    let parallel = ["--ulysses-degree", "3", "--slice-granularity", "row"];
    let flags: Vec<&str> = size.iter().chain(&parallel).copied().collect();
    let compile: Vec<&str> = ["compile", "-o", "x.plan.json"]
        .iter()
        .chain(&flags)
        .copied()
        .collect();
    succeed(path, &compile);
    succeed(path, &with(&["run", "x.plan.json"], &["-o", "run.gif"]));
    let mut args = with(&["generate"], &["-o", "generate.gif"]);
    args.extend(&flags);
    succeed(path, &args);
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    assert!(read("run.gif") == read("generate.gif"));
    let first = read("x.plan.json");
    succeed(path, &compile);
    assert!(
        first == read("x.plan.json"),
        "equal requests give equal bytes"
    );
}

#[test]
fn forward_gives_the_sample_of_the_reference_on_many_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let case = golden("rotary-other-size");
    let inputs = case.join("case.safetensors");
    let expected = tensors("rotary-other-size/case.safetensors");
    let transformer = case.join("transformer");
    let models: [&Path; 2] = [&case, &transformer];
    for (model, degrees) in models
        .into_iter()
        .zip([["--num-gpus", "1"], ["--ring-degree", "3"]])
    {
        let args = [
            "forward",
            "--model",
            text(model),
            "--inputs",
            text(&inputs),
            "--output",
            "out.safetensors",
            degrees[0],
            degrees[1],
        ];
        succeed(folder.path(), &args);
        let found = terrace::tensors::read(&folder.path().join("out.safetensors")).unwrap();
        let sample = found["sample"].as_f32().unwrap();
        assert!(error(sample, expected["sample"].as_f32().unwrap()) < 1e-5);
    }
}

#[test]
fn text_and_latents_go_through_their_commands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    succeed(
        path,
        &[
            "encode-text",
            "--prompt",
            "a red circle",
            "--output",
            "text.safetensors",
        ],
    );
    let embeds = terrace::tensors::read(&path.join("text.safetensors")).unwrap();
    assert_eq!(embeds["prompt_embeds"].shape(), [1, 32, 64]);
    let case = golden("vae-four-blocks");
    for model in [case.clone(), case.join("vae")] {
        let latents = case.join("frames-3.safetensors");
        let args = [
            "decode",
            "--model",
            text(&model),
            "--latents",
            text(&latents),
            "--output",
        ];
        let args: Vec<&str> = args
            .iter()
            .chain(&["frames.safetensors"])
            .copied()
            .collect();
        succeed(path, &args);
        let found = terrace::tensors::read(&path.join("frames.safetensors")).unwrap();
        let expected = tensors("vae-four-blocks/frames-3.safetensors");
        let (found, expected) = (&found["frames"], &expected["frames"]);
        assert_eq!(found.shape(), expected.shape());
        assert!(error(found.as_f32().unwrap(), expected.as_f32().unwrap()) < 1e-4);
    }
}

#[test]
fn a_long_prompt_is_cut_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let long = "a red circle moving right on a black background ".repeat(4);
    let args = [
        "encode-text",
        "--prompt",
        &long,
        "--output",
        "text.safetensors",
    ];
    let ran = succeed(folder.path(), &args);
    assert!(
        ran.err
            .contains("warning: the prompt is longer than 32 tokens"),
        "{}",
        ran.err
    );
    let underscored = [&["encode_text"], &args[1..], &["--json"]].concat();
    let events = lines(&succeed(folder.path(), &underscored).out);
    assert_eq!(events[0]["event"], "warning");
}

#[test]
fn a_checkpoint_in_shards_is_read() {
    let folder = tempfile::tempdir().unwrap();
    copy_golden("sharded-checkpoint", folder.path());
    let args = [
        "forward",
        "--model",
        ".",
        "--inputs",
        "case.safetensors",
        "--output",
        "o.safetensors",
    ];
    succeed(folder.path(), &args);
    let found = terrace::tensors::read(&folder.path().join("o.safetensors")).unwrap();
    let expected = tensors("sharded-checkpoint/case.safetensors");
    let sample = found["sample"].as_f32().unwrap();
    assert!(error(sample, expected["sample"].as_f32().unwrap()) < 1e-5);
}

/// The sample of a reference case in an element type on so many ranks, and its error.
fn rounded_forward(dtype: &str, ranks: &str) -> (Vec<f32>, f64) {
    let folder = tempfile::tempdir().unwrap();
    let case = golden("rotary-native");
    let expected = tensors("rotary-native/case.safetensors");
    let inputs = case.join("case.safetensors");
    let args = [
        "forward",
        "--model",
        text(&case),
        "--inputs",
        text(&inputs),
        "--output",
        "o.safetensors",
        "--dtype",
        dtype,
        "--ulysses-degree",
        ranks,
    ];
    succeed(folder.path(), &args);
    let found = terrace::tensors::read(&folder.path().join("o.safetensors")).unwrap();
    let sample = found["sample"].as_f32().unwrap();
    let error = error(sample, expected["sample"].as_f32().unwrap());
    (sample.to_vec(), error)
}

#[test]
fn rounded_products_are_close_and_do_not_depend_on_the_ranks() {
    let mut last = 1e-5;
    for (dtype, largest) in [("bf16", 1e-2), ("int8", 4e-2), ("fp8", 4e-2)] {
        let (sample, error) = rounded_forward(dtype, "1");
        assert!((last..largest).contains(&error), "{dtype}: {error}");
        assert!(rounded_forward(dtype, "3").0 == sample, "{dtype}");
        last = error;
    }
}

#[test]
fn devices_name_the_instruction_set_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let device = &lines(&succeed(folder.path(), &["devices", "--json"]).out)[0];
    let (chosen, sets) = (&device["instruction_set"], &device["instruction_sets"]);
    assert!(sets.as_array().unwrap().contains(chosen), "{device}");
    assert!(device["threads"].as_u64().unwrap() >= 1, "{device}");
    let shown = succeed(folder.path(), &["devices"]).out;
    for told in [chosen, &device["name"]] {
        assert!(shown.contains(told.as_str().unwrap()), "{shown}");
    }
}
