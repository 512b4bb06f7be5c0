//! `terrace compile`: the denoising step as a plan file.

use super::args;
use super::console::{Console, count};
use serde_json::json;
use std::time::Instant;
use terrace::{Device, Error, GenerateRequest, Model, Sampling, Solver, step_request};

pub fn compile(args: args::Compile, console: &Console) -> Result<(), Error> {
    let model = super::open(args.model.as_deref())?;
    let mut request = GenerateRequest::new(&model, "")?;
    args.size.apply(&mut request);
    request.sampling = Sampling {
        guidance_scale: args.guidance_scale,
        ..Sampling::default()
    };
    request.solver = args.scheduler.map(Solver::from);
    request.degrees = args.parallel.degrees();
    request.granularity = args.parallel.granularity();
    request.precision = args.precision.read();
    let begun = Instant::now();
    let plan = request_plan(&model, &request, &args.device)?;
    plan.save(&args.output)?;
    let seconds = begun.elapsed().as_secs_f64();
    console.result(
        &format!(
            "{}: {} for {}, activations {}, {} ({}), compiled in {seconds:.2} s",
            args.output.display(),
            plan.header.graph,
            plan.header.fingerprint.shape,
            plan.activations(),
            count(plan.ranks.len(), "rank"),
            plan.mesh,
        ),
        &json!({
            "event": "compiled",
            "plan": args.output,
            "graph": plan.header.graph,
            "fingerprint": plan.header.fingerprint,
            "activations": plan.activations(),
            "mesh": plan.mesh,
            "seconds": seconds,
        }),
    );
    Ok(())
}

fn request_plan(
    model: &Model,
    request: &GenerateRequest,
    device: &Device,
) -> Result<terrace::Plan, Error> {
    step_request(model, request)?.on(device).compile()
}

impl args::Size {
    /// Takes over what the flags say.
    pub(super) fn apply(&self, request: &mut GenerateRequest) {
        let Self {
            height,
            width,
            num_frames,
            max_sequence_length,
        } = *self;
        let size = &mut request.size;
        size.height = height.unwrap_or(size.height);
        size.width = width.unwrap_or(size.width);
        size.frames = num_frames.unwrap_or(size.frames);
        request.text_length = max_sequence_length.unwrap_or(request.text_length);
    }
}

impl From<args::Scheduler> for Solver {
    fn from(scheduler: args::Scheduler) -> Self {
        match scheduler {
            args::Scheduler::Ddim => Self::Ddim,
            args::Scheduler::Dpm => Self::Dpm,
        }
    }
}
