//! The whole pipeline on a GPU against the CPU.

use crate::support::{error, files, golden};
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
