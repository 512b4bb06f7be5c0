//! `terrace bench`: how fast this machine computes, as a time and as a share of its own peak.

pub mod args;
mod kernel;
mod part;

use super::console::{Console, count};
use serde_json::json;
use terrace::bench::{Measured, Memory};
use terrace::{Device, Error, Mesh, Precision};
use terrace_kernels::cpu::instruction_set;
use terrace_plan::DType;

pub fn bench(args: args::Bench, console: &Console) -> Result<(), Error> {
    match args.what {
        args::What::Forward(args) => part::forward(args, console),
        args::What::Step(args) => part::step(args, console),
        args::What::Decode(args) => part::decode(args, console),
        args::What::Gemm(args) => kernel::gemm(args, console),
        args::What::Attention(args) => kernel::attention(args, console),
    }
}

/// What a measurement is of.
struct What<'a> {
    kind: &'static str,
    shape: &'a str,
    precision: Precision,
    mesh: Mesh,
    device: &'a Device,
}

/// Prints what was measured.
fn report(what: &What<'_>, measured: &Measured, console: &Console) {
    let What {
        kind,
        shape,
        mesh,
        device,
        ..
    } = what;
    let dtype = DType::from(what.precision);
    let (median, min, max) = (measured.median(), measured.min(), measured.max());
    let (rate, share) = (giga(measured.rate()), measured.share());
    let peak = measured.peak.map(|peak| giga(peak.rate));
    let threads = measured.peak.map(|peak| peak.threads);
    let set = threads.map(|_| instruction_set().name());
    let place = threads.zip(set).map_or_else(
        || device.to_string(),
        |(threads, set)| format!("{} ({set})", count(threads, "thread")),
    );
    let compared = share.zip(peak).map_or_else(String::new, |(share, peak)| {
        format!(", {:.1} % of a peak of {peak:.1}", 100.0 * share)
    });
    let memory = measured.memory.as_ref().map_or_else(String::new, resident);
    console.result(
        &format!(
            "{kind} {shape}, {dtype}, {} on {place}: median {} ({} to {}, {}), {rate:.1} \
             GFLOP/s{compared}{memory}",
            count(mesh.ranks(), "rank"),
            time(median),
            time(min),
            time(max),
            count(measured.runs(), "run"),
        ),
        &json!({
            "event": "measured",
            "kind": kind,
            "shape": shape,
            "dtype": dtype,
            "mesh": mesh,
            "device": device.to_string(),
            "threads": threads,
            "instruction_set": set,
            "runs": measured.runs(),
            "median_seconds": median,
            "min_seconds": min,
            "max_seconds": max,
            "flops": measured.flops,
            "gflops": rate,
            "peak_gflops": peak,
            "peak_share": share,
            "memory": measured.memory.map(|memory| json!({
                "peak_bytes": memory.peak,
                "weights_bytes": memory.weights,
                "arena_bytes": memory.arenas,
                "state_bytes": memory.states,
            })),
        }),
    );
}

/// Memory as people read it.
fn resident(memory: &Memory) -> String {
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    format!(
        ", {:.1} MiB resident at most with {:.1} MiB of weights and {:.1} MiB of arenas and states",
        mebibytes(memory.peak),
        mebibytes(memory.weights),
        mebibytes(memory.arenas + memory.states),
    )
}

fn giga(rate: f64) -> f64 {
    rate / 1e9
}

/// Seconds in a unit that shows three places.
fn time(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.2} ms", 1e3 * seconds)
    } else {
        format!("{seconds:.3} s")
    }
}
