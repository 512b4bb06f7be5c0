//! The command line of Terrace.
//!
//! Exit codes: 0 done, 2 the request cannot be served, with one message on standard error.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main(std::env::args_os())
}
