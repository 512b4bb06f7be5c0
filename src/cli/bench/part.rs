//! `terrace bench forward`, `step` and `decode`: model parts.

use super::args;
use super::{What, report};
use crate::cli::console::Console;
use crate::cli::{args as common, runner, write_trace};
use serde_json::Value;
use terrace::bench::{self, Weights};
use terrace::{
    Cut, Error, ForwardInputs, GenerateRequest, HostTensor, Model, Request, Sampling,
    decode_request, step_request, tensors,
};

/// Blocks of a preset.
const BLOCKS: usize = 2;

pub fn forward(args: args::Forward, console: &Console) -> Result<(), Error> {
    let model = args.source.open()?;
    let inputs = match &args.inputs {
        Some(path) => ForwardInputs::read(path)?,
        None => noise(&model, &args)?,
    };
    let cut = Cut {
        degrees: args.parallel.degrees(),
        granularity: args.parallel.granularity(),
        precision: args.precision.read(),
    };
    let mut request = inputs.request(&model, &cut)?;
    args.blocks.apply(&args.source, &mut request);
    let run = Run {
        name: "forward",
        weights: args.source.weights(&model),
        inputs: &inputs.ports(),
        execution: &args.execution,
        runs: args.runs,
    };
    run.measure(&request, console)
}

pub fn step(args: args::Step, console: &Console) -> Result<(), Error> {
    let model = args.source.open()?;
    let mut asked = GenerateRequest::new(&model, "")?;
    asked.size.frames = 1;
    args.size.apply(&mut asked);
    asked.sampling = Sampling {
        guidance_scale: args.guidance_scale,
        ..Sampling::default()
    };
    asked.degrees = args.parallel.degrees();
    asked.granularity = args.parallel.granularity();
    asked.precision = args.precision.read();
    let mut request = step_request(&model, &asked)?;
    args.blocks.apply(&args.source, &mut request);
    let run = Run {
        name: "step",
        weights: args.source.weights(&model),
        inputs: &[],
        execution: &args.execution,
        runs: args.runs,
    };
    run.measure(&request, console)
}

pub fn decode(args: args::Decode, console: &Console) -> Result<(), Error> {
    let model = args.source.open()?;
    let latents = match &args.latents {
        Some(path) => tensors::read_latents(path)?,
        None => {
            let channels = model.vae()?.latent_channels;
            let [f, h, w] = [args.latent_frames, args.latent_height, args.latent_width];
            tensors::noise(vec![1, f, channels, h, w])?
        }
    };
    let request = decode_request(&model, &latents, args.precision.read())?;
    let run = Run {
        name: "decode",
        weights: args.source.weights(&model),
        inputs: &[("latents", &latents)],
        execution: &args.execution,
        runs: args.runs,
    };
    run.measure(&request, console)
}

/// Inputs of the size that the flags say.
fn noise(model: &Model, args: &args::Forward) -> Result<ForwardInputs, Error> {
    let mut asked = GenerateRequest::new(model, "")?;
    asked.size.frames = 1;
    args.size.apply(&mut asked);
    let config = model.transformer()?;
    let latents = asked.size.latents(&config, model.ratios()?)?;
    let shape = [args.batch, latents.frames, latents.height, latents.width];
    ForwardInputs::noise(&config, shape, asked.text_length)
}

/// A part that is about to be measured.
struct Run<'a> {
    name: &'static str,
    weights: Weights<'a>,
    inputs: &'a [(&'a str, &'a HostTensor)],
    execution: &'a common::Execution,
    runs: args::Runs,
}

impl Run<'_> {
    fn measure(&self, request: &Request, console: &Console) -> Result<(), Error> {
        let (runner, trace) = runner(self.execution)?;
        let repeat = self.runs.read();
        let measured = bench::part(request, self.weights, self.inputs, &runner, repeat)?;
        write_trace(self.execution, trace.as_deref())?;
        let shape = match request.config.get("num_layers") {
            Some(layers) => format!("{} layers={layers}", request.part),
            None => request.part.to_string(),
        };
        let what = What {
            kind: self.name,
            shape: &shape,
            precision: request.precision,
            mesh: request.mesh,
            device: runner.device(),
        };
        report(&what, &measured, console);
        Ok(())
    }
}

impl args::Source {
    fn open(&self) -> Result<Model, Error> {
        match &self.model {
            Some(folder) => Model::open(folder),
            None => Model::preset(&self.preset),
        }
    }

    fn weights<'m>(&self, model: &'m Model) -> Weights<'m> {
        match self.model {
            Some(_) => Weights::Of(model),
            None => Weights::Noise,
        }
    }
}

impl args::Blocks {
    fn apply(&self, source: &args::Source, request: &mut Request) {
        let preset = source.model.is_none().then_some(BLOCKS);
        if let (Some(layers), Value::Object(config)) = (self.layers.or(preset), &mut request.config)
        {
            config.insert("num_layers".into(), layers.into());
        }
    }
}
