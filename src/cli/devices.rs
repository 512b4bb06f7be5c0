//! `terrace devices`: what this machine can compute on.

use super::args;
use super::console::{Console, count};
use serde_json::json;
use terrace::{Error, SessionOptions};
use terrace_kernels::cpu::{InstructionSet, instruction_set};

pub fn devices(_args: args::Devices, console: &Console) -> Result<(), Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = SessionOptions::default().threads_per_rank(1);
    let (name, chosen) = (cpu_name(), instruction_set().name());
    let sets: Vec<&str> = InstructionSet::available()
        .map(InstructionSet::name)
        .collect();
    console.result(
        &format!(
            "cpu  {name}: {}, {} by default, kernels {chosen} (available: {}), dtypes f32, bf16 and int8",
            count(cores, "core"),
            count(threads, "thread"),
            sets.join(", "),
        ),
        &json!({
            "event": "device",
            "device": "cpu",
            "name": name,
            "cores": cores,
            "threads": threads,
            "instruction_set": chosen,
            "instruction_sets": sets,
            "dtypes": ["f32", "bf16", "int8"],
        }),
    );
    Ok(())
}

/// What the system calls the processor, or its architecture where the system does not say.
fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim())
        .to_owned()
}
