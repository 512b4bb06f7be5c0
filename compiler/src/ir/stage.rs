//! Stages: how far the passes have brought a graph. Each has a set of legal ops and invariants,
//! which [`crate::verify`] writes down and checks.

use std::fmt;

/// A stage of compilation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// As a model was lowered: no fused ops, nothing cut.
    Model,
    /// Ops may be fused; nothing cut.
    Fused,
    /// Tensors are cut; reshards change cuts.
    Sharded,
    /// Collectives change cuts, and every op gets the cuts that it needs.
    Comm,
    /// The order of execution and the phases are fixed.
    Scheduled,
    /// One rank's part of a scheduled graph: types are those of parts, nothing is cut any more.
    Local,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] = [
        Self::Model,
        Self::Fused,
        Self::Sharded,
        Self::Comm,
        Self::Scheduled,
        Self::Local,
    ];

    /// The lower-case name that the text form uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Fused => "fused",
            Self::Sharded => "sharded",
            Self::Comm => "comm",
            Self::Scheduled => "scheduled",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
