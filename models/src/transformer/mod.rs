//! The video transformer, `CogVideoXTransformer3DModel`, as graphs: one forward, and one whole
//! denoising step.
//!
//! A denoising step holds guidance and the scheduler's update too, so latents never leave the
//! ranks between steps: the outputs `latents` and `previous` carry to the inputs of these names.
//! Latents of an odd length in time are padded by the pipeline where patches span frames; here
//! they are refused.

mod config;
mod grid;
mod lower;
mod positions;

pub use config::TransformerConfig;
pub use terrace_compiler::ops::Guidance;

use crate::ModelError;
use crate::builder::Builder;
use grid::{Grid, Latents};
use lower::Operands;
use terrace_compiler::ir::Type;
use terrace_compiler::ir::{Dim, Graph, NodeId};
use terrace_compiler::ops::{Denoise, Noise, Op, Presence, Repeat, Sources};
use terrace_plan::DType;

/// Numbers of a scheduler's step: the guidance scale, then `c0..c5`.
const COEFFICIENTS: usize = 7;

/// Sizes of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardShape {
    /// Videos.
    pub batch: usize,
    /// Latent frames.
    pub frames: usize,
    /// Latent rows.
    pub height: usize,
    /// Latent columns.
    pub width: usize,
    /// Text rows.
    pub text: usize,
}

/// Sizes and kind of a denoising step of one video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepShape {
    /// Latent frames, padding included.
    pub frames: usize,
    /// Latent rows.
    pub height: usize,
    /// Latent columns.
    pub width: usize,
    /// Text rows.
    pub text: usize,
    /// Whether an unconditional prediction is made too.
    pub guidance: Guidance,
    /// The scheduler's update.
    pub solver: Solver,
}

/// The scheduler whose update ends a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// `CogVideoXDDIMScheduler`: latents and prediction alone.
    Ddim,
    /// `CogVideoXDPMScheduler`: also the prediction of the step before, and noise.
    Dpm(NoiseSource),
}

/// Where the noise of a step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseSource {
    /// Made on the ranks from the input `key [4]`, by position in `[1, f, c, h, w]`.
    Generated,
    /// The input `noise [1, f, c, h, w]`.
    Given,
}

/// One forward of the transformer, as the reference's class is called.
///
/// Inputs: `hidden_states [b, f, c, h, w]`, `encoder_hidden_states [b, txt, d]`, `timestep [b]`,
/// and `ofs [b]` where the config has `ofs_embed_dim`; all f32. Output: `sample`, shaped as
/// `hidden_states` with the config's `out_channels`.
///
/// # Errors
/// The model has no positions or no patches for these sizes.
pub fn forward(config: &TransformerConfig, shape: &ForwardShape) -> Result<Graph, ModelError> {
    let grid = Grid::new(
        config,
        Latents {
            batch: shape.batch,
            frames: shape.frames,
            height: shape.height,
            width: shape.width,
            text: shape.text,
        },
    )?;
    let mut builder = Builder::new("transformer");
    let b = &mut builder;
    let channels = config.in_channels;
    let operands = Operands {
        video: b.input("hidden_states", grid.tokens(channels), grid.host(channels))?,
        text: text_input(b, config, &grid, "encoder_hidden_states")?,
        timestep: scalar_input(b, "timestep", grid.b())?,
        ofs: ofs_input(b, config, grid.b())?,
    };
    let sample = lower::lower(b, config, &grid, &operands)?;
    b.output("sample", grid.host(config.out_channels), sample)?;
    Ok(builder.finish())
}

/// One step of the denoising loop: prediction, guidance and the scheduler's update.
///
/// Inputs: `latents [1, f, c, h, w]`; `prompt_embeds [b, txt, d]`, the negative prompt first where
/// `b` is 2 for guidance; `timestep [1]`; `coefficients [7]`, the guidance scale and `c0..c5` of
/// `x0 = c0 * latents + c1 * v` and
/// `latents' = c2 * latents + c3 * x0 + c4 * previous + c5 * noise`; `ofs [1]` where the config has
/// `ofs_embed_dim`; with [`Solver::Dpm`] also `previous` and the noise or its `key`. Outputs:
/// `latents`, and with [`Solver::Dpm`] `previous`, which is `x0`.
///
/// # Errors
/// As [`forward`]; a transformer that takes more channels than it predicts needs a pipeline that
/// fills them, which does not exist yet.
pub fn denoise_step(config: &TransformerConfig, shape: &StepShape) -> Result<Graph, ModelError> {
    if config.in_channels != config.out_channels {
        return Err(ModelError::MissingPipeline {
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            pipeline: "CogVideoXImageToVideoPipeline",
        });
    }
    let video = Grid::new(
        config,
        Latents {
            batch: 1,
            frames: shape.frames,
            height: shape.height,
            width: shape.width,
            text: shape.text,
        },
    )?;
    let mut b = Builder::new("denoise-step");
    lower_step(&mut b, config, shape, &video)?;
    Ok(b.finish())
}

fn lower_step(
    b: &mut Builder,
    config: &TransformerConfig,
    shape: &StepShape,
    video: &Grid,
) -> Result<(), ModelError> {
    let batch = match shape.guidance {
        Guidance::None => 1,
        Guidance::ClassifierFree => 2,
    };
    let grid = video.with_batch(batch);
    let latents = latent_input(b, config, video, "latents")?;
    let text = text_input(b, config, &grid, "prompt_embeds")?;
    let timestep = scalar_input(b, "timestep", video.b())?;
    let coefficients = vector_input(b, "coefficients", DType::F32, Dim::new("k", COEFFICIENTS))?;
    let ofs = ofs_input(b, config, video.b())?;
    let operands = Operands {
        video: repeat(b, latents, batch, "latents")?,
        text,
        timestep: repeat(b, timestep, batch, "timestep")?,
        ofs: ofs.map(|ofs| repeat(b, ofs, batch, "ofs")).transpose()?,
    };
    let predicted = lower::lower(b, config, &grid, &operands)?;
    let denoise = Op::Denoise(Denoise {
        guidance: shape.guidance,
    });
    let x0 = b.add(denoise, &[predicted, latents, coefficients], "guidance")?;
    advance(b, config, shape.solver, video, [latents, x0, coefficients])
}

/// The scheduler's update and the outputs.
fn advance(
    b: &mut Builder,
    config: &TransformerConfig,
    solver: Solver,
    video: &Grid,
    operands: [NodeId; 3],
) -> Result<(), ModelError> {
    let host = video.host(config.out_channels);
    let [_, x0, _] = operands;
    let mut operands = operands.to_vec();
    let presence = match solver {
        Solver::Ddim => Presence::Absent,
        Solver::Dpm(source) => {
            operands.push(latent_input(b, config, video, "previous")?);
            operands.push(noise(b, config, video, source)?);
            Presence::Present
        }
    };
    let sources = Sources {
        previous: presence,
        noise: presence,
    };
    let next = b.add(Op::Advance(sources), &operands, "scheduler")?;
    b.output("latents", host.clone(), next)?;
    match solver {
        Solver::Ddim => Ok(()),
        Solver::Dpm(_) => b.output("previous", host, x0),
    }
}

fn noise(
    b: &mut Builder,
    config: &TransformerConfig,
    video: &Grid,
    source: NoiseSource,
) -> Result<NodeId, ModelError> {
    match source {
        NoiseSource::Given => latent_input(b, config, video, "noise"),
        NoiseSource::Generated => {
            let key = vector_input(b, "key", DType::U32, Dim::new("k", 4))?;
            let op = Op::Noise(Noise {
                ty: Type::f32(video.tokens(config.out_channels)),
                host: video.host(config.out_channels),
            });
            b.add(op, &[key], "noise")
        }
    }
}

fn latent_input(
    b: &mut Builder,
    config: &TransformerConfig,
    video: &Grid,
    name: &str,
) -> Result<NodeId, ModelError> {
    let channels = config.out_channels;
    b.input(name, video.tokens(channels), video.host(channels))
}

fn text_input(
    b: &mut Builder,
    config: &TransformerConfig,
    grid: &Grid,
    name: &str,
) -> Result<NodeId, ModelError> {
    let dims = vec![grid.b(), grid.txt(), Dim::new("e", config.text_embed_dim)];
    b.input(name, dims.clone(), dims)
}

fn ofs_input(
    b: &mut Builder,
    config: &TransformerConfig,
    batch: Dim,
) -> Result<Option<NodeId>, ModelError> {
    config
        .ofs_embed_dim
        .map(|_| scalar_input(b, "ofs", batch))
        .transpose()
}

/// A number per batch item.
fn scalar_input(b: &mut Builder, name: &str, batch: Dim) -> Result<NodeId, ModelError> {
    vector_input(b, name, DType::F32, batch)
}

fn vector_input(b: &mut Builder, name: &str, dtype: DType, dim: Dim) -> Result<NodeId, ModelError> {
    let ty = Type::new(dtype, vec![dim.clone()]);
    b.typed_input(name, ty, vec![dim])
}

/// The same value for every prediction of a guided step.
fn repeat(b: &mut Builder, x: NodeId, batch: usize, path: &str) -> Result<NodeId, ModelError> {
    if batch == 1 {
        return Ok(x);
    }
    let op = Op::Repeat(Repeat {
        factor: "b".into(),
        count: batch,
    });
    b.add(op, &[x], path)
}
