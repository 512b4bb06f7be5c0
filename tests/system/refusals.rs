//! Bad input: one clear error, exit code 2, nothing left behind.

use crate::support::{copy_golden, refuse, succeed, text};
use serde_json::{Value, json};
use std::path::Path;

const PROMPT: [&str; 3] = ["generate", "--prompt", "a red circle"];

fn generate(folder: &Path, flags: &[&str], parts: &[&str]) {
    let args = [&PROMPT[..], flags, &["-o", "out.mp4"]].concat();
    refuse(folder, &args, parts);
}

/// A transformer case on disk, and its `forward`.
fn case() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_golden("rotary-other-size", folder.path());
    folder
}

fn forward(folder: &Path, parts: &[&str]) {
    let args = [
        "forward",
        "--model",
        ".",
        "--inputs",
        "case.safetensors",
        "--output",
        "o.safetensors",
    ];
    refuse(folder, &args, parts);
}

/// A change of a JSON file by hand.
type Edit = fn(&mut Value);

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Rewrites the header of a safetensors file.
fn edit_header(path: &Path, edit: impl FnOnce(&mut Value)) {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let header = header.to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&bytes[8 + length..]);
    std::fs::write(path, out).unwrap();
}

#[test]
fn weights_that_are_missing_truncated_or_of_another_kind() {
    const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
    const NAME: &str = "proj_out.weight";
    let folder = case();
    std::fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
    forward(folder.path(), &["diffusion_pytorch_model.safetensors"]);

    let folder = case();
    let path = folder.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    forward(folder.path(), &["truncated", &bytes.len().to_string()]);

    let folder = case();
    edit_header(&folder.path().join(WEIGHTS), |h| {
        h[NAME]["dtype"] = json!("I32")
    });
    forward(
        folder.path(),
        &[NAME, "i32", "expected f32, f64, f16 or bf16"],
    );

    let folder = case();
    edit_header(&folder.path().join(WEIGHTS), |h| {
        let shape = h[NAME]["shape"].as_array().unwrap().clone();
        h[NAME]["shape"] = shape.into_iter().rev().collect();
    });
    forward(folder.path(), &[NAME, "shape"]);

    let folder = case();
    edit_header(&folder.path().join(WEIGHTS), |h| {
        let tensor = h.as_object_mut().unwrap().remove(NAME).unwrap();
        h["other"] = tensor;
    });
    forward(folder.path(), &[NAME]);
}

#[test]
fn an_index_that_lacks_an_entry_or_a_file() {
    let shards = || {
        let folder = tempfile::tempdir().unwrap();
        copy_golden("sharded-checkpoint", folder.path());
        folder
    };
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    let folder = shards();
    edit_json(&folder.path().join(index), |v| {
        v["weight_map"]
            .as_object_mut()
            .unwrap()
            .remove("proj_out.weight");
    });
    forward(folder.path(), &["proj_out.weight", "index"]);

    let folder = shards();
    let shard = "diffusion_pytorch_model-00002-of-00002.safetensors";
    std::fs::remove_file(folder.path().join("transformer").join(shard)).unwrap();
    forward(folder.path(), &[shard]);
}

#[test]
fn configs_that_are_not_known() {
    let folder = case();
    let config = folder.path().join("transformer/config.json");
    edit_json(&config, |v| {
        v["_class_name"] = json!("WanTransformer3DModel")
    });
    forward(
        folder.path(),
        &["WanTransformer3DModel", "CogVideoXTransformer3DModel"],
    );

    let folder = case();
    let config = folder.path().join("transformer/config.json");
    edit_json(&config, |v| v["moe_experts"] = json!(8));
    forward(folder.path(), &["moe_experts"]);

    let folder = case();
    std::fs::write(folder.path().join("transformer/config.json"), "{").unwrap();
    forward(folder.path(), &["config.json", "JSON"]);

    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), &["--model", "nowhere"], &["nowhere"]);
}

#[test]
fn inputs_that_do_not_fit_the_model() {
    let folder = case();
    let inputs = folder.path().join("case.safetensors");
    edit_header(&inputs, |h| {
        let tensor = h.as_object_mut().unwrap().remove("timestep").unwrap();
        h["time"] = tensor;
    });
    forward(folder.path(), &["timestep", "[b]"]);

    let folder = case();
    edit_header(&folder.path().join("case.safetensors"), |h| {
        let shape = h["hidden_states"]["shape"].as_array_mut().unwrap();
        shape.swap(2, 4);
    });
    forward(folder.path(), &["hidden_states"]);
}

#[test]
fn sizes_that_the_model_cannot_do_name_the_nearest_ones() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), &["--num-frames", "16"], &["16", "9 or 17"]);
    generate(folder.path(), &["--height", "100"], &["100", "96 or 112"]);
    generate(folder.path(), &["--width", "8"], &["8", "16"]);
    generate(folder.path(), &["--num-inference-steps", "0"], &["steps"]);
    generate(
        folder.path(),
        &["--num-inference-steps", "1001"],
        &["1001", "1000"],
    );
    generate(
        folder.path(),
        &["--guidance-scale", "nan"],
        &["guidance scale"],
    );
    generate(
        folder.path(),
        &["--max-sequence-length", "0"],
        &["text length"],
    );
}

#[test]
fn degrees_that_cannot_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    generate(
        path,
        &["--num-gpus", "4", "--ulysses-degree", "3"],
        &["4 ranks", "ulysses=3"],
    );
    generate(path, &["--ulysses-degree", "7"], &["6 attention heads"]);
    generate(path, &["--cfg-degree", "3"], &["cfg degree 3"]);
    generate(
        path,
        &["--cfg-degree", "2", "--guidance-scale", "1"],
        &["cfg degree 2"],
    );
    generate(path, &["--num-gpus", "0"], &["begin at 1"]);
    let rows = ["--slice-granularity", "row", "--num-gpus", "13"];
    generate(path, &rows, &["13 ranks", "use 12 ranks"]);
}

#[test]
fn plans_of_another_model_or_shape() {
    let folder = case();
    let path = folder.path();
    succeed(path, &["compile", "-o", "x.plan.json"]);
    let run = ["run", "x.plan.json", "--prompt", "a", "-o", "out.mp4"];
    refuse(
        path,
        &[&run[..], &["--model", "."]].concat(),
        &["compiled for model"],
    );
    let scale = ["--guidance-scale", "1"];
    refuse(
        path,
        &[&run[..], &scale].concat(),
        &["2", "--guidance-scale 1"],
    );
    succeed(path, &["compile", "--num-frames", "9", "-o", "y.plan.json"]);
    let latents = [
        "--num-inference-steps",
        "1",
        "--save-latents",
        "l.safetensors",
    ];
    succeed(path, &[&run[..], &latents].concat());
    std::fs::remove_file(path.join("out.mp4")).unwrap();
    let args = [
        "run",
        "y.plan.json",
        "--prompt",
        "a",
        "-o",
        "out.mp4",
        "--latents",
        "l.safetensors",
    ];
    refuse(
        path,
        &args,
        &["latents", "[1, 3, 16, 12, 18]", "[1, 5, 16, 12, 18]"],
    );
}

#[test]
fn plans_that_were_edited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let compiled = path.join("x.plan.json");
    succeed(path, &["compile", "--num-gpus", "2", "-o", "x.plan.json"]);
    let original = std::fs::read_to_string(&compiled).unwrap();
    let edits: [(&str, Edit); 5] = [
        ("version 99", |p| p["header"]["format"] = json!(99)),
        ("unknown field `extra`", |p| p["extra"] = json!(1)),
        ("arena", |p| p["ranks"][0]["arena_bytes"] = json!(64)),
        ("rank", |p| {
            p["ranks"].as_array_mut().unwrap().pop();
        }),
        ("the table says 4", |p| {
            p["collectives"][0]["bytes"][0][1] = json!(4)
        }),
    ];
    for (part, edit) in edits {
        std::fs::write(&compiled, &original).unwrap();
        edit_json(&compiled, edit);
        refuse(path, &["check", "x.plan.json"], &[part]);
        refuse(path, &["inspect", "x.plan.json"], &[part]);
        refuse(
            path,
            &["run", "x.plan.json", "--prompt", "a", "-o", "o.gif"],
            &[part],
        );
    }
    std::fs::write(&compiled, &original[..original.len() / 2]).unwrap();
    refuse(path, &["check", "x.plan.json"], &["truncated"]);
    refuse(path, &["check", "none.plan.json"], &["none.plan.json"]);
}

#[test]
fn what_inspect_cannot_show() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &["compile", "-o", "x.plan.json"]);
    let inspect = |flags: &[&str], part| {
        refuse(
            folder.path(),
            &[&["inspect", "x.plan.json"], flags].concat(),
            &[part],
        );
    };
    inspect(&["--rank", "7"], "rank 7");
    inspect(&["--graph", "no-such-pass"], "insert-reshards");
    inspect(&["--rank", "0", "--format", "dot"], "text or json");
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("folder.mp4")).unwrap();
    for output in ["no/such/folder/out.mp4", "out.avi", "folder.mp4"] {
        refuse(path, &[&PROMPT[..], &["-o", output]].concat(), &[output]);
    }
    let latents = ["--save-latents", "no/such/l.safetensors"];
    generate(path, &latents, &["no/such/l.safetensors"]);
    let trace = ["--trace", "no/such/t.json"];
    generate(path, &trace, &["no/such/t.json"]);
    refuse(
        path,
        &["compile", "-o", "no/such/x.plan.json"],
        &["no/such/x.plan.json"],
    );
    let encode = [
        "encode-text",
        "--prompt",
        "a",
        "--output",
        "no/such/t.safetensors",
    ];
    refuse(path, &encode, &["no/such/t.safetensors"]);
    let missing = path.join("none.safetensors");
    let decode = [
        "decode",
        "--latents",
        text(&missing),
        "--output",
        "f.safetensors",
    ];
    refuse(path, &decode, &["none.safetensors"]);
}

#[test]
fn devices_that_do_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let device = |device| ["--device", device, "--num-inference-steps", "1"];
    generate(
        folder.path(),
        &device("tpu:0"),
        &["no device `tpu:0`", "cpu, wgpu, wgpu:N, cuda and cuda:N"],
    );
    generate(
        folder.path(),
        &device("wgpu:4000"),
        match cfg!(feature = "wgpu") {
            true => &["no adapter wgpu:4000", "--device cpu"],
            false => &["wgpu:4000", "--features wgpu", "--device cpu"],
        },
    );
    generate(
        folder.path(),
        &device("cuda:4000"),
        match cfg!(feature = "cuda") {
            // The driver may be missing, or the GPU.
            true => &["CUDA"],
            false => &["cuda:4000", "--features cuda", "--device cpu"],
        },
    );
}
