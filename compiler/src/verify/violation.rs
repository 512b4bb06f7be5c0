//! What the verifier reports.

use crate::ir::Stage;
use std::fmt;
use thiserror::Error;

/// Everything that is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations {
    /// Name of the graph.
    pub graph: String,
    /// Stage whose invariants do not hold.
    pub stage: Stage,
    /// The pass that has made the graph.
    pub pass: Option<&'static str>,
    /// At least one.
    pub violations: Vec<Violation>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The node's line in the text form; none for the graph as a whole.
    pub line: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A node needs its own result.
    #[error("depends on itself")]
    Cycle,
    /// Operands do not fit the op.
    #[error("expected {expected}, found {found}")]
    Operands {
        /// What the op takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// The type is not the one that the op infers.
    #[error("its type should be {inferred}")]
    Type {
        /// What the op infers.
        inferred: String,
    },
    /// A name that the text form cannot write.
    #[error("the name {name:?} is not a word of letters, digits and _")]
    Name {
        /// The name.
        name: String,
    },
    /// Two factors of a type share a name.
    #[error("two factors of its type have the name {name}")]
    SameFactor {
        /// The name.
        name: String,
    },
    /// A dimension or segment that is made of nothing.
    #[error("the dimension {dim} has a segment without factors")]
    EmptyDim {
        /// Name of the dimension.
        dim: String,
    },
    /// Two inputs or two outputs share a name.
    #[error("another {port} has the name {name:?}")]
    SamePort {
        /// `input` or `output`.
        port: &'static str,
        /// The name.
        name: String,
    },
    /// A node uses an output.
    #[error("an output cannot be used")]
    UsedOutput,
    /// No output depends on the node.
    #[error("reaches no output")]
    Dead,
    /// An op in a form that the stage does not have.
    #[error("is not legal at this stage: {reason}")]
    Illegal {
        /// Why.
        reason: &'static str,
    },
    /// A cut before the stage that makes cuts, or after the one that takes them away.
    #[error("nothing is cut at this stage")]
    Uncuttable,
    /// A group that the type does not have.
    #[error("is cut at {group}, but no segment of its type has these factors side by side")]
    NoGroup {
        /// The group.
        group: String,
    },
    /// Two groups share a factor.
    #[error("two cuts share the factor {factor}")]
    SharedFactor {
        /// The factor.
        factor: String,
    },
    /// An axis that cuts a tensor more than once.
    #[error("is cut by {axis} more than once")]
    SharedAxis {
        /// The axis.
        axis: &'static str,
    },
    /// An axis that cuts some segments of a sum and leaves others whole.
    #[error("{axis} cuts some segments of {dim} and leaves others whole")]
    HalfCut {
        /// The axis.
        axis: &'static str,
        /// The dimension.
        dim: String,
    },
    /// Parts and ranks differ in number.
    #[error("{group} is cut into {parts} parts for {ranks} ranks")]
    Parts {
        /// The group.
        group: String,
        /// Number of parts.
        parts: usize,
        /// Product of the sizes of the axes.
        ranks: usize,
    },
    /// Offsets that do not rise from zero to the size.
    #[error("the offsets {offsets:?} of {group} do not rise from 0 to {size}")]
    Offsets {
        /// The group.
        group: String,
        /// The offsets.
        offsets: Vec<usize>,
        /// Size of the group.
        size: usize,
    },
    /// A shift of a partition that the ring does not cut, or a whole turn and more.
    #[error("{group} is shifted by {shift} on a ring of {ring}")]
    Shift {
        /// The group.
        group: String,
        /// The shift.
        shift: usize,
        /// Positions of the ring that cuts the group; one when the ring does not cut it.
        ring: usize,
    },
    /// Cuts inside attention that are not those outside it, joined over the Ulysses group.
    #[error("the slices {heads} inside attention do not join the slices {rows} outside it")]
    Slices {
        /// Outside attention.
        rows: String,
        /// Inside.
        heads: String,
    },
    /// A reshard that says one cut and has another.
    #[error("makes the cut {made}, but is shown with another")]
    Reshard {
        /// What the op says.
        made: String,
    },
    /// An operand that is not cut as the op needs.
    #[error("needs operand {port} cut as {needed}, found {found}")]
    OperandCut {
        /// Port of the operand.
        port: usize,
        /// What the op needs.
        needed: String,
        /// What the operand has.
        found: String,
    },
    /// A result that is not cut as the op gives it.
    #[error("gives the cut {given}")]
    ResultCut {
        /// What the op gives.
        given: String,
    },
    /// A collective whose attributes do not tell the change of cut.
    #[error("does not lead from {from} to its cut")]
    Collective {
        /// Cut of the operand.
        from: String,
    },
    /// There is no schedule.
    #[error("the graph has no schedule")]
    Unscheduled,
    /// A node that the schedule does not have.
    #[error("is not in the schedule")]
    Missing,
    /// A node that the schedule has twice.
    #[error("is in the schedule twice")]
    Twice,
    /// The schedule has a node that the graph does not have.
    #[error("the schedule has nodes that the graph does not have: {count}")]
    Unknown {
        /// How many.
        count: usize,
    },
    /// An operand is computed after its user.
    #[error("is scheduled before its operand {port}")]
    Late {
        /// Port of the operand.
        port: usize,
    },
    /// What runs at init needs what runs at every call.
    #[error("runs at init, but needs what runs at every step")]
    Phase,
    /// A port that runs at init.
    #[error("runs at init, but ports are bound at every step")]
    PortPhase,
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { graph, stage, .. } = self;
        match self.pass {
            Some(pass) => write!(f, "internal error: {pass} broke graph {graph}")?,
            None => write!(f, "internal error: graph {graph} is broken")?,
        }
        let count = self.violations.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, ", {count} violation{plural} at stage {stage}:")?;
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Some(line) => write!(f, "  {}\n    in {line}", self.fault),
            None => write!(f, "  {}", self.fault),
        }
    }
}

impl std::error::Error for Violations {}
