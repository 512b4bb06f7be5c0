//! From a prompt to frames: text encoder, denoising loop, VAE decoder, each a compiled plan.
//!
//! Where each rank is a process, the leading one encodes the prompts and gives the others what it made, and
//! decodes; all denoise.
//!
//! Invariants: the latents stay on the ranks from the first step to the last; all noise is a function
//! of the seed and of the position in the video, so the video does not depend on the mesh.

use crate::event::{Event, Phase, StepDone};
use crate::generate::{
    GenerateRequest, Generated, Prompts, Sampling, StepPart, check_sampling, check_text_length,
    step_request,
};
use crate::request::{Activations, Granularity, Guidance, Part, Request};
use crate::{Cut, Device, Error, ForwardInputs, Model, Precision, Runner};
use std::sync::Arc;
use std::time::Instant;
use terrace_kernels::cpu::noise_fill;
use terrace_models::folder::Component;
use terrace_models::scheduler::{Scheduler, guidance};
use terrace_plan::{DType, Mesh, Plan};
use terrace_runtime::{HostTensor, SessionOptions};

/// Stream of the noise that a video starts from; step `i` of a stochastic scheduler takes stream
/// `i + 1`.
const START: u64 = 0;

/// What the denoising loop has left, in every process.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// Padding included: `[1, f, c, h, w]`.
    latents: HostTensor,
    /// Frames in front that are no part of the video.
    padding: usize,
    precision: Precision,
    mesh: Mesh,
}

/// A model that is ready to generate.
#[derive(Debug)]
pub struct Pipeline {
    model: Model,
    runner: Runner,
}

impl Pipeline {
    /// A pipeline on the CPU with default session options.
    pub fn new(model: Model) -> Self {
        Self::with_options(model, SessionOptions::default())
    }

    /// A pipeline on the CPU whose sessions use `options`.
    pub fn with_options(model: Model, options: SessionOptions) -> Self {
        Self::on(model, Runner::new(options))
    }

    /// A pipeline on the device of a runner.
    pub const fn on(model: Model, runner: Runner) -> Self {
        Self { model, runner }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What runs its parts.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// What a generation compiles for its denoising step.
    ///
    /// # Errors
    /// The size, a degree or the model is not served.
    pub fn step_request(&self, request: &GenerateRequest) -> Result<Request, Error> {
        Ok(step_request(&self.model, request)?.on(self.runner.device()))
    }

    /// Generates a video.
    ///
    /// # Errors
    /// The request cannot be served by this model, or a rank fails.
    pub fn generate(
        &self,
        request: &GenerateRequest,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, Error> {
        let denoised = self.denoise(request, observe)?;
        self.finish(denoised, observe)
    }

    /// The part of [`Pipeline::generate`] that all processes have: everything but decoding.
    ///
    /// # Errors
    /// As for [`Pipeline::generate`].
    pub fn denoise(
        &self,
        request: &GenerateRequest,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Denoised, Error> {
        let mut denoise = || {
            check_sampling(&request.sampling)?;
            observe(Event::Phase(Phase::Compile));
            let plan = self.step_request(request)?.compile()?;
            let prompts = Prompts {
                prompt: &request.prompt,
                negative: &request.negative_prompt,
            };
            self.denoised(Arc::new(plan), &prompts, &request.sampling, observe)
        };
        self.runner.told(denoise())
    }

    /// Generates a video with a plan that was compiled before; size, mesh and scheduler are the
    /// plan's.
    ///
    /// # Errors
    /// The plan is of another model, of no denoising step, or without the guidance that `sampling`
    /// asks for.
    pub fn run(
        &self,
        plan: Plan,
        prompts: &Prompts<'_>,
        sampling: &Sampling,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, Error> {
        let denoised = self.denoise_with(plan, prompts, sampling, observe)?;
        self.finish(denoised, observe)
    }

    /// The part of [`Pipeline::run`] that all processes have: everything but decoding.
    ///
    /// # Errors
    /// As for [`Pipeline::run`].
    pub fn denoise_with(
        &self,
        plan: Plan,
        prompts: &Prompts<'_>,
        sampling: &Sampling,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Denoised, Error> {
        let denoise = || {
            check_sampling(sampling)?;
            let mut wanted = Request::of(&plan)?;
            wanted.config = self.model.config(Component::Transformer)?;
            plan.header.expect(&wanted.fingerprint())?;
            self.takes(&plan)?;
            self.denoised(Arc::new(plan), prompts, sampling, observe)
        };
        self.runner.told(denoise())
    }

    /// Refuses a plan whose activations have a type that no kernel of the device takes. What an adapter of wgpu
    /// lacks, its backend says.
    fn takes(&self, plan: &Plan) -> Result<(), Error> {
        let (device, found) = (self.runner.device(), plan.activations());
        match (device, found) {
            (Device::Cpu, DType::F32) | (Device::Wgpu { .. } | Device::Cuda { .. }, _) => Ok(()),
            (Device::Cpu, found) => Err(Error::PlanActivations {
                device: device.clone(),
                found,
            }),
        }
    }

    /// Decodes what was denoised, in this process.
    ///
    /// # Errors
    /// As for [`Pipeline::decode`].
    pub fn finish(
        &self,
        denoised: Denoised,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, Error> {
        observe(Event::Phase(Phase::Decode));
        let Denoised {
            latents,
            padding,
            precision,
            mesh,
        } = denoised;
        Ok(Generated {
            frames: self.decode(&drop_padding(&latents, padding)?, precision)?,
            latents,
            mesh,
        })
    }

    fn denoised(
        &self,
        plan: Arc<Plan>,
        prompts: &Prompts<'_>,
        sampling: &Sampling,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Denoised, Error> {
        let step = StepPart::of(&plan)?;
        let needed = Guidance::for_scale(sampling.guidance_scale);
        if needed != step.guidance {
            return Err(Error::PlanGuidance {
                scale: sampling.guidance_scale,
                needed: needed.predictions(),
                planned: step.guidance.predictions(),
            });
        }
        let scheduler = self.model.scheduler(Some(step.solver.into()))?;
        let start = self.start(&step, sampling)?;
        let settings = settings(&plan, sampling);
        let start_mark = [("start", &start)];
        self.runner.agree("the request", &settings, &start_mark)?;
        observe(Event::Phase(Phase::Encode));
        let texts = match step.guidance {
            Guidance::None => vec![prompts.prompt],
            Guidance::ClassifierFree => vec![prompts.negative, prompts.prompt],
        };
        let warn = &mut |text: &str| observe(Event::Warning(text));
        let encode = || self.encode(&texts, step.text, step.precision, warn);
        let embeds = self.runner.share(&step.embeds, encode)?;
        let mesh = plan.mesh;
        Ok(Denoised {
            latents: self.steps(plan, &scheduler, sampling, [&start, &embeds], observe)?,
            padding: step.padding,
            precision: step.precision,
            mesh,
        })
    }

    /// Encodes prompts, each padded or cut to `length` tokens: `[prompts, length, d]`.
    ///
    /// # Errors
    /// The model has no text encoder or tokenizer, or a rank fails.
    pub fn encode(
        &self,
        texts: &[&str],
        length: usize,
        precision: Precision,
        warn: &mut dyn FnMut(&str),
    ) -> Result<HostTensor, Error> {
        check_text_length(length)?;
        let tokenizer = self.model.tokenizer()?;
        let mut ids = Vec::with_capacity(texts.len() * length);
        for text in texts {
            let encoded = tokenizer.encode(text, length)?;
            if let Some(cut) = &encoded.truncated {
                let warning = format!(
                    "the prompt is longer than {length} tokens; this part of it is ignored: {cut:?}"
                );
                warn(&warning);
            }
            ids.extend(encoded.ids);
        }
        let ids = HostTensor::u32([texts.len(), length], ids)?;
        let plan = Request {
            part: Part::TextEncoder {
                batch: texts.len(),
                text: length,
            },
            config: self.model.config(Component::TextEncoder)?,
            mesh: Mesh::ONE,
            granularity: Granularity::default(),
            precision,
            activations: Activations::default(),
        }
        .on(self.runner.device())
        .compile()?;
        let weights = self.model.weights(Component::TextEncoder)?;
        self.runner
            .run_here(plan, &weights, &[("input_ids", &ids)], "prompt_embeds")
    }

    /// Decodes latents `[b, f, c, h, w]` as a scheduler leaves them to frames `[b, frames, 3, H, W]`
    /// in [-1, 1], not clamped.
    ///
    /// # Errors
    /// The model has no VAE, the latents do not fit it, or a rank fails.
    pub fn decode(&self, latents: &HostTensor, precision: Precision) -> Result<HostTensor, Error> {
        let config = self.model.vae()?;
        let plan = decode_request(&self.model, latents, precision)?
            .on(self.runner.device())
            .compile()?;
        let weights = self.model.weights(Component::Vae)?;
        let mut latents = latents.clone();
        config.unscale(latents.as_f32_mut()?);
        self.runner
            .run_here(plan, &weights, &[("latents", &latents)], "frames")
    }

    /// One forward of the transformer: `sample [b, f, c, h, w]`.
    ///
    /// # Errors
    /// The inputs do not fit the model, a degree is not served, or a rank fails.
    pub fn forward(&self, inputs: &ForwardInputs, cut: &Cut) -> Result<HostTensor, Error> {
        let forward = || {
            let request = inputs.request(&self.model, cut)?;
            let plan = request.on(self.runner.device()).compile()?;
            let weights = self.model.weights(Component::Transformer)?;
            self.runner.run(plan, &weights, &inputs.ports(), "sample")
        };
        self.runner.told(forward())
    }

    /// Latents that the loop begins with.
    fn start(&self, step: &StepPart, sampling: &Sampling) -> Result<HostTensor, Error> {
        let shape = step.latents.clone();
        if let Some(latents) = &sampling.latents {
            if latents.shape() != shape {
                return Err(Error::TensorShape {
                    tensor: "latents",
                    expected: format!("{shape:?} [1,f,c,h,w]"),
                    found: latents.shape().to_vec(),
                });
            }
            return Ok(latents.clone());
        }
        let mut noise = vec![0.0; shape.iter().product()];
        noise_fill(sampling.seed, START, 0, &mut noise)?;
        Ok(HostTensor::f32(shape, noise)?)
    }

    fn steps(
        &self,
        plan: Arc<Plan>,
        scheduler: &Scheduler,
        sampling: &Sampling,
        [start, embeds]: [&HostTensor; 2],
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<HostTensor, Error> {
        let steps = scheduler.steps(sampling.steps)?;
        observe(Event::Phase(Phase::Load));
        let stochastic = plan.inputs.iter().any(|port| port.name == "key");
        let weights = self.model.weights(Component::Transformer)?;
        let mut session = self.runner.session(plan, &weights)?;
        session.set("latents", start)?;
        session.set("prompt_embeds", embeds)?;
        if stochastic {
            let zeros = HostTensor::zeros(start.shape().to_vec(), start.dtype())?;
            session.set("previous", &zeros)?;
        }
        observe(Event::Phase(Phase::Denoise));
        for (index, step) in steps.iter().enumerate() {
            let begun = Instant::now();
            let scale = guidance(
                sampling.guidance_scale,
                sampling.guidance_mode,
                step.timestep,
                steps.len(),
            );
            let mut coefficients = vec![scale as f32];
            coefficients.extend(step.coefficients);
            session.set("coefficients", &HostTensor::f32([7], coefficients)?)?;
            session.set(
                "timestep",
                &HostTensor::f32([1], vec![step.timestep as f32])?,
            )?;
            if stochastic {
                session.set("key", &key(sampling.seed, index as u64 + 1)?)?;
            }
            session.run()?;
            observe(Event::Step(StepDone {
                done: index + 1,
                steps: steps.len(),
                took: begun.elapsed(),
                session: &session,
            }));
        }
        Ok(session.get("latents")?)
    }
}

/// What is compiled to decode these latents.
///
/// # Errors
/// The model has no VAE, or the latents do not fit it.
pub fn decode_request(
    model: &Model,
    latents: &HostTensor,
    precision: Precision,
) -> Result<Request, Error> {
    let expected = model.vae()?.latent_channels;
    let &[batch, frames, channels, height, width] = latents.shape() else {
        return Err(latents_shape(expected, latents));
    };
    if channels != expected {
        return Err(latents_shape(expected, latents));
    }
    Ok(Request {
        part: Part::Decoder {
            batch,
            latents: [frames, height, width],
        },
        config: model.config(Component::Vae)?,
        mesh: Mesh::ONE,
        granularity: Granularity::default(),
        precision,
        activations: Activations::default(),
    })
}

/// What the processes of a generation must have in common, beside the plan as a whole and the start.
fn settings(plan: &Plan, sampling: &Sampling) -> String {
    let Sampling {
        steps,
        guidance_scale,
        guidance_mode,
        seed,
        latents: _,
    } = sampling;
    let (shape, mesh) = (&plan.header.fingerprint.shape, plan.mesh);
    format!(
        "{shape} on {mesh}, {steps} steps, guidance {guidance_scale} ({guidance_mode:?}), seed {seed}"
    )
}

fn key(seed: u64, stream: u64) -> Result<HostTensor, Error> {
    let words = [seed, seed >> 32, stream, stream >> 32].map(|word| word as u32);
    Ok(HostTensor::u32([4], words.to_vec())?)
}

fn latents_shape(channels: usize, found: &HostTensor) -> Error {
    Error::TensorShape {
        tensor: "latents",
        expected: format!("[b,f,{channels},h,w]"),
        found: found.shape().to_vec(),
    }
}

/// The latents without their first `padding` frames.
fn drop_padding(latents: &HostTensor, padding: usize) -> Result<HostTensor, Error> {
    let mut shape = latents.shape().to_vec();
    let frame: usize = shape.iter().skip(2).product();
    let data = latents.as_f32()?;
    shape[1] -= padding;
    Ok(HostTensor::f32(shape, data[padding * frame..].to_vec())?)
}
