//! What a generation is asked for, what it gives, and what it compiles.

use crate::request::{Activations, Granularity, Guidance, Part, Request, Solver};
use crate::{Degrees, Error, Extents, Model, Precision};
use terrace_models::folder::Component;
use terrace_models::scheduler::GuidanceMode;
use terrace_models::size::{LatentSize, VideoSize};
use terrace_plan::{Mesh, Plan};
use terrace_runtime::HostTensor;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// What the video shows.
    pub prompt: String,
    /// What it must not show.
    pub negative_prompt: String,
    /// Frames and pixels.
    pub size: VideoSize,
    /// Tokens that prompts are padded or cut to.
    pub text_length: usize,
    /// Scheduler, instead of the checkpoint's.
    pub solver: Option<Solver>,
    /// The denoising loop.
    pub sampling: Sampling,
    /// Ranks and degrees.
    pub degrees: Degrees,
    /// Where slices may be cut.
    pub granularity: Granularity,
    /// Element type of matrix products and convolutions.
    pub precision: Precision,
}

/// Settings of the denoising loop that no plan depends on, guidance being on or off excepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance; 1 or less turns it off.
    pub guidance_scale: f64,
    /// Whether the scale changes over the steps.
    pub guidance_mode: GuidanceMode,
    /// Seed of all noise.
    pub seed: u64,
    /// `[1, f, c, h, w]` to start from, instead of noise.
    pub latents: Option<HostTensor>,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Latents after the last step, padding included: `[1, f, c, h, w]`.
    pub latents: HostTensor,
    /// Frames in [-1, 1], not clamped: `[1, frames, 3, height, width]`.
    pub frames: HostTensor,
    /// Mesh of the denoising loop.
    pub mesh: Mesh,
}

/// The prompts of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Prompts<'a> {
    /// What the video shows.
    pub prompt: &'a str,
    /// What it must not show.
    pub negative: &'a str,
}

impl Default for Sampling {
    /// As the reference pipeline: 50 steps, guidance 6, seed 42.
    fn default() -> Self {
        Self {
            steps: 50,
            guidance_scale: 6.0,
            guidance_mode: GuidanceMode::Constant,
            seed: 42,
            latents: None,
        }
    }
}

impl GenerateRequest {
    /// A request with the defaults of the model and of the reference pipeline, on one rank.
    ///
    /// # Errors
    /// The model has no transformer, or its config is not served.
    pub fn new(model: &Model, prompt: &str) -> Result<Self, Error> {
        Ok(Self {
            prompt: prompt.to_owned(),
            negative_prompt: String::new(),
            size: model.native_size()?,
            text_length: model.transformer()?.max_text_seq_length,
            solver: None,
            sampling: Sampling::default(),
            degrees: Degrees::ONE,
            granularity: Granularity::default(),
            precision: Precision::default(),
        })
    }
}

/// What a generation compiles for its denoising step; needs the transformer's config alone.
///
/// # Errors
/// The size, a degree or the model is not served.
pub fn step_request(model: &Model, request: &GenerateRequest) -> Result<Request, Error> {
    model.check_text_to_video()?;
    let config = model.transformer()?;
    check_text_length(request.text_length)?;
    let latents = request.size.latents(&config, model.ratios()?)?;
    let guidance = Guidance::for_scale(request.sampling.guidance_scale);
    let solver = match request.solver {
        Some(solver) => solver,
        None => model.scheduler_kind()?.into(),
    };
    let extents = Extents {
        batch: guidance.predictions(),
        heads: config.num_attention_heads,
        text: request.text_length,
        grid: grid(
            &latents,
            config.patch_size_t.unwrap_or(1),
            config.patch_size,
        ),
        granularity: request.granularity.into(),
    };
    let VideoSize {
        frames,
        height,
        width,
    } = request.size;
    Ok(Request {
        part: Part::DenoiseStep {
            video: [frames, height, width],
            latents: [latents.frames, latents.height, latents.width],
            padding: latents.padding,
            text: request.text_length,
            guidance,
            solver,
        },
        config: model.config(Component::Transformer)?,
        mesh: request.degrees.mesh(&extents)?,
        granularity: request.granularity,
        precision: request.precision,
        activations: Activations::default(),
    })
}

/// The token grid of latents: frames, rows, columns.
fn grid(latents: &LatentSize, patch_frames: usize, patch: usize) -> [usize; 3] {
    [
        latents.frames / patch_frames.max(1),
        latents.height / patch.max(1),
        latents.width / patch.max(1),
    ]
}

/// The facts of a denoising step's plan: sizes are those of its ports, which its check has proved.
pub(crate) struct StepPart {
    /// `[1, f, c, h, w]`.
    pub(crate) latents: Vec<usize>,
    pub(crate) padding: usize,
    /// `[predictions, text, d]`.
    pub(crate) embeds: Vec<usize>,
    pub(crate) text: usize,
    pub(crate) guidance: Guidance,
    pub(crate) solver: Solver,
    pub(crate) precision: Precision,
}

impl StepPart {
    pub(crate) fn of(plan: &Plan) -> Result<Self, Error> {
        let not_a_step = || Error::NotAStep {
            found: plan.header.graph.clone(),
        };
        let shape = |name: &str| {
            let port = plan.inputs.iter().find(|port| port.name == name);
            port.map(|port| port.shape.clone()).ok_or_else(not_a_step)
        };
        let request = Request::of(plan)?;
        let Part::DenoiseStep {
            padding,
            guidance,
            solver,
            ..
        } = request.part
        else {
            return Err(not_a_step());
        };
        let (latents, embeds) = (shape("latents")?, shape("prompt_embeds")?);
        let fits = latents.len() == 5 && embeds.len() == 3 && padding < latents[1];
        if !fits || embeds[0] != guidance.predictions() {
            return Err(not_a_step());
        }
        Ok(Self {
            latents,
            padding,
            text: embeds[1],
            embeds,
            guidance,
            solver,
            precision: request.precision,
        })
    }
}

pub(crate) fn check_sampling(sampling: &Sampling) -> Result<(), Error> {
    if sampling.guidance_scale.is_finite() && sampling.guidance_scale >= 0.0 {
        return Ok(());
    }
    Err(Error::Number {
        what: "the guidance scale",
        expected: "a number of at least 0",
        found: sampling.guidance_scale.to_string(),
    })
}

pub(crate) fn check_text_length(length: usize) -> Result<(), Error> {
    if length > 0 {
        return Ok(());
    }
    Err(Error::Number {
        what: "the text length",
        expected: "at least 1",
        found: length.to_string(),
    })
}
