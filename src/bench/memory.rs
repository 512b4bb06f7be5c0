//! Memory of a measurement, beside what the plan says.

use terrace_runtime::Session;

/// Memory of the process that measured, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory at its peak, loading and the program itself included.
    pub peak: usize,
    /// Weights as the plan has them, without the padding of packed layouts.
    pub weights: usize,
    /// Scratch of a call, of all ranks.
    pub arenas: usize,
    /// What ranks keep between calls, of all ranks.
    pub states: usize,
}

impl Memory {
    /// Memory so far, where the system tells: Linux.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let held = session.memory();
        Some(Self {
            peak: peak()?,
            weights: held.weights,
            arenas: held.ranks.iter().map(|rank| rank.arena).sum(),
            states: held.ranks.iter().map(|rank| rank.state).sum(),
        })
    }
}

/// Peak resident memory of this process, in bytes: `VmHWM` of proc(5).
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
