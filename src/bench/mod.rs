//! Measurements: how long a model part or a kernel takes here, which share of the machine it uses, and its memory.
//!
//! Invariants: runs follow each other on the same threads, after runs that are not counted; the peak is
//! measured before and after them with as many threads, and the larger counts. Nothing is written or
//! read from disk while the clock runs.

mod kernel;
mod memory;
mod part;
mod single;

pub use kernel::{AttentionSize, GemmSize, attention, gemm};
pub use memory::Memory;
pub use part::{Weights, part};

use crate::{Device, Error, Precision};
use std::time::{Duration, Instant};
use terrace_kernels::cpu::{Operands, instruction_set, peak_flops};
use terrace_plan::{DType, Rank};
use terrace_runtime::backend::Backend;
use terrace_runtime::backend::cpu::Cpu;
use terrace_runtime::{ResolveFault, RuntimeError};

/// Time that one measurement of the peak takes.
const PEAK: Duration = Duration::from_millis(240);

/// How often something is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Runs that are not counted, first.
    pub warmup: usize,
    /// Runs that are counted; none are as good as one.
    pub runs: usize,
}

impl Repeat {
    /// The runs on a device. A GPU of NVIDIA's records its list at the second run and repeats the record from
    /// then on, so the second one counts as little as the first, unless the first is what is asked for.
    fn on(self, device: &Device) -> Self {
        let least = match (device, self.warmup) {
            (Device::Cuda { .. }, 1..) => 2,
            (Device::Cpu | Device::Wgpu { .. } | Device::Cuda { .. }, _) => 0,
        };
        Self {
            warmup: self.warmup.max(least),
            ..self
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Seconds of every counted run, the shortest first; at least one.
    seconds: Vec<f64>,
    /// Floating point operations of a run: those of matrix products, attention and convolutions.
    pub flops: u64,
    /// What the same threads could do; absent for a device whose peak is not known.
    pub peak: Option<Peak>,
    /// Memory on the CPU, for weights that were read from files; made weights are in memory twice.
    pub memory: Option<Memory>,
}

/// What threads could do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Threads of all ranks together.
    pub threads: usize,
    /// Floating point operations per second.
    pub rate: f64,
}

/// What a measurement is compared with.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// What so many threads reach when they only multiply operands of a type.
    Threads(usize, Operands),
    /// Nothing.
    Unknown,
}

impl Measured {
    /// Runs that were counted.
    pub fn runs(&self) -> usize {
        self.seconds.len()
    }

    /// Seconds of the shortest run.
    pub fn min(&self) -> f64 {
        self.seconds[0]
    }

    /// Seconds of the longest run.
    pub fn max(&self) -> f64 {
        self.seconds[self.runs() - 1]
    }

    /// Seconds of the middle run, or the mean of both.
    pub fn median(&self) -> f64 {
        let half = self.runs() / 2;
        if self.runs() % 2 == 1 {
            self.seconds[half]
        } else {
            f64::midpoint(self.seconds[half - 1], self.seconds[half])
        }
    }

    /// Operations per second of the median run.
    pub fn rate(&self) -> f64 {
        self.flops as f64 / self.median()
    }

    /// The rate as a share of the peak.
    pub fn share(&self) -> Option<f64> {
        self.peak.map(|peak| self.rate() / peak.rate)
    }
}

/// Calls `run`, which says how long it took, as often as `repeat` says.
fn measure(
    repeat: Repeat,
    limit: Limit,
    flops: u64,
    mut run: impl FnMut() -> Result<Duration, Error>,
) -> Result<Measured, Error> {
    let before = limit.peak()?;
    for _ in 0..repeat.warmup {
        run()?;
    }
    let mut seconds = Vec::new();
    for _ in 0..repeat.runs.max(1) {
        seconds.push(run()?.as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let higher = |before: Peak, after: Peak| Peak {
        rate: after.rate.max(before.rate),
        ..after
    };
    Ok(Measured {
        seconds,
        flops,
        peak: before.zip(limit.peak()?).map(|(b, a)| higher(b, a)),
        memory: None,
    })
}

impl Limit {
    fn peak(self) -> Result<Option<Peak>, Error> {
        let Self::Threads(threads, operands) = self else {
            return Ok(None);
        };
        let lane = Cpu::pool(Rank(0), threads)?;
        let rate = Cpu.enter(&lane, || peak_flops(instruction_set(), operands, PEAK));
        Ok(Some(Peak { threads, rate }))
    }
}

/// The time that `job` takes.
fn timed<E>(job: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let begun = Instant::now();
    job()?;
    Ok(begun.elapsed())
}

/// What the CPU's products of this precision multiply.
fn operands(precision: Precision) -> Result<Operands, Error> {
    match precision {
        Precision::F32 => Ok(Operands::F32),
        Precision::Bf16 => Ok(Operands::Bf16),
        Precision::Int8 => Ok(Operands::I8),
        Precision::Fp8 => Ok(Operands::F8E4M3),
        Precision::F16 => {
            let fault = ResolveFault::WeightType { found: DType::F16 };
            Err(RuntimeError::from(fault).into())
        }
    }
}
