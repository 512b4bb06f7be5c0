//! Commands on tensor files: one part of the model, safetensors in, safetensors out.

use super::args;
use super::console::Console;
use super::processes::Place;
use serde_json::json;
use std::path::Path;
use terrace::{Cut, Error, ForwardInputs, HostTensor, Pipeline, tensors};

pub fn forward(args: args::Forward, console: &Console) -> Result<(), Error> {
    let place = Place::find(&args.processes, &args.execution.device)?;
    if place.leads() {
        tensors::check_writable(&args.output)?;
    }
    let model = super::open(args.model.as_deref())?;
    let inputs = ForwardInputs::read(&args.inputs)?;
    let degrees = place.degrees(args.parallel.degrees())?;
    let (runner, trace) = place.runner(&args.execution)?;
    let pipeline = Pipeline::on(model, runner);
    let cut = Cut {
        degrees,
        granularity: args.parallel.granularity(),
        precision: args.precision.read(),
    };
    let sample = pipeline.forward(&inputs, &cut)?;
    place.write_trace(&args.execution, trace.as_deref())?;
    if !place.leads() {
        return Ok(());
    }
    write(&args.output, "sample", &sample, console)
}

pub fn encode_text(args: args::EncodeText, console: &Console) -> Result<(), Error> {
    tensors::check_writable(&args.output)?;
    let model = super::open(args.model.as_deref())?;
    let length = match args.max_sequence_length {
        Some(length) => length,
        None => model.transformer()?.max_text_seq_length,
    };
    let (runner, trace) = super::runner(&args.execution)?;
    let pipeline = Pipeline::on(model, runner);
    let embeds = pipeline.encode(
        &[&args.prompt],
        length,
        args.precision.read(),
        &mut |warning| {
            console.warning(warning);
        },
    )?;
    super::write_trace(&args.execution, trace.as_deref())?;
    write(&args.output, "prompt_embeds", &embeds, console)
}

pub fn decode(args: args::Decode, console: &Console) -> Result<(), Error> {
    tensors::check_writable(&args.output)?;
    let model = super::open(args.model.as_deref())?;
    let latents = tensors::read_latents(&args.latents)?;
    let (runner, trace) = super::runner(&args.execution)?;
    let pipeline = Pipeline::on(model, runner);
    let frames = pipeline.decode(&latents, args.precision.read())?;
    super::write_trace(&args.execution, trace.as_deref())?;
    write(&args.output, "frames", &frames, console)
}

fn write(
    path: &Path,
    name: &'static str,
    tensor: &HostTensor,
    console: &Console,
) -> Result<(), Error> {
    tensors::write(path, name, tensor)?;
    console.result(
        &format!("{}: {name} {:?}", path.display(), tensor.shape()),
        &json!({"event": "done", "file": path, "tensor": name, "shape": tensor.shape()}),
    );
    Ok(())
}
