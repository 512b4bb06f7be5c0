//! Legal sizes, their latents, and the whole message of illegal ones.

#![allow(clippy::unwrap_used)]

mod common;

use common::config;
use terrace_models::size::{LatentSize, VaeRatios, VideoSize};
use terrace_models::transformer::{ForwardShape, Guidance, Solver, StepShape};
use terrace_models::transformer::{denoise_step, forward};

const VAE: VaeRatios = VaeRatios { space: 8, time: 4 };

fn video(frames: usize, height: usize, width: usize) -> VideoSize {
    VideoSize {
        frames,
        height,
        width,
    }
}

fn refused(model: &str, size: VideoSize) -> String {
    let result = size.latents(&config(model), VAE);
    result.expect_err("refused").to_string()
}

#[test]
fn native_sizes_have_the_latents_of_the_reference() {
    for (model, size, frames, padding, height, width, tokens) in [
        ("2b", video(49, 480, 720), 13, 0, 60, 90, 17_550),
        ("5b", video(49, 480, 720), 13, 0, 60, 90, 17_550),
        ("1.5-5b", video(81, 768, 1360), 22, 1, 96, 170, 44_880),
    ] {
        let config = config(model);
        assert_eq!(VideoSize::native(&config, VAE), size);
        let latents = size.latents(&config, VAE).unwrap();
        let expected = LatentSize {
            frames,
            padding,
            height,
            width,
        };
        assert_eq!(latents, expected);
        assert_eq!(latents.tokens(&config), tokens);
    }
}

#[test]
fn one_frame_is_a_video() {
    let latents = video(1, 480, 720).latents(&config("5b"), VAE).unwrap();
    assert_eq!((latents.frames, latents.padding), (1, 0));
    let latents = video(1, 768, 1360).latents(&config("1.5-5b"), VAE).unwrap();
    assert_eq!((latents.frames, latents.padding), (2, 1));
}

#[test]
fn illegal_sizes_name_the_nearest_legal_ones() {
    for (model, size, expected) in [
        (
            "5b",
            video(50, 480, 720),
            "number of frames 50 is not served: expected 8N + 1; nearest: 49 or 57",
        ),
        (
            "5b",
            video(48, 480, 720),
            "number of frames 48 is not served: expected 8N + 1; nearest: 41 or 49",
        ),
        (
            "5b",
            video(0, 480, 720),
            "number of frames 0 is not served: expected 8N + 1; nearest: 1",
        ),
        (
            "1.5-5b",
            video(73, 768, 1360),
            "number of frames 73 is not served: expected 16N + 1; nearest: 65 or 81",
        ),
        (
            "5b",
            video(49, 490, 720),
            "height 490 is not served: expected a multiple of 16; nearest: 480 or 496",
        ),
        (
            "5b",
            video(49, 480, 7),
            "width 7 is not served: expected a multiple of 16; nearest: 16",
        ),
        (
            "5b",
            video(49, 0, 720),
            "height 0 is not served: expected a multiple of 16; nearest: 16",
        ),
        (
            "5b",
            video(49, usize::MAX, 720),
            "height 18446744073709551615 is not served: expected a multiple of 16; nearest: 18446744073709551600",
        ),
    ] {
        assert_eq!(refused(model, size), expected);
    }
}

fn forward_refused(model: &str, shape: ForwardShape) -> String {
    let result = forward(&config(model), &shape);
    result.expect_err("refused").to_string()
}

const NATIVE: ForwardShape = ForwardShape {
    batch: 1,
    frames: 13,
    height: 60,
    width: 90,
    text: 226,
};

/// A model, a shape of its forward, and the refusal.
const REFUSED_FORWARDS: &[(&str, ForwardShape, &str)] = &[
    (
        "5b",
        ForwardShape { batch: 0, ..NATIVE },
        "batch 0 is not served: expected 1 to 1024",
    ),
    (
        "5b",
        ForwardShape {
            height: 61,
            ..NATIVE
        },
        "latent height 61 is not served: expected a multiple of the patch size 2, e.g. 60 or 62",
    ),
    (
        "5b",
        ForwardShape { width: 1, ..NATIVE },
        "latent width 1 is not served: expected a multiple of the patch size 2, e.g. 2",
    ),
    (
        "5b",
        ForwardShape {
            frames: usize::MAX,
            ..NATIVE
        },
        "latent frames 18446744073709551615 is not served: expected 1 to 1048576",
    ),
    (
        "5b",
        ForwardShape {
            frames: 1 << 20,
            height: 1 << 20,
            width: 1 << 20,
            ..NATIVE
        },
        "number of tokens 288230376151711970 is not served: expected 1 to 16777216",
    ),
    (
        "2b",
        ForwardShape { text: 77, ..NATIVE },
        "number of text rows 77 is not served: expected max_text_seq_length 226",
    ),
    (
        "5b-i2v",
        ForwardShape {
            height: 58,
            ..NATIVE
        },
        "latent height 58 is not served: expected 60, because positions are stored for this size alone",
    ),
    (
        "1.5-5b",
        NATIVE,
        "latent frames 13 is not served: expected a multiple of the patch size 2, e.g. 12 or 14",
    ),
    (
        "1.5-5b",
        ForwardShape {
            frames: 14,
            height: 98,
            ..NATIVE
        },
        "latent height 98 is not served: expected at most 96, because positions are those of the native grid",
    ),
];

#[test]
fn forwards_refuse_sizes_without_patches_or_positions() {
    for &(model, shape, expected) in REFUSED_FORWARDS {
        assert_eq!(forward_refused(model, shape), expected);
    }
}

#[test]
fn steps_need_a_pipeline_for_further_channels() {
    let shape = StepShape {
        frames: 13,
        height: 60,
        width: 90,
        text: 226,
        guidance: Guidance::ClassifierFree,
        solver: Solver::Ddim,
    };
    let error = denoise_step(&config("5b-i2v"), &shape).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the transformer takes 32 channels and predicts 16: its pipeline is \
         CogVideoXImageToVideoPipeline, which is not served yet; a single forward is"
    );
}
