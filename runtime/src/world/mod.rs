//! Processes that run one plan together: who this one is, and how they learn where the others are.
//!
//! A launcher (torchrun, mpirun, srun) starts one process per rank and tells each by its environment which
//! one it is. [`World::from_environment`] reads that; [`World::meet`] tells every rank the addresses of all.
//!
//! Where a launcher starts all ranks on one host and names no place to meet, they meet on the loopback, at a port
//! that follows from the process that has started them all.
//!
//! Refused: half an environment, numbers that contradict each other, processes of another program or
//! another number of ranks, ranks that do not come in time.

mod fault;
mod meet;

pub use fault::WorldFault;
pub(crate) use meet::{GREETING_TIME, Met, dial, listen};

use terrace_plan::Rank;

/// Added to the port of a launcher, which has a use of its own for it.
const PORT_STEP: u16 = 1;
/// Where the ports of launchers that name none begin: below those that systems give away by themselves.
const FIRST_PORT: u16 = 20_000;
/// How many of them there are.
const PORTS: u16 = 10_000;

/// One process among those that run a plan together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// This process.
    pub rank: Rank,
    /// Number of processes.
    pub ranks: usize,
    /// Number of this process on its host, which is the number of its GPU.
    pub local: usize,
    /// Processes on this host, or more.
    pub locals: usize,
    /// Host of rank 0.
    pub host: String,
    /// Port on which rank 0 waits for the others.
    pub port: u16,
}

/// The variables of a launcher.
struct Launcher {
    name: &'static str,
    rank: &'static str,
    ranks: &'static str,
    local: &'static str,
    /// Optional.
    locals: &'static str,
}

const LAUNCHERS: [Launcher; 3] = [
    Launcher {
        name: "torchrun",
        rank: "RANK",
        ranks: "WORLD_SIZE",
        local: "LOCAL_RANK",
        locals: "LOCAL_WORLD_SIZE",
    },
    Launcher {
        name: "mpirun",
        rank: "OMPI_COMM_WORLD_RANK",
        ranks: "OMPI_COMM_WORLD_SIZE",
        local: "OMPI_COMM_WORLD_LOCAL_RANK",
        locals: "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    Launcher {
        name: "srun",
        rank: "SLURM_PROCID",
        ranks: "SLURM_STEP_NUM_TASKS",
        local: "SLURM_LOCALID",
        locals: "SLURM_STEP_TASKS_PER_NODE",
    },
];

impl World {
    /// A process that runs a plan alone.
    pub fn alone() -> Self {
        Self {
            rank: Rank(0),
            ranks: 1,
            local: 0,
            locals: 1,
            host: LOOPBACK.to_owned(),
            port: 0,
        }
    }

    /// Who this process is, or `None` when no launcher has started it.
    ///
    /// # Errors
    /// When variables are missing, no numbers, or contradict each other.
    pub fn from_environment() -> Result<Option<Self>, WorldFault> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`World::from_environment`], with the variables that `get` knows.
    ///
    /// # Errors
    /// As for [`World::from_environment`].
    pub fn from_variables(
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, WorldFault> {
        let started =
            |launcher: &&Launcher| get(launcher.rank).is_some() && get(launcher.ranks).is_some();
        let Some(launcher) = LAUNCHERS.iter().find(started) else {
            return Ok(None);
        };
        let number = |variable| number(&get, launcher.name, variable);
        let (rank, ranks) = (number(launcher.rank)?, number(launcher.ranks)?);
        if rank >= ranks {
            return Err(WorldFault::NoRank { rank, ranks });
        }
        if ranks == 1 {
            return Ok(Some(Self::alone().at(get(launcher.local))));
        }
        let locals = get(launcher.locals).as_deref().and_then(leading);
        let missing = |variable| WorldFault::Missing {
            launcher: launcher.name,
            variable,
        };
        let place = (get("MASTER_ADDR"), get("MASTER_PORT"));
        let (host, port) = match (place, own_port()) {
            ((None, None), Some(port)) if locals == Some(ranks) => (LOOPBACK.to_owned(), port),
            ((None, _), _) => return Err(missing("MASTER_ADDR")),
            ((Some(host), _), _) => (host, beside(number("MASTER_PORT")?)?),
        };
        Ok(Some(Self {
            rank: Rank(rank),
            ranks,
            local: number(launcher.local)?,
            locals: locals.unwrap_or(ranks),
            host,
            port,
        }))
    }

    /// The same process with the number on its host that a variable gives, if it does.
    fn at(self, local: Option<String>) -> Self {
        let local = local.and_then(|text| text.trim().parse().ok());
        Self {
            local: local.unwrap_or(0),
            ..self
        }
    }
}

const LOOPBACK: &str = "127.0.0.1";

fn number(
    get: &impl Fn(&str) -> Option<String>,
    launcher: &'static str,
    variable: &'static str,
) -> Result<usize, WorldFault> {
    let text = get(variable).ok_or(WorldFault::Missing { launcher, variable })?;
    text.trim().parse().map_err(|_| WorldFault::NotANumber {
        variable,
        found: text,
    })
}

/// The number that a text such as `4(x2)` begins with.
fn leading(text: &str) -> Option<usize> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().ok()
}

/// The port beside that of the launcher.
fn beside(given: usize) -> Result<u16, WorldFault> {
    let port = u16::try_from(given).ok().filter(|&port| port > 0);
    let port = port.and_then(|port| port.checked_add(PORT_STEP));
    port.ok_or(WorldFault::Port { found: given })
}

/// A port that the processes of one launcher on one host have in common and others hardly do.
#[cfg(unix)]
fn own_port() -> Option<u16> {
    let parent = std::os::unix::process::parent_id() % u32::from(PORTS);
    u16::try_from(parent).ok().map(|step| FIRST_PORT + step)
}

#[cfg(not(unix))]
fn own_port() -> Option<u16> {
    None
}
