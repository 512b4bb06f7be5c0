//! The shipped checkpoint against the reference pipeline: every step and the decoded frames.

use crate::support::{demo, error, tensors};
use std::collections::BTreeMap;
use std::sync::Arc;
use terrace::{
    Component, Event, GenerateRequest, GuidanceMode, HostTensor, Mesh, Model, Precision,
};
use terrace_compiler::{CompileOptions, Provenance, SliceGranularity, compile};
use terrace_models::scheduler::{SchedulerKind, guidance};
use terrace_models::transformer::{Guidance, NoiseSource, Solver, StepShape, denoise_step};
use terrace_plan::{DType, Fingerprint, Plan};

const PROMPT: &str = "a red circle moving right on a black background";
const LATENTS: f64 = 1e-3;
const FRAMES: f64 = 1e-2;

#[test]
fn every_ddim_step_and_the_frames_are_those_of_the_reference() {
    let reference = tensors("demo/golden.safetensors");
    let pipeline = demo();
    let mut request = GenerateRequest::new(pipeline.model(), PROMPT).unwrap();
    request.sampling.steps = 10;
    request.sampling.latents = Some(reference["latents_init"].clone());
    let mut worst = 0f64;
    let generated = pipeline
        .generate(&request, &mut |event| {
            if let Event::Step(step) = event {
                let latents = step.latents().unwrap();
                let error = error(
                    latents.as_f32().unwrap(),
                    slice(&reference["ddim_latents"], step.done - 1),
                );
                assert!(error < LATENTS, "step {}: {error}", step.done);
                worst = worst.max(error);
            }
        })
        .unwrap();
    let expected = reference["ddim_video"].as_f32().unwrap();
    let found = channels_first(&generated.frames);
    let error = error(&found, expected);
    println!("latents {worst:.2e}, frames {error:.2e}");
    assert!(worst > 0.0 && error < FRAMES, "{error}");
}

#[test]
fn every_dpm_step_is_that_of_the_reference() {
    let reference = tensors("demo/golden.safetensors");
    let case = Case {
        start: &reference["latents_init"],
        noise: &reference["dpm_noise"],
        latents: &reference["dpm_latents"],
        prompts: ["", PROMPT],
        scale: 6.0,
        mode: GuidanceMode::Constant,
    };
    case.check();
}

#[test]
fn another_size_with_dynamic_guidance_and_a_negative_prompt() {
    let reference = tensors("demo/dynamic.safetensors");
    let case = Case {
        start: &reference["latents_init"],
        noise: &reference["noise"],
        latents: &reference["latents"],
        prompts: ["a blue square", PROMPT],
        scale: 5.0,
        mode: GuidanceMode::Dynamic,
    };
    let latents = case.check();
    let pipeline = demo();
    let frames = pipeline.decode(&latents, Precision::F32).unwrap();
    let error = error(
        frames.as_f32().unwrap(),
        reference["frames"].as_f32().unwrap(),
    );
    assert!(error < FRAMES, "{error}");
}

#[test]
fn text_encoder_and_tokenizer_are_those_of_the_reference() {
    let reference = tensors("demo/golden.safetensors");
    let pipeline = demo();
    let found = pipeline
        .encode(&["", PROMPT], 32, Precision::F32, &mut |_| {})
        .unwrap();
    let half = found.len() / 2;
    let (uncond, cond) = found.as_f32().unwrap().split_at(half);
    assert!(error(cond, reference["text_cond"].as_f32().unwrap()) < 1e-4);
    assert!(error(uncond, reference["text_uncond"].as_f32().unwrap()) < 1e-4);
}

/// A run of the stochastic scheduler whose noise is known.
struct Case<'a> {
    start: &'a HostTensor,
    noise: &'a HostTensor,
    latents: &'a HostTensor,
    prompts: [&'a str; 2],
    scale: f64,
    mode: GuidanceMode,
}

impl Case<'_> {
    /// Compares every step; gives the last latents.
    fn check(&self) -> HostTensor {
        let model = Model::demo().unwrap();
        let pipeline = demo();
        let embeds = pipeline
            .encode(&self.prompts, 32, Precision::F32, &mut |_| {})
            .unwrap();
        let weights = model.weights(Component::Transformer).unwrap();
        let plan = Arc::new(self.plan(&model));
        let mut session = pipeline.runner().session(plan, &weights).unwrap();
        let shape = self.start.shape().to_vec();
        session.set("latents", self.start).unwrap();
        session.set("prompt_embeds", &embeds).unwrap();
        let zeros = HostTensor::zeros(shape.clone(), DType::F32).unwrap();
        session.set("previous", &zeros).unwrap();
        let count = self.latents.shape()[0];
        let scheduler = model.scheduler(Some(SchedulerKind::Dpm)).unwrap();
        for (index, step) in scheduler.steps(count).unwrap().iter().enumerate() {
            let scale = guidance(self.scale, self.mode, step.timestep, count);
            let mut numbers = vec![scale as f32];
            numbers.extend(step.coefficients);
            let noise = slice(self.noise, index).to_vec();
            let inputs = BTreeMap::from([
                ("coefficients", HostTensor::f32([7], numbers).unwrap()),
                (
                    "timestep",
                    HostTensor::f32([1], vec![step.timestep as f32]).unwrap(),
                ),
                ("noise", HostTensor::f32(shape.clone(), noise).unwrap()),
            ]);
            for (port, tensor) in &inputs {
                session.set(port, tensor).unwrap();
            }
            session.run().unwrap();
            let latents = session.get("latents").unwrap();
            let error = error(latents.as_f32().unwrap(), slice(self.latents, index));
            assert!(error < LATENTS, "step {index}: {error}");
        }
        session.get("latents").unwrap()
    }

    fn plan(&self, model: &Model) -> Plan {
        let &[_, frames, _, height, width] = self.start.shape() else {
            panic!("latents have five dimensions");
        };
        let shape = StepShape {
            frames,
            height,
            width,
            text: 32,
            guidance: Guidance::ClassifierFree,
            solver: Solver::Dpm(NoiseSource::Given),
        };
        let graph = denoise_step(&model.transformer().unwrap(), &shape).unwrap();
        let options = CompileOptions {
            mesh: Mesh::ONE,
            granularity: SliceGranularity::Cell,
            dtype: DType::F32,
            activations: DType::F32,
        };
        let provenance = Provenance {
            producer: "test".into(),
            fingerprint: Fingerprint {
                model: "demo".into(),
                shape: "test".into(),
                dtype: DType::F32,
                mesh: Mesh::ONE.to_string(),
                kernels: "test".into(),
            },
            request: "{}".into(),
        };
        compile(graph, &options, &provenance, &mut |_, _| {}).unwrap()
    }
}

/// Part `index` of a tensor along its first dimension.
fn slice(tensor: &HostTensor, index: usize) -> &[f32] {
    let part = tensor.len() / tensor.shape()[0];
    &tensor.as_f32().unwrap()[index * part..(index + 1) * part]
}

/// `[1, f, 3, H, W]` as `[1, 3, f, H, W]`.
fn channels_first(frames: &HostTensor) -> Vec<f32> {
    let &[_, count, channels, height, width] = frames.shape() else {
        panic!("frames have five dimensions");
    };
    let (data, plane) = (frames.as_f32().unwrap(), height * width);
    let mut out = Vec::with_capacity(data.len());
    for channel in 0..channels {
        for frame in 0..count {
            let at = (frame * channels + channel) * plane;
            out.extend(&data[at..at + plane]);
        }
    }
    out
}
