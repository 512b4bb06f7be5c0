//! The VAE decoder against diffusers.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/device.rs"]
mod device;
#[path = "common/graphs.rs"]
mod graphs;

use graphs::{case, demo, goldens, relative_error, run};
use std::path::Path;
use terrace::Device;
use terrace_models::config::ConfigFile;
use terrace_models::vae::{DecodeShape, VaeConfig, decoder};
use terrace_runtime::HostTensor;

/// Relative L2 error of the CPU against the reference.
const TOLERANCE: f64 = 1e-5;

/// The same where the reference was stored in half precision.
const HALF_TOLERANCE: f64 = 1e-3;

/// Decodes latents as the diffusion model leaves them.
fn decode(folder: &Path, latents: &HostTensor) -> HostTensor {
    let file = ConfigFile::read(&folder.join("config.json")).unwrap();
    let config = VaeConfig::from_config(file).unwrap();
    let [batch, frames, _, height, width] = *latents.shape() else {
        panic!("{:?}", latents.shape());
    };
    let shape = DecodeShape {
        batch,
        frames,
        height,
        width,
    };
    let graph = decoder(&config, &shape).unwrap();
    let mut values = latents.as_f32().unwrap().to_vec();
    config.unscale(&mut values);
    let latents = HostTensor::f32(latents.shape().to_vec(), values).unwrap();
    run(graph, folder, ("latents", &latents), "frames")
}

/// The last of the latents `[steps, f, c, h, w]`, as a batch of one.
fn last(latents: &HostTensor) -> HostTensor {
    let frame = &latents.shape()[1..];
    let size: usize = frame.iter().product();
    let values = latents.as_f32().unwrap();
    let shape = [&[1], frame].concat();
    HostTensor::f32(shape, values[values.len() - size..].to_vec()).unwrap()
}

/// `[1, c, f, h, w]` as `[1, f, c, h, w]`.
fn frames_first(video: &HostTensor) -> HostTensor {
    let [1, channels, frames, height, width] = *video.shape() else {
        panic!("{:?}", video.shape());
    };
    let size = height * width;
    let values = video.as_f32().unwrap();
    let mut turned = Vec::with_capacity(values.len());
    for frame in 0..frames {
        for channel in 0..channels {
            turned.extend_from_slice(&values[(channel * frames + frame) * size..][..size]);
        }
    }
    HostTensor::f32(vec![1, frames, channels, height, width], turned).unwrap()
}

fn check(name: &str, found: &HostTensor, expected: &HostTensor, tolerance: f64) {
    let error = relative_error(found, expected);
    assert!(error <= device::tolerance(tolerance), "{name}: {error:e}");
}

#[test]
fn random_decoders_follow_the_reference() {
    let cases = [
        ("vae-four-blocks", "frames-1"),
        ("vae-four-blocks", "frames-2"),
        ("vae-four-blocks", "frames-3"),
        ("vae-four-blocks", "frames-3-batch-2"),
        ("vae-four-blocks", "frames-5"),
        ("vae-three-blocks", "frames-4"),
        ("vae-three-blocks", "frames-7"),
    ];
    // Software that stands in for a GPU takes minutes for the longer ones.
    let cases = match device::device() {
        Device::Cpu => &cases[..],
        Device::Wgpu { .. } | Device::Cuda { .. } => &cases[..2],
    };
    for (folder, frames) in cases {
        let name = format!("{folder}/{frames}");
        let case = case(&name);
        let found = decode(&goldens().join(folder).join("vae"), &case["latents"]);
        check(&name, &found, &case["frames"], TOLERANCE);
    }
}

#[test]
fn the_demo_follows_the_reference() {
    if device::device() != Device::Cpu {
        // The pipeline of the shipped checkpoint is tested on every device as a whole.
        return;
    }
    let vae = demo().join("vae");
    let golden = case("demo/golden");
    let found = decode(&vae, &last(&golden["ddim_latents"]));
    let expected = frames_first(&golden["ddim_video"]);
    check("ddim", &found, &expected, HALF_TOLERANCE);
    let dynamic = case("demo/dynamic");
    let found = decode(&vae, &last(&dynamic["latents"]));
    check("dynamic", &found, &dynamic["frames"], HALF_TOLERANCE);
}
