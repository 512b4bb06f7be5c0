//! `terrace devices`: what this machine can compute on.

use super::args;
use super::console::{Console, count};
use serde_json::json;
use terrace::{Error, SessionOptions};
use terrace_kernels::cpu::{InstructionSet, instruction_set};

pub fn devices(_args: args::Devices, console: &Console) -> Result<(), Error> {
    cpu(console);
    wgpu(console);
    cuda(console);
    Ok(())
}

fn cpu(console: &Console) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = SessionOptions::default().threads_per_rank(1);
    let (name, chosen) = (cpu_name(), instruction_set().name());
    let sets: Vec<&str> = InstructionSet::available()
        .map(InstructionSet::name)
        .collect();
    console.result(
        &format!(
            "cpu  {name}: {}, {} by default, kernels {chosen} (available: {}), dtypes f32, bf16, int8 and fp8",
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
            "dtypes": ["f32", "bf16", "int8", "fp8"],
        }),
    );
}

/// The adapters, one line each; none in a program that cannot use them.
#[cfg(feature = "wgpu")]
fn wgpu(console: &Console) {
    use terrace_kernels::cube::{Element, adapters};
    let all = adapters();
    if all.is_empty() {
        console.warning("no adapter of Vulkan, Metal or DX12 was found");
    }
    for (index, adapter) in all.iter().enumerate() {
        let (name, kind, driver) = (adapter.name(), adapter.kind(), adapter.driver());
        let device = terrace::Device::Wgpu { adapter: index }.to_string();
        let dtypes: Vec<&str> = adapter.elements().into_iter().map(Element::name).collect();
        let largest = adapter.largest_buffer();
        console.result(
            &format!(
                "{device}  {name}: {kind}, driver {driver}, buffers of {} MiB at most, dtypes {}",
                largest >> 20,
                dtypes.join(" and "),
            ),
            &json!({
                "event": "device",
                "device": device,
                "name": name,
                "kind": kind,
                "driver": driver,
                "largest_buffer": largest,
                "dtypes": dtypes,
            }),
        );
    }
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(console: &Console) {
    console.result(
        "wgpu  not in this program; build it with --features wgpu",
        &json!({"event": "unavailable", "device": "wgpu", "feature": "wgpu"}),
    );
}

/// The GPUs of NVIDIA and what they need of libraries, one line each.
#[cfg(feature = "cuda")]
fn cuda(console: &Console) {
    use terrace_kernels::cuda::{Device, Library};
    for library in Library::ALL {
        if let Err(fault) = library.require() {
            console.warning(&fault.to_string());
        }
    }
    // Without a driver there is no GPU either, as the warning has said.
    for index in 0..Device::count().unwrap_or(0) {
        let facts = match Device::open(index).and_then(|device| device.facts()) {
            Ok(facts) => facts,
            Err(fault) => {
                console.warning(&fault.to_string());
                continue;
            }
        };
        let ((major, minor), memory) = (facts.capability, facts.memory);
        // cublasLt scales the rows of FP8 there alone.
        let dtypes = match facts.capability {
            (9, 0) => &["f32", "f16", "bf16", "fp8"][..],
            _ => &["f32", "f16", "bf16"],
        };
        let device = terrace::Device::Cuda { gpus: vec![index] }.to_string();
        console.result(
            &format!(
                "{device}  {}: compute capability {major}.{minor}, {} of {} MiB free, dtypes {}",
                facts.name,
                memory.free >> 20,
                memory.total >> 20,
                dtypes.join(", "),
            ),
            &json!({
                "event": "device",
                "device": device,
                "name": facts.name,
                "capability": [major, minor],
                "free": memory.free,
                "memory": memory.total,
                "dtypes": dtypes,
            }),
        );
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(console: &Console) {
    console.result(
        "cuda  not in this program; build it with --features cuda",
        &json!({"event": "unavailable", "device": "cuda", "feature": "cuda"}),
    );
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
