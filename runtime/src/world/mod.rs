//! Processes that run one plan together: who this one is, and how all get what one of them made.
//!
//! A launcher (torchrun, mpirun, srun) starts one process per rank and tells each by its environment which
//! one it is. [`World::from_environment`] reads that; [`World::share`] hands bytes of rank 0 to all, which
//! is what a communicator of a vendor's library needs to begin with.
//!
//! Refused: half an environment, numbers that contradict each other, processes that run another plan or
//! another number of ranks, ranks that do not come in time.

mod fault;
mod share;

pub use fault::WorldFault;

use terrace_plan::Rank;

/// Added to the port of a launcher, which has a use of its own for it.
const PORT_STEP: u16 = 1;

/// One process among those that run a plan together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// This process.
    pub rank: Rank,
    /// Number of processes.
    pub ranks: usize,
    /// Number of this process on its host, which is the number of its GPU.
    pub local: usize,
    /// Host of rank 0.
    pub host: String,
    /// Port on which rank 0 waits for the others.
    pub port: u16,
}

/// The variables of a launcher: its name, then rank, number of ranks, rank on the host.
const LAUNCHERS: [(&str, [&str; 3]); 3] = [
    ("torchrun", ["RANK", "WORLD_SIZE", "LOCAL_RANK"]),
    (
        "mpirun",
        [
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
        ],
    ),
    (
        "srun",
        ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"],
    ),
];

impl World {
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
            |(_, [rank, size, _]): &&(&str, [&str; 3])| get(rank).is_some() && get(size).is_some();
        let Some((launcher, names)) = LAUNCHERS.iter().find(started) else {
            return Ok(None);
        };
        let number = |name: &'static str| number(&get, launcher, name);
        let [rank, ranks, local] = [number(names[0])?, number(names[1])?, number(names[2])?];
        if rank >= ranks {
            return Err(WorldFault::NoRank { rank, ranks });
        }
        // A single process meets nobody.
        let host = match get("MASTER_ADDR") {
            None if ranks == 1 => "127.0.0.1".to_owned(),
            None => {
                return Err(WorldFault::Missing {
                    launcher,
                    variable: "MASTER_ADDR",
                });
            }
            Some(host) => host,
        };
        let port = match get("MASTER_PORT") {
            None if ranks == 1 => 0,
            None | Some(_) => port(number("MASTER_PORT")?)?,
        };
        Ok(Some(Self {
            rank: Rank(rank),
            ranks,
            local,
            host,
            port,
        }))
    }
}

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

/// The port beside that of the launcher.
fn port(given: usize) -> Result<u16, WorldFault> {
    let port = u16::try_from(given).ok().filter(|&port| port > 0);
    let port = port.and_then(|port| port.checked_add(PORT_STEP));
    port.ok_or(WorldFault::Port { found: given })
}
