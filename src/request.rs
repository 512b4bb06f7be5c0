//! What a plan is compiled from: one model part, its config, the sizes, the cut.
//!
//! A request is plain data and written into the header of its plan as canonical JSON, so that a plan
//! can be compiled again, shown pass by pass, and told apart from the plan of another model.

use crate::{Device, Error, Precision};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt;
use terrace_compiler::ir::Graph;
use terrace_compiler::passes::pipeline;
use terrace_compiler::{CompileOptions, Provenance, SliceGranularity};
use terrace_models::config::ConfigFile;
use terrace_models::folder::Component;
use terrace_models::scheduler::SchedulerKind;
use terrace_models::text_encoder::{TextEncoderConfig, TextShape, text_encoder};
use terrace_models::transformer::{self, ForwardShape, NoiseSource, StepShape, TransformerConfig};
use terrace_models::vae::{DecodeShape, VaeConfig, decoder};
use terrace_plan::{DType, Fingerprint, Mesh, Plan};

/// Name and version of the kernel set that plans are compiled for.
const KERNELS: &str = concat!("terrace-kernels ", env!("CARGO_PKG_VERSION"));

/// Name and version of this program.
const PRODUCER: &str = concat!("terrace ", env!("CARGO_PKG_VERSION"));

/// A model part at one size, and how it is cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The part and its size.
    pub part: Part,
    /// The part's `config.json`.
    pub config: Value,
    /// Sizes of the mesh axes.
    pub mesh: Mesh,
    /// Where slices may be cut.
    pub granularity: Granularity,
    /// Element type of matrix products and convolutions.
    pub precision: Precision,
    /// Element type of everything between them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activations: Activations,
}

/// Element type of the tensors between matrix products and convolutions. What callers give and get,
/// positions, times and what the scheduler computes are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activations {
    /// Single precision.
    #[default]
    F32,
    /// That of the products where they are in 16 bits, bf16 where they are in FP8, single precision elsewhere.
    OfProducts,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What of the model is computed, at which size. Sizes of latents are frames, rows, columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// One transformer forward.
    Forward {
        /// Videos.
        batch: usize,
        /// Size of the latents.
        latents: [usize; 3],
        /// Text tokens.
        text: usize,
    },
    /// One denoising step: transformer, guidance, scheduler update.
    DenoiseStep {
        /// Frames, height and width of the video in pixels.
        video: [usize; 3],
        /// Size of the latents, padding included.
        latents: [usize; 3],
        /// Leading latent frames that are dropped before decoding.
        padding: usize,
        /// Text tokens.
        text: usize,
        /// Predictions per step.
        guidance: Guidance,
        /// Update of the latents.
        solver: Solver,
    },
    /// The text encoder.
    TextEncoder {
        /// Prompts.
        batch: usize,
        /// Tokens of each.
        text: usize,
    },
    /// The VAE decoder.
    Decoder {
        /// Videos.
        batch: usize,
        /// Size of the latents.
        latents: [usize; 3],
    },
}

/// Whether a step makes an unconditional prediction too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guidance {
    /// One prediction.
    None,
    /// Two predictions: unconditional, then conditional.
    ClassifierFree,
}

/// The scheduler whose update ends a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// `CogVideoXDDIMScheduler`.
    Ddim,
    /// `CogVideoXDPMScheduler`.
    Dpm,
}

impl Part {
    /// The component that holds the part's weights.
    pub const fn component(&self) -> Component {
        match self {
            Self::Forward { .. } | Self::DenoiseStep { .. } => Component::Transformer,
            Self::TextEncoder { .. } => Component::TextEncoder,
            Self::Decoder { .. } => Component::Vae,
        }
    }
}

impl Guidance {
    /// The predictions that a guidance scale needs, as in the reference: above 1 it guides.
    pub fn for_scale(scale: f64) -> Self {
        if scale > 1.0 {
            Self::ClassifierFree
        } else {
            Self::None
        }
    }

    /// Predictions per step.
    pub const fn predictions(self) -> usize {
        match self {
            Self::None => 1,
            Self::ClassifierFree => 2,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |[t, h, w]: [usize; 3]| format!("{t}x{h}x{w}");
        match *self {
            Self::Forward {
                batch,
                latents,
                text,
            } => {
                write!(f, "latents {} text={text} batch={batch}", size(latents))
            }
            Self::DenoiseStep {
                video,
                text,
                guidance,
                ..
            } => {
                let batch = guidance.predictions();
                write!(f, "{} text={text} batch={batch}", size(video))
            }
            Self::TextEncoder { batch, text } => write!(f, "text={text} batch={batch}"),
            Self::Decoder { batch, latents } => {
                write!(f, "latents {} batch={batch}", size(latents))
            }
        }
    }
}

/// Where slices of the latent height may be cut; see [`SliceGranularity`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// At rows of the token grid only.
    Row,
    /// At any cell of the token grid.
    #[default]
    Cell,
}

impl From<Granularity> for SliceGranularity {
    fn from(granularity: Granularity) -> Self {
        match granularity {
            Granularity::Row => Self::Row,
            Granularity::Cell => Self::Cell,
        }
    }
}

impl From<Guidance> for transformer::Guidance {
    fn from(guidance: Guidance) -> Self {
        match guidance {
            Guidance::None => Self::None,
            Guidance::ClassifierFree => Self::ClassifierFree,
        }
    }
}

impl From<Solver> for transformer::Solver {
    fn from(solver: Solver) -> Self {
        match solver {
            Solver::Ddim => Self::Ddim,
            Solver::Dpm => Self::Dpm(NoiseSource::Generated),
        }
    }
}

impl From<Solver> for SchedulerKind {
    fn from(solver: Solver) -> Self {
        match solver {
            Solver::Ddim => Self::Ddim,
            Solver::Dpm => Self::Dpm,
        }
    }
}

impl From<SchedulerKind> for Solver {
    fn from(kind: SchedulerKind) -> Self {
        match kind {
            SchedulerKind::Ddim => Self::Ddim,
            SchedulerKind::Dpm => Self::Dpm,
        }
    }
}

impl Request {
    /// The request behind a plan.
    ///
    /// # Errors
    /// The header holds no request that this version knows.
    pub fn of(plan: &Plan) -> Result<Self, Error> {
        serde_json::from_str(&plan.header.request).map_err(|source| Error::Request { source })
    }

    /// The Model-stage graph.
    ///
    /// # Errors
    /// The config or the size is not served.
    pub fn graph(&self) -> Result<Graph, Error> {
        let file = ConfigFile::parse("the model's config", &self.config.to_string())?;
        let graph = match self.part {
            Part::Forward {
                batch,
                latents,
                text,
            } => {
                let [frames, height, width] = latents;
                let shape = ForwardShape {
                    batch,
                    frames,
                    height,
                    width,
                    text,
                };
                transformer::forward(&TransformerConfig::from_config(file)?, &shape)?
            }
            Part::DenoiseStep {
                latents,
                text,
                guidance,
                solver,
                ..
            } => {
                let [frames, height, width] = latents;
                let shape = StepShape {
                    frames,
                    height,
                    width,
                    text,
                    guidance: guidance.into(),
                    solver: solver.into(),
                };
                transformer::denoise_step(&TransformerConfig::from_config(file)?, &shape)?
            }
            Part::TextEncoder { batch, text } => {
                let shape = TextShape {
                    batch,
                    length: text,
                };
                text_encoder(&TextEncoderConfig::from_config(file)?, &shape)?
            }
            Part::Decoder { batch, latents } => {
                let [frames, height, width] = latents;
                let shape = DecodeShape {
                    batch,
                    frames,
                    height,
                    width,
                };
                decoder(&VaeConfig::from_config(file)?, &shape)?
            }
        };
        Ok(graph)
    }

    /// Compiles the request; `observe` is shown the graph after every pass.
    ///
    /// # Errors
    /// The config, the size or the cut is not served.
    pub fn compile_observed(
        &self,
        observe: &mut dyn FnMut(&'static str, &Graph),
    ) -> Result<Plan, Error> {
        let options = CompileOptions {
            mesh: self.mesh,
            granularity: self.granularity.into(),
            dtype: self.precision.into(),
            activations: self.between_products(),
        };
        let provenance = Provenance {
            producer: PRODUCER.to_owned(),
            fingerprint: self.fingerprint(),
            request: self.canonical(),
        };
        let graph = self.graph()?;
        Ok(terrace_compiler::compile(
            graph,
            &options,
            &provenance,
            observe,
        )?)
    }

    /// The request as `device` runs it: where its kernels take activations in 16 bits, they have the type
    /// of the products.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        let activations = match device {
            Device::Cpu => Activations::F32,
            Device::Wgpu { .. } | Device::Cuda { .. } => Activations::OfProducts,
        };
        Self {
            activations,
            ..self
        }
    }

    fn between_products(&self) -> DType {
        match (self.activations, self.precision, &self.part) {
            // Those of the text encoder leave the range of f16.
            (Activations::F32, _, _)
            | (Activations::OfProducts, Precision::F16, Part::TextEncoder { .. }) => DType::F32,
            (Activations::OfProducts, precision, _) => precision.between_products(),
        }
    }

    /// Compiles the request.
    ///
    /// # Errors
    /// As for [`Request::compile_observed`].
    pub fn compile(&self) -> Result<Plan, Error> {
        self.compile_observed(&mut |_, _| {})
    }

    /// The graph after a pass; `model` is the graph before the first.
    ///
    /// # Errors
    /// There is no such pass, or as for [`Request::compile_observed`].
    pub fn graph_after(&self, pass: &str) -> Result<Graph, Error> {
        const BEFORE: &str = "model";
        if pass == BEFORE {
            return self.graph();
        }
        let mut found = None;
        self.compile_observed(&mut |name, graph| {
            if name == pass {
                found = Some(graph.clone());
            }
        })?;
        found.ok_or_else(|| Error::NoPass {
            pass: pass.to_owned(),
            passes: [BEFORE]
                .into_iter()
                .chain(pipeline::names())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// What a plan of this request fits.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            model: model_fingerprint(&self.config),
            shape: self.part.to_string(),
            dtype: self.precision.into(),
            mesh: self.mesh.to_string(),
            kernels: KERNELS.to_owned(),
        }
    }

    /// One text per request: fields in the order of their types, keys of the config sorted.
    fn canonical(&self) -> String {
        serde_json::to_string(self).expect("a request is plain data whose keys are strings")
    }
}

/// Class and hash of a config without the keys that its library adds.
fn model_fingerprint(config: &Value) -> String {
    let class = config
        .get("_class_name")
        .or_else(|| config.get("architectures")?.get(0));
    let class = class.and_then(Value::as_str).unwrap_or("model");
    let mut digest = Sha256::new();
    if let Value::Object(fields) = config {
        // `Map` keeps its keys sorted, so equal configs have equal texts.
        for (key, value) in fields.iter().filter(|(key, _)| !key.starts_with('_')) {
            digest.update(format!("{key}={value}\n"));
        }
    }
    let hash: String = digest
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("{class} {hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GenerateRequest, Model, step_request};

    /// Bytes of the demo's denoising step as a device runs it, and whether a buffer is in bf16.
    fn step(precision: Precision, device: &Device) -> (String, bool) {
        let model = Model::demo().unwrap();
        let mut asked = GenerateRequest::new(&model, "").unwrap();
        asked.precision = precision;
        let request = step_request(&model, &asked).unwrap().on(device);
        let plan = request.compile().unwrap();
        let mut buffers = plan.ranks.iter().flat_map(|rank| &rank.buffers);
        let narrow = buffers.any(|buffer| buffer.dtype == DType::Bf16);
        (request.canonical(), narrow)
    }

    #[test]
    fn activations_follow_the_products_on_cuda_alone() {
        let cuda = Device::Cuda { gpus: vec![0] };
        assert!(step(Precision::Bf16, &cuda).1);
        assert!(!step(Precision::F32, &cuda).1);
        let (text, narrow) = step(Precision::Bf16, &Device::Cpu);
        assert!(!narrow);
        // What the CPU runs is asked for as before.
        assert!(!text.contains("activations"));
        assert!(step(Precision::Bf16, &cuda).0.contains("activations"));
    }
}
