//! `terrace bench gemm` and `terrace bench attention`: kernels alone.

use super::args;
use super::{What, report};
use crate::cli::console::Console;
use terrace::bench::{
    AttentionSize, GemmSize, attention as measure_attention, gemm as measure_gemm,
};
use terrace::{Device, Error, Mesh, Precision, Runner, SessionOptions};

pub fn gemm(args: args::Gemm, console: &Console) -> Result<(), Error> {
    let args::Gemm { rows, k, n, .. } = args;
    let precision = args.precision.read();
    let size = GemmSize { rows, k, n };
    let runner = args.machine.runner()?;
    let measured = measure_gemm(size, precision, &runner, args.runs.read())?;
    let shape = format!("rows={rows} k={k} n={n}");
    let what = what("gemm", &shape, precision, runner.device());
    report(&what, &measured, console);
    Ok(())
}

pub fn attention(args: args::Attention, console: &Console) -> Result<(), Error> {
    let args::Attention {
        tokens,
        heads,
        head_dim,
        ..
    } = args;
    let size = AttentionSize {
        tokens,
        heads,
        head_dim,
    };
    let precision = match args.precision.read() {
        precision @ (Precision::F32 | Precision::F16 | Precision::Bf16) => precision,
        // Attention has no products in 8 bits.
        Precision::Int8 | Precision::Fp8 => Precision::Bf16,
    };
    let runner = args.machine.runner()?;
    let measured = measure_attention(size, precision, &runner, args.runs.read())?;
    let shape = format!("tokens={tokens} heads={heads} head_dim={head_dim}");
    let what = what("attention", &shape, precision, runner.device());
    report(&what, &measured, console);
    Ok(())
}

/// A kernel alone.
fn what<'a>(
    kind: &'static str,
    shape: &'a str,
    precision: Precision,
    device: &'a Device,
) -> What<'a> {
    What {
        kind,
        shape,
        precision,
        mesh: Mesh::ONE,
        device,
    }
}

impl args::Machine {
    fn runner(&self) -> Result<Runner, Error> {
        let options = SessionOptions {
            threads: self.threads.unwrap_or(0),
            ..SessionOptions::default()
        };
        Runner::on(&self.device, options)
    }
}
