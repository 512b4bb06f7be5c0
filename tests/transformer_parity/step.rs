//! Whole denoising steps: against a forward followed by the scheduler's formula, and on meshes.

use crate::cases::{Case, cases, meshes, relative_error, run, session, try_plan, values};
use crate::device::tolerance;
use terrace_compiler::{CompileError, SliceGranularity};
use terrace_models::transformer::{
    ForwardShape, Guidance, NoiseSource, Solver, StepShape, denoise_step, forward,
};
use terrace_plan::Mesh;
use terrace_runtime::HostTensor;

/// Guidance scale, then `c0..c5`: every term counts.
const COEFFICIENTS: [f32; 7] = [6.0, 0.9, -0.4, 0.7, 0.3, -0.2, 0.25];

/// What a chain of steps leaves.
#[derive(PartialEq)]
struct Left {
    latents: Vec<f32>,
    previous: Option<Vec<f32>>,
}

fn case(name: &str) -> Case {
    let found = cases().into_iter().find(|c| c.to_string() == name);
    found.expect("a case of this name")
}

fn f32s(tensor: &HostTensor) -> &[f32] {
    tensor.as_f32().unwrap()
}

/// The inputs of a step; those that the solver does not read are left out.
fn inputs(case: &Case, guidance: Guidance, solver: Solver) -> Vec<(&'static str, HostTensor)> {
    let shape = case.shape();
    let config = &case.config;
    let latents = [
        1,
        shape.frames,
        config.out_channels,
        shape.height,
        shape.width,
    ];
    let batch = match guidance {
        Guidance::None => 1,
        Guidance::ClassifierFree => 2,
    };
    let text = [batch, shape.text, config.text_embed_dim];
    let mut inputs = vec![
        ("latents", values(&latents, 1)),
        ("prompt_embeds", values(&text, 2)),
        ("timestep", HostTensor::f32([1], vec![321.0]).unwrap()),
        (
            "coefficients",
            HostTensor::f32([7], COEFFICIENTS.to_vec()).unwrap(),
        ),
    ];
    match solver {
        Solver::Ddim => {}
        Solver::Dpm(source) => {
            inputs.push(("previous", values(&latents, 3)));
            inputs.push(match source {
                NoiseSource::Given => ("noise", values(&latents, 4)),
                NoiseSource::Generated => ("key", HostTensor::u32([4], vec![5, 6, 7, 8]).unwrap()),
            });
        }
    }
    inputs
}

/// Two steps, the second from what the first carried over.
fn steps(
    case: &Case,
    guidance: Guidance,
    solver: Solver,
    mesh: Mesh,
    granularity: SliceGranularity,
) -> Result<Left, CompileError> {
    let sizes = case.shape();
    let shape = StepShape {
        frames: sizes.frames,
        height: sizes.height,
        width: sizes.width,
        text: sizes.text,
        guidance,
        solver,
    };
    let graph = denoise_step(&case.config, &shape).unwrap();
    let mut session = session(try_plan(graph, mesh, granularity)?, &case.weights);
    for (name, tensor) in inputs(case, guidance, solver) {
        session.set(name, &tensor).unwrap();
    }
    session.run().unwrap();
    let timestep = HostTensor::f32([1], vec![123.0]).unwrap();
    session.set("timestep", &timestep).unwrap();
    session.run().unwrap();
    let get = |name| f32s(&session.get(name).unwrap()).to_vec();
    Ok(Left {
        latents: get("latents"),
        previous: match solver {
            Solver::Ddim => None,
            Solver::Dpm(_) => Some(get("previous")),
        },
    })
}

/// `[uncond, cond]` predictions of one step, by the forward alone.
fn predictions(case: &Case, latents: &[f32], text: &HostTensor, timestep: f32) -> Vec<f32> {
    let shape = ForwardShape {
        batch: 2,
        ..case.shape()
    };
    let graph = forward(&case.config, &shape).unwrap();
    let plan = try_plan(graph, Mesh::ONE, SliceGranularity::Cell).unwrap();
    let channels = case.config.in_channels;
    let host = [2, shape.frames, channels, shape.height, shape.width];
    let inputs = [
        (
            "hidden_states",
            HostTensor::f32(host, [latents, latents].concat()).unwrap(),
        ),
        ("encoder_hidden_states", text.clone()),
        ("timestep", HostTensor::f32([2], vec![timestep; 2]).unwrap()),
    ];
    run(plan, &case.weights, &inputs, "sample")
}

/// The scheduler's formula in double precision.
fn update(predicted: &[f32], latents: &[f32], previous: &[f32], noise: &[f32]) -> [Vec<f32>; 2] {
    let [g, c0, c1, c2, c3, c4, c5] = COEFFICIENTS.map(f64::from);
    let (uncond, cond) = predicted.split_at(latents.len());
    let wide = |x: &[f32], i: usize| f64::from(x[i]);
    let x0 = |i: usize| {
        let v = wide(uncond, i) + g * (wide(cond, i) - wide(uncond, i));
        c0 * wide(latents, i) + c1 * v
    };
    let next = |i: usize| {
        c2 * wide(latents, i) + c3 * x0(i) + c4 * wide(previous, i) + c5 * wide(noise, i)
    };
    let all = |f: &dyn Fn(usize) -> f64| (0..latents.len()).map(|i| f(i) as f32).collect();
    [all(&next), all(&x0)]
}

#[test]
fn steps_are_a_forward_guidance_and_the_update() {
    for name in [
        "rotary-native/case.safetensors",
        "v1.5-patch-t/case.safetensors",
    ] {
        let case = case(name);
        let solver = Solver::Dpm(NoiseSource::Given);
        let given = inputs(&case, Guidance::ClassifierFree, solver);
        let [latents, text, .., previous, noise] = given.as_slice() else {
            panic!("inputs");
        };
        let noise = f32s(&noise.1);
        let predicted = predictions(&case, f32s(&latents.1), &text.1, 321.0);
        let [latents, previous] = update(&predicted, f32s(&latents.1), f32s(&previous.1), noise);
        let predicted = predictions(&case, &latents, &text.1, 123.0);
        let [latents, previous] = update(&predicted, &latents, &previous, noise);

        let (guidance, cell) = (Guidance::ClassifierFree, SliceGranularity::Cell);
        let left = steps(&case, guidance, solver, Mesh::ONE, cell).unwrap();
        let error = relative_error(&left.latents, &latents);
        assert!(error < tolerance(1e-6), "{name}: {error:e}");
        let error = relative_error(&left.previous.unwrap(), &previous);
        assert!(error < tolerance(1e-6), "{name}: {error:e}");
    }
}

#[test]
fn every_mesh_leaves_the_same_latents() {
    let generated = Solver::Dpm(NoiseSource::Generated);
    for (name, guidance, solver) in [
        (
            "rotary-native/case.safetensors",
            Guidance::ClassifierFree,
            generated,
        ),
        (
            "v1.5-patch-t/case.safetensors",
            Guidance::ClassifierFree,
            Solver::Dpm(NoiseSource::Given),
        ),
        (
            "five-heads/case.safetensors",
            Guidance::ClassifierFree,
            Solver::Ddim,
        ),
        ("sincos-native/case.safetensors", Guidance::None, generated),
    ] {
        let case = case(name);
        let single = steps(&case, guidance, solver, Mesh::ONE, SliceGranularity::Cell).unwrap();
        for mesh in meshes().filter(|m| m.ranks() > 1) {
            for granularity in [SliceGranularity::Row, SliceGranularity::Cell] {
                compare(&case, guidance, solver, mesh, granularity, &single);
            }
        }
    }
}

fn compare(
    case: &Case,
    guidance: Guidance,
    solver: Solver,
    mesh: Mesh,
    granularity: SliceGranularity,
    single: &Left,
) {
    let legal = (mesh.cfg == 1 || guidance == Guidance::ClassifierFree)
        && mesh.ulysses <= case.config.num_attention_heads
        && mesh.ring * mesh.ulysses <= case.slices(granularity);
    let left = match (steps(case, guidance, solver, mesh, granularity), legal) {
        (Ok(left), true) => left,
        (Err(CompileError::TooManyRanks { .. }), false) => return,
        (Ok(_), false) => panic!("{case} runs on {mesh}"),
        (Err(error), _) => panic!("{case} on {mesh}: {error}"),
    };
    let at = format!("{case} on {mesh} by {granularity:?}");
    if mesh.ring == 1 {
        assert!(left == *single, "{at}");
        return;
    }
    let error = relative_error(&left.latents, &single.latents);
    assert!(error < tolerance(1e-5), "{at}: {error:e}");
}
