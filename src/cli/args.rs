//! Flags of the command line, grouped as the commands share them.
//!
//! Dashes and underscores are the same in flag names: [`normalise`] rewrites them before parsing.

pub use super::bench::args::Bench;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use terrace::Device;

/// Video diffusion on any number of devices: plans compiled ahead of time, the same video on every
/// number of ranks.
#[derive(Debug, Parser)]
#[command(name = "terrace", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate a video from a prompt.
    Generate(Generate),
    /// Compile the denoising step ahead of time into a plan file.
    Compile(Compile),
    /// Generate a video with a compiled plan.
    Run(Run),
    /// Show what a plan does: slices, heads, bytes, memory, steps, graphs.
    Inspect(Inspect),
    /// Prove a plan file sound without running it.
    Check(Check),
    /// Run one transformer forward on tensors from a file.
    Forward(Forward),
    /// Encode a prompt.
    #[command(alias = "encode_text")]
    EncodeText(EncodeText),
    /// Decode latents to frames.
    Decode(Decode),
    /// List what this machine can compute on.
    Devices(Devices),
    /// Measure a model part or a kernel on this machine.
    Bench(Bench),
}

/// Flags of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub prompt: Prompt,
    #[command(flatten)]
    pub size: Size,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Scheduler, instead of the checkpoint's.
    #[arg(long, value_enum)]
    pub scheduler: Option<Scheduler>,
    #[command(flatten)]
    pub parallel: Parallel,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub processes: Processes,
    #[command(flatten)]
    pub output: VideoOutput,
    #[command(flatten)]
    pub precision: Precision,
}

/// Flags of `compile`.
#[derive(Debug, Args)]
pub struct Compile {
    /// Checkpoint folder; `transformer/config.json` alone is enough [default: the demo checkpoint].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub size: Size,
    /// Guidance scale that the plan will run with; above 1 it computes two predictions per step.
    #[arg(long, default_value_t = 6.0)]
    pub guidance_scale: f64,
    /// Scheduler, instead of the checkpoint's.
    #[arg(long, value_enum)]
    pub scheduler: Option<Scheduler>,
    #[command(flatten)]
    pub parallel: Parallel,
    /// Where the plan will run: cpu, wgpu or cuda. GPUs compute in 16 bits between products as well, if --dtype
    /// does. It need not be on this machine.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// Plan file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub precision: Precision,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Plan file.
    pub plan: PathBuf,
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub prompt: Prompt,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub processes: Processes,
    #[command(flatten)]
    pub output: VideoOutput,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Plan file.
    pub plan: PathBuf,
    /// Show the steps of one rank.
    #[arg(long, value_name = "K")]
    pub rank: Option<usize>,
    /// Show the graph after this pass; `model` is the graph before the first.
    #[arg(long, value_name = "PASS", conflicts_with = "rank")]
    pub graph: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Plan file.
    pub plan: PathBuf,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `forward`.
#[derive(Debug, Args)]
pub struct Forward {
    /// Checkpoint folder, or its transformer folder [default: the demo checkpoint].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Safetensors file with `hidden_states [b,f,c,h,w]`, `encoder_hidden_states [b,txt,d]`,
    /// `timestep [b]` and, where the model has one, `ofs [b]`.
    #[arg(long, value_name = "FILE")]
    pub inputs: PathBuf,
    /// Safetensors file to write: `sample [b,f,c,h,w]`.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub parallel: Parallel,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub processes: Processes,
    #[command(flatten)]
    pub precision: Precision,
}

/// Flags of `encode-text`.
#[derive(Debug, Args)]
pub struct EncodeText {
    /// Checkpoint folder [default: the demo checkpoint].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Text to encode.
    #[arg(long)]
    pub prompt: String,
    /// Tokens that the prompt is padded or cut to [default: the transformer's text length].
    #[arg(long, value_name = "N")]
    pub max_sequence_length: Option<usize>,
    /// Safetensors file to write: `prompt_embeds [1,txt,d]`.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub precision: Precision,
}

/// Flags of `decode`.
#[derive(Debug, Args)]
pub struct Decode {
    /// Checkpoint folder, or its vae folder [default: the demo checkpoint].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Safetensors file with `latents [b,f,c,h,w]` as the scheduler leaves them.
    #[arg(long, value_name = "FILE")]
    pub latents: PathBuf,
    /// Safetensors file to write: `frames [b,f,3,H,W]` in [-1, 1].
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub execution: Execution,
    #[command(flatten)]
    pub precision: Precision,
}

/// Flags of `devices`.
#[derive(Debug, Args)]
pub struct Devices {
    /// One JSON object per line on standard output instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The checkpoint.
#[derive(Debug, Args)]
pub struct Model {
    /// Checkpoint folder in the diffusers layout [default: the demo checkpoint].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

/// What the video shows.
#[derive(Debug, Args)]
pub struct Prompt {
    /// What the video shows.
    #[arg(long)]
    pub prompt: String,
    /// What it must not show.
    #[arg(long, default_value = "")]
    pub negative_prompt: String,
}

/// Size of the video; defaults come from the checkpoint.
#[derive(Debug, Args)]
pub struct Size {
    /// Height in pixels.
    #[arg(long, value_name = "PX")]
    pub height: Option<usize>,
    /// Width in pixels.
    #[arg(long, value_name = "PX")]
    pub width: Option<usize>,
    /// Number of frames.
    #[arg(long, alias = "frames", value_name = "N")]
    pub num_frames: Option<usize>,
    /// Tokens that a prompt is padded or cut to.
    #[arg(long, alias = "text", value_name = "N")]
    pub max_sequence_length: Option<usize>,
}

/// The denoising loop.
#[derive(Debug, Args)]
pub struct Sampling {
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub num_inference_steps: usize,
    /// Strength of classifier-free guidance; 1 or less turns it off.
    #[arg(long, value_name = "G", default_value_t = 6.0)]
    pub guidance_scale: f64,
    /// Raise guidance from weak to strong over the steps.
    #[arg(long)]
    pub use_dynamic_cfg: bool,
    /// Seed of all noise.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Safetensors file with `latents [1,f,c,h,w]` to start from, instead of noise.
    #[arg(long, value_name = "FILE")]
    pub latents: Option<PathBuf>,
}

/// How the work is divided.
#[derive(Debug, Args)]
pub struct Parallel {
    /// Ranks in all; alone, it is split into degrees: cfg first, then with the least imbalance.
    #[arg(long, value_name = "N")]
    pub num_gpus: Option<usize>,
    /// Ranks that share the heads and a slice each.
    #[arg(long, value_name = "U")]
    pub ulysses_degree: Option<usize>,
    /// Ranks among which keys and values rotate.
    #[arg(long, value_name = "R")]
    pub ring_degree: Option<usize>,
    /// Ranks among which the guided and the unguided prediction are divided: 1 or 2.
    #[arg(long, value_name = "1|2")]
    pub cfg_degree: Option<usize>,
    /// Where slices of the latent height may be cut.
    #[arg(long, value_enum, default_value_t = SliceGranularity::Cell)]
    pub slice_granularity: SliceGranularity,
}

/// How the work is run.
#[derive(Debug, Args)]
pub struct Execution {
    /// Where the ranks run: cpu, wgpu, wgpu:N, cuda or cuda:N,..; `terrace devices` shows what there is.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// Threads per rank [default: the machine's cores divided by the ranks].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seconds without progress after which an exchange between ranks is given up.
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub timeout: u64,
    /// Write what every rank did when, for Perfetto or chrome://tracing.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// One JSON object per line on standard output instead of text.
    #[arg(long)]
    pub json: bool,
}

/// How processes come together that torchrun, mpirun or srun has started.
#[derive(Debug, Args)]
pub struct Processes {
    /// How ranks reach each other [default: local; among processes that a launcher has started, nccl with --device cuda
    /// and tcp otherwise].
    #[arg(long, value_enum)]
    pub fabric: Option<Fabric>,
}

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fabric {
    /// All ranks are threads of this process, whoever has started it.
    Local,
    /// One rank per process, through TCP.
    Tcp,
    /// One rank and one GPU per process, by NCCL.
    Nccl,
}

/// Where the video goes.
#[derive(Debug, Args)]
pub struct VideoOutput {
    /// Video to write; the extension chooses the format: mp4, gif or png.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Frames per second.
    #[arg(long, default_value_t = 8)]
    pub fps: u32,
    /// Also write the final `latents [1,f,c,h,w]` as safetensors.
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,
}

/// A scheduler of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scheduler {
    /// CogVideoXDDIMScheduler.
    Ddim,
    /// CogVideoXDPMScheduler.
    Dpm,
}

/// Where slices may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SliceGranularity {
    /// At rows of the token grid.
    Row,
    /// At any cell of the token grid.
    Cell,
}

/// Element type of matrix products and convolutions.
#[derive(Debug, Args)]
pub struct Precision {
    /// Element type of matrix products and convolutions; sums are f32.
    #[arg(long, value_enum, default_value_t = DType::F32)]
    pub dtype: DType,
}

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DType {
    /// Single precision.
    F32,
    /// IEEE half precision, on GPUs.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Integers of 8 bits in the transformer's blocks, bf16 elsewhere.
    #[value(alias = "i8")]
    Int8,
    /// FP8 (E4M3) in the transformer's blocks, bf16 elsewhere; saves time on GPUs of NVIDIA only.
    #[value(alias = "f8e4m3")]
    Fp8,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables.
    Text,
    /// JSON.
    Json,
    /// Graphviz.
    Dot,
}

/// Rewrites underscores in flag names to dashes, up to a bare `--`.
pub fn normalise(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut open = true;
    args.map(|arg| {
        open &= arg != "--";
        match arg.to_str() {
            Some(text) if open && text.starts_with("--") => {
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (text, None),
                };
                let name = name.replace('_', "-");
                value
                    .map_or(name.clone(), |value| format!("{name}={value}"))
                    .into()
            }
            _ => arg,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn underscores_in_flag_names_are_dashes() {
        let args = [
            "terrace",
            "--num_gpus=4",
            "--prompt",
            "a_b",
            "--x_y=c_d",
            "--",
            "--p_q",
        ];
        let args = normalise(args.iter().map(OsString::from));
        let expected = [
            "terrace",
            "--num-gpus=4",
            "--prompt",
            "a_b",
            "--x-y=c_d",
            "--",
            "--p_q",
        ];
        assert_eq!(args, expected.map(OsString::from));
    }
}
