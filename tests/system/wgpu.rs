//! The whole pipeline on a GPU against the CPU.

use crate::support::{error, files, golden, refuse, succeed};
use serde_json::{Value, json};
use terrace::{
    Cut, Degrees, Device, Error, ForwardInputs, GenerateRequest, Generated, Model, Pipeline,
    Precision, Runner, SessionOptions,
};
use terrace_runtime::read_tensors;

/// A small video of the shipped checkpoint after a few steps.
fn generate(device: &Device, ranks: usize) -> Generated {
    let runner = Runner::on(device, SessionOptions::default()).unwrap();
    let pipeline = Pipeline::on(Model::demo().unwrap(), runner);
    let prompt = "a red circle moving right on a black background";
    let mut request = GenerateRequest::new(pipeline.model(), prompt).unwrap();
    request.size.frames = 9;
    request.size.height = 32;
    request.size.width = 32;
    request.sampling.steps = 3;
    request.degrees.ranks = Some(ranks);
    pipeline.generate(&request, &mut |_| {}).unwrap()
}

#[test]
fn a_video_is_that_of_the_cpu_on_any_number_of_ranks() {
    let expected = generate(&Device::Cpu, 1);
    let one = generate(&Device::Wgpu { adapter: 0 }, 1);
    let three = generate(&Device::Wgpu { adapter: 0 }, 3);
    assert_eq!(three.mesh.to_string(), "cfg=1 ring=1 ulysses=3");
    let frames = |generated: &Generated| generated.frames.as_f32().unwrap().to_vec();
    assert!(frames(&three) == frames(&one));
    let error = error(&frames(&one), &frames(&expected));
    assert!(error < 1e-2, "{error}");
}

/// A forward in half precision, its slices exchanged among `ulysses` ranks.
fn forward(pipeline: &Pipeline, inputs: &ForwardInputs, ulysses: usize) -> Result<Vec<f32>, Error> {
    let cut = Cut {
        degrees: Degrees {
            ulysses: Some(ulysses),
            ..Degrees::default()
        },
        precision: Precision::F16,
        ..Cut::default()
    };
    let sample = pipeline.forward(inputs, &cut)?;
    Ok(sample.as_f32().unwrap().to_vec())
}

#[test]
fn forwards_in_f16_are_those_of_the_reference_on_any_number_of_ranks() {
    let (mut compared, mut equal) = (0, 0);
    for case in [
        "head-dim-64",
        "five-heads",
        "batch-2",
        "v1.5-ofs",
        "learned-positions",
    ] {
        let folder = golden(case);
        let runner = Runner::on(&Device::Wgpu { adapter: 0 }, SessionOptions::default()).unwrap();
        let pipeline = Pipeline::on(Model::open(&folder).unwrap(), runner);
        let files = files(&folder).into_iter();
        for file in files.filter(|file| file.extension().is_some_and(|it| it == "safetensors")) {
            if file.parent() != Some(&folder) {
                continue;
            }
            let inputs = ForwardInputs::read(&file).unwrap();
            let one = forward(&pipeline, &inputs, 1).unwrap();
            let expected = read_tensors(&file).unwrap().remove("sample").unwrap();
            let error = error(&one, expected.as_f32().unwrap());
            assert!(error < 5e-3, "{}: {error}", file.display());
            compared += 1;
            // A model of one head runs on one rank.
            if let Ok(two) = forward(&pipeline, &inputs, 2) {
                assert!(two == one, "{}", file.display());
                equal += 1;
            }
        }
    }
    assert!(compared >= 5 && equal >= 3, "{compared} {equal}");
}

#[test]
fn a_plan_for_gpus_runs_where_it_was_compiled_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let size = ["--num-frames", "1", "--height", "32", "--width", "32"];
    let types = ["--dtype", "f16", "--device", "wgpu"];
    let to = ["--ulysses-degree", "2", "-o", "x.plan.json"];
    succeed(path, &[&["compile"], &size[..], &types, &to].concat());
    let prompt = ["--prompt", "a red circle", "--num-inference-steps", "2"];
    let run = [
        "run",
        "x.plan.json",
        "--device",
        "wgpu",
        "--save-latents",
        "run",
        "-o",
        "x.gif",
    ];
    succeed(path, &[&run[..], &prompt].concat());
    let generate = [
        "generate",
        "--ulysses-degree",
        "2",
        "--save-latents",
        "all",
        "-o",
        "y.gif",
    ];
    succeed(path, &[&generate[..], &prompt, &size, &types].concat());
    let read = |name| std::fs::read(path.join(name)).unwrap();
    assert!(read("run") == read("all"));
}

#[test]
fn kernels_and_parts_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let gemm = ["gemm", "--rows", "5", "--k", "40", "--n", "17"];
    let attention = [
        "attention",
        "--tokens",
        "50",
        "--heads",
        "3",
        "--head-dim",
        "20",
    ];
    let forward = [
        "forward", "--layers", "1", "--height", "16", "--width", "32",
    ];
    for (what, flops) in [
        (&gemm[..], Some(2 * 5 * 40 * 17)),
        (&attention, Some(4 * 3 * 50 * 50 * 20)),
        (&forward, None),
    ] {
        for dtype in ["f32", "f16"] {
            let how = [
                "--device", "wgpu", "--dtype", dtype, "--warmup", "0", "--runs", "1", "--json",
            ];
            let ran = succeed(folder.path(), &[&["bench"], what, &how].concat());
            let found: Value = serde_json::from_str(&ran.out).unwrap();
            assert_eq!(
                (&found["device"], &found["dtype"]),
                (&json!("wgpu:0"), &json!(dtype))
            );
            assert!(found["median_seconds"].as_f64().unwrap() > 0.0, "{found}");
            // The peak of an adapter is not known.
            assert_eq!(found["peak_gflops"], Value::Null);
            if let Some(flops) = flops {
                assert_eq!(found["flops"], flops);
            }
        }
    }
    let int8 = [
        "bench", "gemm", "--rows", "2", "--k", "8", "--n", "8", "--dtype", "int8",
    ];
    let refused = [
        "weight `weight` is i8",
        "f32 and f16 only",
        "--dtype",
        "--device cpu",
    ];
    refuse(
        folder.path(),
        &[&int8[..], &["--device", "wgpu"]].concat(),
        &refused,
    );
}
