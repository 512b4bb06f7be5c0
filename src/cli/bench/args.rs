//! Flags of `terrace bench`.

use super::super::args::{Execution, Parallel, Precision, Size};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use terrace::Device;
use terrace::bench::Repeat;

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What is measured.
    #[command(subcommand)]
    pub what: What,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum What {
    /// One transformer forward; by default of one frame of the model's own size.
    Forward(Forward),
    /// One denoising step, scheduler update included; by default of one frame.
    Step(Step),
    /// Decoding latents to frames.
    Decode(Decode),
    /// One matrix product with a packed weight.
    Gemm(Gemm),
    /// One attention over a sequence.
    Attention(Attention),
}

/// Flags of `bench forward`.
#[derive(Debug, Args)]
pub struct Forward {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub blocks: Blocks,
    #[command(flatten)]
    pub size: Size,
    /// Videos.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    pub batch: usize,
    /// Safetensors file with the inputs of `terrace forward`, instead of noise.
    #[arg(long, value_name = "FILE", conflicts_with_all = SIZES, conflicts_with = "batch")]
    pub inputs: Option<PathBuf>,
    #[command(flatten)]
    pub parallel: Parallel,
    #[command(flatten)]
    pub precision: Precision,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub runs: Runs,
}

/// Flags of `bench step`.
#[derive(Debug, Args)]
pub struct Step {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub blocks: Blocks,
    #[command(flatten)]
    pub size: Size,
    /// Guidance scale; above 1 a step computes two predictions.
    #[arg(long, default_value_t = 6.0)]
    pub guidance_scale: f64,
    #[command(flatten)]
    pub parallel: Parallel,
    #[command(flatten)]
    pub precision: Precision,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub runs: Runs,
}

/// Flags of `bench decode`.
#[derive(Debug, Args)]
pub struct Decode {
    #[command(flatten)]
    pub source: Source,
    /// Latent frames.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub latent_frames: usize,
    /// Latent rows.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one())]
    pub latent_height: usize,
    /// Latent columns.
    #[arg(long, value_name = "N", default_value_t = 22, value_parser = at_least_one())]
    pub latent_width: usize,
    /// Safetensors file with `latents [b,f,c,h,w]`, instead of noise.
    #[arg(long, value_name = "FILE", conflicts_with_all = LATENT_SIZES)]
    pub latents: Option<PathBuf>,
    #[command(flatten)]
    pub precision: Precision,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub runs: Runs,
}

/// Flags of `bench gemm`; the defaults are the first product of a 2b feed-forward layer.
#[derive(Debug, Args)]
pub struct Gemm {
    /// Rows of the input.
    #[arg(long, value_name = "N", default_value_t = 1576, value_parser = at_least_one())]
    pub rows: usize,
    /// Columns of the input.
    #[arg(long, value_name = "N", default_value_t = 1920, value_parser = at_least_one())]
    pub k: usize,
    /// Columns of the result.
    #[arg(long, value_name = "N", default_value_t = 7680, value_parser = at_least_one())]
    pub n: usize,
    #[command(flatten)]
    pub precision: Precision,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub runs: Runs,
}

/// Flags of `bench attention`; the defaults are the heads of 2b.
#[derive(Debug, Args)]
pub struct Attention {
    /// Queries, and keys.
    #[arg(long, value_name = "N", default_value_t = 4276, value_parser = at_least_one())]
    pub tokens: usize,
    /// Heads.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one())]
    pub heads: usize,
    /// Channels of a head.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    pub head_dim: usize,
    #[command(flatten)]
    pub precision: Precision,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub runs: Runs,
}

/// Where config and weights come from.
#[derive(Debug, Args)]
pub struct Source {
    /// Config of a published checkpoint, its weights being noise.
    #[arg(long, value_name = "NAME", default_value = "2b")]
    pub preset: String,
    /// Checkpoint folder, instead of a preset.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    pub model: Option<PathBuf>,
}

/// How much of the transformer is measured.
#[derive(Debug, Args)]
pub struct Blocks {
    /// Transformer blocks [default: 2 of a preset, all of a checkpoint].
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub layers: Option<usize>,
}

/// How a kernel is run.
#[derive(Debug, Args)]
pub struct Machine {
    /// Where it runs: cpu, wgpu, wgpu:N or cuda:N; `terrace devices` shows what there is.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// Threads [default: the machine's cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
}

/// How often it is run.
#[derive(Clone, Copy, Debug, Args)]
pub struct Runs {
    /// Runs that are counted.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    pub runs: usize,
    /// Runs that are not counted, first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub warmup: usize,
}

const SIZES: [&str; 4] = ["num_frames", "height", "width", "max_sequence_length"];
const LATENT_SIZES: [&str; 3] = ["latent_frames", "latent_height", "latent_width"];

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

impl Bench {
    /// Whether programs read the answer.
    pub fn json(&self) -> bool {
        match &self.what {
            What::Forward(args) => args.execution.json,
            What::Step(args) => args.execution.json,
            What::Decode(args) => args.execution.json,
            What::Gemm(args) => args.machine.json,
            What::Attention(args) => args.machine.json,
        }
    }
}

impl Runs {
    /// As the measurement takes it.
    pub fn read(self) -> Repeat {
        Repeat {
            warmup: self.warmup,
            runs: self.runs,
        }
    }
}
