//! Schedulers against recorded runs of the reference classes.

#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use terrace_compiler::ops::Presence;
use terrace_models::ModelError;
use terrace_models::scheduler::{GuidanceMode, Scheduler, SchedulerKind, guidance};

const CASES: [&str; 5] = [
    "trailing",
    "v1.5",
    "leading-epsilon",
    "linspace-sample",
    "short-training",
];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data();
    data.chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    let data = file.tensor(name).unwrap().data();
    data.chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize)
        .collect()
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = expected.iter().map(|&v| square(v)).sum();
    (error / norm).sqrt()
}

fn config(text: &str) -> Result<Scheduler, ModelError> {
    Scheduler::from_json("scheduler_config.json", text, None)
}

/// One update, in f32 as the kernels do it.
fn step(c: [f32; 6], latents: &mut [f32], prediction: &[f32], previous: &mut [f32], noise: &[f32]) {
    for i in 0..latents.len() {
        let x0 = c[0] * latents[i] + c[1] * prediction[i];
        latents[i] = c[2] * latents[i] + c[3] * x0 + c[4] * previous[i] + c[5] * noise[i];
        previous[i] = x0;
    }
}

fn check_case(kind: &str, case: &str) {
    let folder = goldens().join(format!("scheduler-{kind}-{case}"));
    let text = std::fs::read_to_string(folder.join("scheduler/scheduler_config.json")).unwrap();
    let scheduler = config(&text).unwrap();
    let data = std::fs::read(folder.join("case.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let timesteps = integers(&file, "timesteps");
    let steps = scheduler.steps(timesteps.len()).unwrap();
    let alphas: Vec<f32> = scheduler
        .alphas_cumprod()
        .iter()
        .map(|&a| a as f32)
        .collect();
    let error = relative_error(&alphas, &floats(&file, "alphas_cumprod"));
    assert!(error < 1e-7, "{kind} {case}: alphas_cumprod {error:e}");

    let (outputs, samples) = (floats(&file, "model_outputs"), floats(&file, "samples"));
    let mut latents = floats(&file, "initial");
    let size = latents.len();
    let mut previous = vec![0.0; size];
    let noise = match scheduler.sources().noise {
        Presence::Present => floats(&file, "noise"),
        Presence::Absent => vec![0.0; outputs.len()],
    };
    for (i, s) in steps.iter().enumerate() {
        let part = i * size..(i + 1) * size;
        assert_eq!(s.timestep, timesteps[i], "{kind} {case}");
        let (prediction, noise) = (&outputs[part.clone()], &noise[part.clone()]);
        step(
            s.coefficients,
            &mut latents,
            prediction,
            &mut previous,
            noise,
        );
        let error = relative_error(&latents, &samples[part]);
        assert!(error < 1e-5, "{kind} {case} step {i}: {error:e}");
    }
}

#[test]
fn ddim_follows_the_reference() {
    for case in CASES {
        check_case("ddim", case);
    }
}

#[test]
fn dpm_follows_the_reference() {
    for case in CASES {
        check_case("dpm", case);
    }
}

#[test]
fn a_config_serves_the_other_rule_too() {
    let text = r#"{"_class_name": "CogVideoXDDIMScheduler", "prediction_type": "v_prediction"}"#;
    let ddim = config(text).unwrap();
    let dpm = Scheduler::from_json("x", text, Some(SchedulerKind::Dpm)).unwrap();
    assert_eq!(ddim.kind(), SchedulerKind::Ddim);
    assert_eq!(ddim.sources().noise, Presence::Absent);
    assert_eq!(dpm.kind(), SchedulerKind::Dpm);
    assert_eq!(dpm.alphas_cumprod(), ddim.alphas_cumprod());
    assert_eq!(dpm.timesteps(7).unwrap(), ddim.timesteps(7).unwrap());
}

#[test]
fn unused_sources_have_zero_coefficients() {
    let text = r#"{"_class_name": "CogVideoXDPMScheduler", "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#;
    let steps = config(text).unwrap().steps(10).unwrap();
    assert_eq!(steps[0].coefficients[4], 0.0);
    assert_ne!(steps[1].coefficients[5], 0.0);
    assert_ne!(steps[2].coefficients[4], 0.0);
    // The last step returns the clean latents.
    assert_eq!(steps[9].coefficients[2..], [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn dynamic_guidance_follows_the_reference() {
    let data = std::fs::read(goldens().join("demo/dynamic.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let expected = file.tensor("guidance").unwrap().data();
    let timesteps = integers(&file, "timesteps");
    for (timestep, scale) in timesteps.iter().zip(expected.chunks_exact(8)) {
        let scale = f64::from_le_bytes(scale.try_into().unwrap());
        let found = guidance(5.0, GuidanceMode::Dynamic, *timestep, timesteps.len());
        assert!((found - scale).abs() < 1e-9, "{found} {scale}");
    }
    assert_eq!(guidance(6.0, GuidanceMode::Constant, 999, 10), 6.0);
}

#[test]
fn trailing_steps_round_as_the_reference_does() {
    let text = r#"{"_class_name": "CogVideoXDDIMScheduler", "timestep_spacing": "trailing"}"#;
    let scheduler = config(text).unwrap();
    // 1000 - 3 * 1000 / 48 is 937.5, which numpy counts down to a little less.
    let timesteps = scheduler.timesteps(48).unwrap();
    assert_eq!(timesteps.len(), 48);
    assert_eq!(timesteps[..5], [999, 978, 957, 936, 916]);
    // The reference takes a 62nd step at time -1 here.
    assert_eq!(scheduler.timesteps(61).unwrap().last(), Some(&15));
}

#[test]
fn refusals_name_what_is_wrong() {
    let refusal = |text: &str| config(text).unwrap_err().to_string();
    insta::assert_snapshot!(
        refusal(r#"{"_class_name": "DDIMScheduler"}"#),
        @"scheduler_config.json: expected the config of CogVideoXDDIMScheduler or CogVideoXDPMScheduler, found DDIMScheduler"
    );
    insta::assert_snapshot!(
        refusal(r#"{"_class_name": "CogVideoXDDIMScheduler", "beta_schedule": "exp"}"#),
        @r#"scheduler_config.json: key "beta_schedule": "exp" is not supported; supported: linear, scaled_linear, squaredcos_cap_v2"#
    );
    insta::assert_snapshot!(
        refusal(r#"{"_class_name": "CogVideoXDDIMScheduler", "prediction_type": "flow"}"#),
        @r#"scheduler_config.json: key "prediction_type": "flow" is not supported; supported: epsilon, sample, v_prediction"#
    );
    insta::assert_snapshot!(
        refusal(r#"{"_class_name": "CogVideoXDDIMScheduler", "trained_betas": [0.1, 0.2]}"#),
        @r#"scheduler_config.json: key "trained_betas": [0.1,0.2] is not supported; supported: 1000 betas"#
    );
    insta::assert_snapshot!(
        refusal(r#"{"_class_name": "CogVideoXDDIMScheduler", "thresholding": true}"#),
        @r#"scheduler_config.json: unknown keys "thresholding"; CogVideoXDDIMScheduler of diffusers 0.42 has no such fields"#
    );
}

#[test]
fn illegal_step_counts_are_refused() {
    let text = r#"{"_class_name": "CogVideoXDDIMScheduler", "steps_offset": 1}"#;
    let refusal = |steps| config(text).unwrap().steps(steps).unwrap_err().to_string();
    insta::assert_snapshot!(refusal(0), @"number of inference steps 0 is not served: expected 1 to 1000");
    insta::assert_snapshot!(refusal(1001), @"number of inference steps 1001 is not served: expected 1 to 1000");
    insta::assert_snapshot!(refusal(1000), @"steps_offset 1 moves the first of 1000 steps to 1000, beyond the last training step 999; take fewer steps");
    let text = r#"{"_class_name": "CogVideoXDDIMScheduler", "rescale_betas_zero_snr": true,
        "timestep_spacing": "trailing"}"#;
    insta::assert_snapshot!(
        config(text).unwrap().steps(4).unwrap_err(),
        @"CogVideoXDDIMScheduler cannot step from time step 999 with prediction_type epsilon: the noise table has no signal or no noise there"
    );
}
