//! `terrace devices`: what this machine can compute on.

use super::args;
use super::console::{Console, count};
use serde_json::json;
use terrace::Error;
use terrace_kernels::cpu::{InstructionSet, instruction_set};

pub fn devices(_args: args::Devices, console: &Console) -> Result<(), Error> {
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let chosen = instruction_set().name();
    let sets: Vec<&str> = InstructionSet::available()
        .map(InstructionSet::name)
        .collect();
    console.result(
        &format!(
            "cpu  {}, kernels {chosen} (available: {}), dtypes f32 and bf16",
            count(cores, "core"),
            sets.join(", "),
        ),
        &json!({
            "event": "device",
            "device": "cpu",
            "cores": cores,
            "instruction_set": chosen,
            "instruction_sets": sets,
            "dtypes": ["f32", "bf16"],
        }),
    );
    Ok(())
}
