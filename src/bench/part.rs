//! A model part, compiled and run as a generation runs it.

use super::{Limit, Measured, Memory, Repeat, measure, operands, timed};
use crate::{Device, Error, Model, Request, Runner, tensors};
use std::sync::Arc;
use terrace_plan::{DType, Port, explain::Explanation};
use terrace_runtime::{Checkpoint, HostTensor};

/// Seed of weights that are noise.
const SEED: u64 = 0;

/// Where the weights of a measured part come from. The time does not depend on them.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Noise, made in memory.
    Noise,
    /// The checkpoint.
    Of(&'a Model),
}

/// Measures calls of a part. Inputs that are not given are noise; all are set again before every call,
/// whose outputs may have become inputs.
///
/// # Errors
/// The request cannot be compiled, the weights are not there, or a rank fails.
pub fn part(
    request: &Request,
    weights: Weights<'_>,
    inputs: &[(&str, &HostTensor)],
    runner: &Runner,
    repeat: Repeat,
) -> Result<Measured, Error> {
    let plan = Arc::new(request.clone().on(runner.device()).compile()?);
    let checkpoint = match weights {
        Weights::Noise => Checkpoint::noise(&plan, SEED)?,
        Weights::Of(model) => model.weights(request.part.component())?,
    };
    let others = plan
        .inputs
        .iter()
        .filter(|port| inputs.iter().all(|(name, _)| *name != port.name))
        .map(|port| Ok((port.name.clone(), noise(port)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let ranks = plan.ranks.len();
    let facts = Explanation::of(&plan).ranks;
    let flops = facts
        .iter()
        .fold(0u64, |sum, rank| sum.saturating_add(rank.call.flops));
    let mut session = runner.session(plan, &checkpoint)?;
    drop(checkpoint);
    let limit = match runner.device() {
        Device::Cpu => {
            let threads = runner.options().threads_per_rank(ranks);
            Limit::Threads(threads.saturating_mul(ranks), operands(request.precision)?)
        }
        Device::Wgpu { .. } | Device::Cuda { .. } => Limit::Unknown,
    };
    let measured = measure(repeat.on(runner.device()), limit, flops, || {
        for (port, tensor) in inputs {
            session.set(port, tensor)?;
        }
        for (port, tensor) in &others {
            session.set(port, tensor)?;
        }
        Ok(timed(|| session.run())?)
    })?;
    let memory = match (weights, runner.device()) {
        (Weights::Of(_), Device::Cpu) => Memory::of(&session),
        (Weights::Noise, _) | (_, Device::Wgpu { .. } | Device::Cuda { .. }) => None,
    };
    Ok(Measured { memory, ..measured })
}

fn noise(port: &Port) -> Result<HostTensor, Error> {
    match port.dtype {
        DType::F32 => tensors::noise(port.shape.clone()),
        DType::U32 | DType::F16 | DType::Bf16 | DType::I8 | DType::F8E4M3 => {
            Ok(HostTensor::zeros(port.shape.clone(), port.dtype)?)
        }
    }
}
