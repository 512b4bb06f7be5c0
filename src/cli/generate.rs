//! `terrace generate` and `terrace run`: from a prompt to a video file.

use super::args;
use super::console::{Console, count};
use super::processes::Place;
use serde_json::json;
use std::time::Instant;
use terrace::{
    Denoised, Error, Event, GenerateRequest, Generated, GuidanceMode, Part, Phase, Pipeline, Plan,
    Prompts, Request, Sampling, Solver, step_request, tensors, video,
};

pub fn generate(args: args::Generate, console: &Console) -> Result<(), Error> {
    let begun = Instant::now();
    let place = Place::find(&args.processes, &args.execution.device)?;
    if place.leads() {
        args.output.check()?;
    }
    let model = super::open(args.model.model.as_deref())?;
    let mut request = GenerateRequest::new(&model, &args.prompt.prompt)?;
    request
        .negative_prompt
        .clone_from(&args.prompt.negative_prompt);
    args.size.apply(&mut request);
    request.sampling = args.sampling.read()?;
    request.solver = args.scheduler.map(Solver::from);
    request.degrees = place.degrees(args.parallel.degrees())?;
    request.granularity = args.parallel.granularity();
    request.precision = args.precision.read();
    // Refused before anything long begins: what cannot be cut, and what the file cannot hold.
    step_request(&model, &request)?;
    args.output
        .check_size([request.size.height, request.size.width])?;
    let (runner, trace) = place.runner(&args.execution)?;
    let pipeline = Pipeline::on(model, runner);
    let show = &mut |event: Event<'_>| show(&place, console, &event);
    let denoised = pipeline.denoise(&request, show)?;
    let finished = finish(&place, &pipeline, denoised, show)?;
    place.write_trace(&args.execution, trace.as_deref())?;
    args.output.write(finished, console, begun)
}

pub fn run(args: args::Run, console: &Console) -> Result<(), Error> {
    let begun = Instant::now();
    let place = Place::find(&args.processes, &args.execution.device)?;
    if place.leads() {
        args.output.check()?;
    }
    let plan = Plan::load(&args.plan)?;
    if let Part::DenoiseStep { video, .. } = Request::of(&plan)?.part {
        args.output.check_size([video[1], video[2]])?;
    }
    let model = super::open(args.model.model.as_deref())?;
    let sampling = args.sampling.read()?;
    let (runner, trace) = place.runner(&args.execution)?;
    let pipeline = Pipeline::on(model, runner);
    let prompts = Prompts {
        prompt: &args.prompt.prompt,
        negative: &args.prompt.negative_prompt,
    };
    let show = &mut |event: Event<'_>| show(&place, console, &event);
    let denoised = pipeline.denoise_with(plan, &prompts, &sampling, show)?;
    let finished = finish(&place, &pipeline, denoised, show)?;
    place.write_trace(&args.execution, trace.as_deref())?;
    args.output.write(finished, console, begun)
}

/// The video, in the process that writes it.
fn finish(
    place: &Place,
    pipeline: &Pipeline,
    denoised: Denoised,
    show: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Generated>, Error> {
    match place.leads() {
        true => pipeline.finish(denoised, show).map(Some),
        false => Ok(None),
    }
}

fn show(place: &Place, console: &Console, event: &Event<'_>) {
    if !place.leads() {
        return;
    }
    match event {
        Event::Warning(text) => console.warning(text),
        Event::Phase(phase) => {
            let (name, text) = match phase {
                Phase::Compile => ("compile", "compiling"),
                Phase::Encode => ("encode", "encoding the prompt"),
                Phase::Load => ("load", "loading the transformer"),
                Phase::Denoise => ("denoise", "denoising"),
                Phase::Decode => ("decode", "decoding"),
            };
            console.phase(name, text);
        }
        Event::Step(step) => console.step(step.done, step.steps, step.took),
    }
}

impl args::Sampling {
    fn read(&self) -> Result<Sampling, Error> {
        Ok(Sampling {
            steps: self.num_inference_steps,
            guidance_scale: self.guidance_scale,
            guidance_mode: match self.use_dynamic_cfg {
                true => GuidanceMode::Dynamic,
                false => GuidanceMode::Constant,
            },
            seed: self.seed,
            latents: self
                .latents
                .as_ref()
                .map(tensors::read_latents)
                .transpose()?,
        })
    }
}

impl args::VideoOutput {
    fn check(&self) -> Result<(), Error> {
        video::check_writable(&self.output)?;
        if let Some(path) = &self.save_latents {
            tensors::check_writable(path)?;
        }
        Ok(())
    }

    fn check_size(&self, [height, width]: [usize; 2]) -> Result<(), Error> {
        Ok(video::check_encodable(
            &self.output,
            height,
            width,
            self.fps,
        )?)
    }

    fn write(
        &self,
        finished: Option<Generated>,
        console: &Console,
        begun: Instant,
    ) -> Result<(), Error> {
        let Some(generated) = finished else {
            return Ok(());
        };
        console.phase("write", "writing");
        if let Some(path) = &self.save_latents {
            tensors::write(path, "latents", &generated.latents)?;
        }
        let &[_, frames, channels, height, width] = generated.frames.shape() else {
            return Err(Error::TensorShape {
                tensor: "frames",
                expected: "[1,f,3,H,W]".into(),
                found: generated.frames.shape().to_vec(),
            });
        };
        let size = [frames, channels, height, width];
        let video = video::Video::from_model(size, self.fps, generated.frames.as_f32()?)?;
        let files = video::write(&self.output, &video)?;
        let seconds = begun.elapsed().as_secs_f64();
        console.result(
            &format!(
                "{}: {frames} frames of {width}x{height} at {} per second, {} ({}), {seconds:.1} s",
                self.output.display(),
                self.fps,
                count(generated.mesh.ranks(), "rank"),
                generated.mesh,
            ),
            &json!({
                "event": "done",
                "files": files,
                "frames": frames,
                "height": height,
                "width": width,
                "fps": self.fps,
                "mesh": generated.mesh,
                "seconds": seconds,
            }),
        );
        Ok(())
    }
}
