//! The device that the parity tests run on: the CPU, or what `TERRACE_TEST_DEVICE` names.
//!
//! Every device runs the same tests, each within its own tolerance.

use terrace::{Device, Runner};
use terrace_runtime::SessionOptions;

/// The device.
pub fn device() -> Device {
    std::env::var("TERRACE_TEST_DEVICE").map_or(Device::Cpu, |name| name.parse().unwrap())
}

/// A runner on the device, one thread per rank.
pub fn runner() -> Runner {
    let options = SessionOptions {
        threads: 1,
        ..SessionOptions::default()
    };
    Runner::on(&device(), options).unwrap()
}

/// Relative L2 error that the device may have where the CPU may have `cpu`.
pub fn tolerance(cpu: f64) -> f64 {
    match device() {
        Device::Cpu => cpu,
        Device::Wgpu { .. } | Device::Cuda { .. } => cpu.max(1e-4),
    }
}
