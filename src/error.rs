//! The error of the facade: what the user asked for that cannot be done, or what a part refused.

use crate::{Device, Fabric};
use std::path::PathBuf;
use terrace_compiler::CompileError;
use terrace_models::ModelError;
use terrace_plan::{DType, Mesh, PlanError};
use terrace_runtime::RuntimeError;
use thiserror::Error;

/// Why a request cannot be served.
#[derive(Debug, Error)]
pub enum Error {
    /// A checkpoint or size is not served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A graph cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A plan cannot be read, written, trusted or used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A kernel refused its arguments.
    #[error(transparent)]
    Kernel(#[from] terrace_kernels::KernelError),
    /// A video cannot be written.
    #[error(transparent)]
    Video(#[from] crate::video::VideoError),
    /// A device has another name.
    #[error(
        "there is no device `{found}`; devices are cpu, wgpu, wgpu:N, cuda and cuda:N,.., N being \
         a number that `terrace devices` shows"
    )]
    NoDevice {
        /// Name given.
        found: String,
    },
    /// The program was built without the backend of a device.
    #[error(
        "device {device} needs a program built with `--features {feature}`, this one is not; build \
         it with `cargo build --release --features {feature}`, or use --device cpu"
    )]
    NotBuilt {
        /// The device.
        device: Device,
        /// Cargo feature that it needs.
        feature: &'static str,
    },
    /// Ranks on a device cannot use a fabric.
    #[error("--fabric {fabric} is for --device cuda, found --device {device}; use --fabric tcp")]
    FabricDevice {
        /// The fabric.
        fabric: Fabric,
        /// The device.
        device: Device,
    },
    /// Another number of ranks is asked for than processes were started.
    #[error(
        "{ranks} ranks are asked for, but {processes} processes were started, one per rank; start {ranks}, ask for \
         {processes}, or leave the number out"
    )]
    Processes {
        /// Ranks asked for.
        ranks: usize,
        /// Processes.
        processes: usize,
    },
    /// A degree or number of ranks is zero.
    #[error("degrees and numbers of ranks begin at 1, found 0")]
    ZeroDegree,
    /// Degrees do not multiply to the number of ranks.
    #[error(
        "degrees {mesh} make {product} ranks, but {ranks} ranks are asked for; give degrees whose \
         product is {ranks}, or the number of ranks alone"
    )]
    Product {
        /// The degrees.
        mesh: Mesh,
        /// Their product.
        product: usize,
        /// Ranks asked for.
        ranks: usize,
    },
    /// A degree is higher than what there is to cut.
    #[error(
        "{axis} degree {degree} cannot be served: there are {available} {what}; use {axis} degree \
         {available} or less"
    )]
    Degree {
        /// Mesh axis.
        axis: &'static str,
        /// Degree asked for.
        degree: usize,
        /// How many things there are to cut.
        available: usize,
        /// What they are.
        what: &'static str,
    },
    /// No split of the ranks is legal.
    #[error(
        "{ranks} ranks cannot be served: {batch} predictions per step (cfg) x {units} {unit} \
         (ring x ulysses) are all there is to cut; use {nearest} ranks"
    )]
    Ranks {
        /// Ranks asked for.
        ranks: usize,
        /// The nearest legal number below.
        nearest: usize,
        /// Rows or cells of the token grid.
        units: usize,
        /// What the units are.
        unit: &'static str,
        /// Predictions per step.
        batch: usize,
    },
    /// A number of a request is outside its range.
    #[error("{what} must be {expected}, found {found}")]
    Number {
        /// Name of the number.
        what: &'static str,
        /// Legal values.
        expected: &'static str,
        /// Value given.
        found: String,
    },
    /// The header of a plan holds no request of this version.
    #[error(
        "the plan's request cannot be read: {source}; compile the plan again with this program"
    )]
    Request {
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A plan computes another part of the model.
    #[error(
        "expected a plan of a denoising step, found one of {found}; make one with `terrace compile`"
    )]
    NotAStep {
        /// Graph of the plan.
        found: String,
    },
    /// Guidance is asked for from a plan without it, or the other way round.
    #[error(
        "guidance scale {scale} needs {needed} predictions per step, the plan computes {planned}; \
         compile a plan with --guidance-scale {scale}"
    )]
    PlanGuidance {
        /// Scale asked for.
        scale: f64,
        /// Predictions that it needs.
        needed: usize,
        /// Predictions of the plan.
        planned: usize,
    },
    /// A plan was made for devices that compute in another type.
    #[error(
        "the plan has activations in {found}, which device {device} does not take; compile it with --device \
         {device}, or run it on the GPU that it was compiled for"
    )]
    PlanActivations {
        /// The device.
        device: Device,
        /// Element type of activations in the plan.
        found: DType,
    },
    /// A file lacks a tensor.
    #[error("{}: no tensor `{tensor}` {shape}; found {found}", file.display())]
    NoTensor {
        /// The file.
        file: PathBuf,
        /// Name of the tensor.
        tensor: &'static str,
        /// Its dimensions.
        shape: &'static str,
        /// Tensors of the file.
        found: String,
    },
    /// A tensor has another shape.
    #[error("tensor `{tensor}`: expected {expected}, found shape {found:?}")]
    TensorShape {
        /// Name of the tensor.
        tensor: &'static str,
        /// Legal shapes.
        expected: String,
        /// Shape given.
        found: Vec<usize>,
    },
    /// The `ofs` of the inputs is not that of the model.
    #[error("the model takes {expected} `ofs [b]`, found {found}")]
    Ofs {
        /// What the model takes.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// There is no such preset.
    #[error("there is no preset `{preset}`; presets are {presets}")]
    NoPreset {
        /// Name given.
        preset: String,
        /// All names.
        presets: String,
    },
    /// There is no such pass.
    #[error("there is no pass `{pass}`; passes are {passes}")]
    NoPass {
        /// Name given.
        pass: String,
        /// All names.
        passes: String,
    },
    /// An answer has no such form.
    #[error("{what} has no form {format}; use {expected}")]
    NoForm {
        /// What was asked for.
        what: &'static str,
        /// Form asked for.
        format: &'static str,
        /// Forms that exist.
        expected: &'static str,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
