//! The whole pipeline on a GPU against the CPU.

use crate::support::error;
use terrace::{Device, GenerateRequest, Generated, Model, Pipeline, Runner, SessionOptions};

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
