//! `terrace bench`: how fast this machine computes, as a time and as a share of its own peak.

pub mod args;
mod kernel;
mod part;

use super::console::{Console, count};
use args::What;
use serde_json::json;
use terrace::bench::Measured;
use terrace::{Error, Mesh, Precision};
use terrace_kernels::cpu::instruction_set;
use terrace_plan::DType;

pub fn bench(args: args::Bench, console: &Console) -> Result<(), Error> {
    match args.what {
        What::Forward(args) => part::forward(args, console),
        What::Step(args) => part::step(args, console),
        What::Decode(args) => part::decode(args, console),
        What::Gemm(args) => kernel::gemm(args, console),
        What::Attention(args) => kernel::attention(args, console),
    }
}

/// Prints what was measured.
fn report(
    kind: &str,
    shape: &str,
    precision: Precision,
    mesh: Mesh,
    measured: &Measured,
    console: &Console,
) {
    let (dtype, set) = (DType::from(precision), instruction_set());
    let (median, min, max) = (measured.median(), measured.min(), measured.max());
    let giga = |rate: f64| rate / 1e9;
    let (rate, peak) = (giga(measured.rate()), giga(measured.peak));
    console.result(
        &format!(
            "{kind} {shape}, {dtype}, {} on {} ({set}): median {} ({} to {}, {}), {rate:.1} GFLOP/s, \
             {:.1} % of a peak of {peak:.1}",
            count(mesh.ranks(), "rank"),
            count(measured.threads, "thread"),
            time(median),
            time(min),
            time(max),
            count(measured.runs(), "run"),
            100.0 * measured.share(),
        ),
        &json!({
            "event": "measured",
            "kind": kind,
            "shape": shape,
            "dtype": dtype,
            "mesh": mesh,
            "threads": measured.threads,
            "instruction_set": set.name(),
            "runs": measured.runs(),
            "median_seconds": median,
            "min_seconds": min,
            "max_seconds": max,
            "flops": measured.flops,
            "gflops": rate,
            "peak_gflops": peak,
            "peak_share": measured.share(),
        }),
    );
}

/// Seconds in a unit that shows three places.
fn time(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.2} ms", 1e3 * seconds)
    } else {
        format!("{seconds:.3} s")
    }
}
