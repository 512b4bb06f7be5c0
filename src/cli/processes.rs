//! Processes that a launcher has started: which of them this one is, and what it does of the work.
//!
//! Without a launcher, or with one process only, all ranks are threads of this process, unless `--fabric` says
//! otherwise. Files are written and results printed by the process of rank 0 alone.

use super::args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use terrace::{Degrees, Device, Error, Fabric, Rank, Runner, SessionOptions, Trace, World};
use terrace_runtime::RuntimeError;

/// This process among those that generate together.
pub struct Place(Option<(World, Fabric)>);

impl Place {
    /// All ranks in this process.
    pub const HERE: Self = Self(None);

    /// What environment and flags say.
    ///
    /// # Errors
    /// An environment that contradicts itself, or a fabric that the device does not have.
    pub fn find(processes: &args::Processes, device: &Device) -> Result<Self, Error> {
        let asked = processes.fabric.map(Fabric::from);
        if asked == Some(Fabric::Local) {
            return Ok(Self::HERE);
        }
        let world = World::from_environment().map_err(RuntimeError::from)?;
        let place = match (asked, world) {
            (Some(fabric), world) => Some((world.unwrap_or_else(World::alone), fabric)),
            (None, Some(world)) if world.ranks > 1 => {
                Some((world, Fabric::between_processes(device)))
            }
            (None, Some(_) | None) => None,
        };
        if let Some((_, fabric)) = &place {
            fabric.check(device)?;
        }
        Ok(Self(place))
    }

    /// Whether this process writes and prints.
    pub fn leads(&self) -> bool {
        self.rank() == Rank(0)
    }

    /// The degrees asked for, or those that every process makes one rank of.
    ///
    /// # Errors
    /// Another number of ranks is asked for than processes were started.
    pub fn degrees(&self, asked: Degrees) -> Result<Degrees, Error> {
        match &self.0 {
            Some((world, _)) => asked.among(world.ranks),
            None => Ok(asked),
        }
    }

    /// The device that the flags name, and the trace that its sessions fill, which must have a place to go.
    ///
    /// # Errors
    /// As for [`Runner::among`]; the trace cannot be written.
    pub fn runner(&self, args: &args::Execution) -> Result<(Runner, Option<Arc<Trace>>), Error> {
        if let Some(path) = &args.trace {
            terrace::tensors::check_writable(&self.trace_path(path))?;
        }
        let trace = args.trace.as_ref().map(|_| Arc::new(Trace::new()));
        let options = SessionOptions {
            threads: args.threads.unwrap_or(0),
            timeout: Duration::from_secs(args.timeout),
            trace: trace.clone(),
        };
        let runner = match &self.0 {
            Some((world, fabric)) => Runner::among(world, *fabric, &args.device, options),
            None => Runner::on(&args.device, options),
        };
        Ok((runner?, trace))
    }

    /// Writes the trace where the flags want it, or beside it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_trace(&self, args: &args::Execution, trace: Option<&Trace>) -> Result<(), Error> {
        if let (Some(path), Some(trace)) = (&args.trace, trace) {
            trace.write(self.trace_path(path))?;
        }
        Ok(())
    }

    /// A file for every process, beside that of rank 0.
    fn trace_path(&self, path: &Path) -> PathBuf {
        let Rank(rank) = self.rank();
        if rank == 0 {
            return path.to_owned();
        }
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push(format!(".rank{rank}"));
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        path.with_file_name(name)
    }

    fn rank(&self) -> Rank {
        self.0.as_ref().map_or(Rank(0), |(world, _)| world.rank)
    }
}

impl From<args::Fabric> for Fabric {
    fn from(fabric: args::Fabric) -> Self {
        match fabric {
            args::Fabric::Local => Self::Local,
            args::Fabric::Tcp => Self::Tcp,
            args::Fabric::Nccl => Self::Nccl,
        }
    }
}
