//! Commands: one file per group, flags in `args.rs`, what is printed in `console.rs`.

mod args;
mod bench;
mod check;
mod compile;
mod console;
mod devices;
mod generate;
mod inspect;
mod processes;
mod tensors;

use args::{Cli, Command};
use clap::Parser;
use console::{Console, Reader};
use processes::Place;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use terrace::{Degrees, Error, Granularity, Model, Precision, Runner, Trace};

/// Parses the command line, runs the command and reports its error.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(args::normalise(args));
    let (console, result) = run(cli.command);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error);
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> (Console, Result<(), Error>) {
    let json = match &command {
        Command::Generate(args) => args.execution.json,
        Command::Run(args) => args.execution.json,
        Command::Forward(args) => args.execution.json,
        Command::EncodeText(args) => args.execution.json,
        Command::Decode(args) => args.execution.json,
        Command::Compile(args) => args.json,
        Command::Check(args) => args.json,
        Command::Devices(args) => args.json,
        Command::Inspect(args) => args.format == args::Format::Json,
        Command::Bench(args) => args.json(),
    };
    let console = Console::new(match json {
        true => Reader::Program,
        false => Reader::Person,
    });
    let result = match command {
        Command::Generate(args) => generate::generate(args, &console),
        Command::Run(args) => generate::run(args, &console),
        Command::Compile(args) => compile::compile(args, &console),
        Command::Inspect(args) => inspect::inspect(args, &console),
        Command::Check(args) => check::check(args, &console),
        Command::Forward(args) => tensors::forward(args, &console),
        Command::EncodeText(args) => tensors::encode_text(args, &console),
        Command::Decode(args) => tensors::decode(args, &console),
        Command::Devices(args) => devices::devices(args, &console),
        Command::Bench(args) => bench::bench(args, &console),
    };
    (console, result)
}

/// The checkpoint at `path`, or the one that ships.
fn open(path: Option<&Path>) -> Result<Model, Error> {
    path.map_or_else(Model::demo, Model::open)
}

/// The device that the flags name, and the trace that its sessions fill, which must have a place to go.
fn runner(args: &args::Execution) -> Result<(Runner, Option<Arc<Trace>>), Error> {
    Place::HERE.runner(args)
}

/// Writes the trace where the flags want it.
fn write_trace(args: &args::Execution, trace: Option<&Trace>) -> Result<(), Error> {
    Place::HERE.write_trace(args, trace)
}

impl args::Precision {
    fn read(&self) -> Precision {
        match self.dtype {
            args::DType::F32 => Precision::F32,
            args::DType::F16 => Precision::F16,
            args::DType::Bf16 => Precision::Bf16,
            args::DType::Int8 => Precision::Int8,
            args::DType::Fp8 => Precision::Fp8,
        }
    }
}

impl args::Parallel {
    fn degrees(&self) -> Degrees {
        Degrees {
            ranks: self.num_gpus,
            cfg: self.cfg_degree,
            ring: self.ring_degree,
            ulysses: self.ulysses_degree,
        }
    }

    fn granularity(&self) -> Granularity {
        match self.slice_granularity {
            args::SliceGranularity::Row => Granularity::Row,
            args::SliceGranularity::Cell => Granularity::Cell,
        }
    }
}
