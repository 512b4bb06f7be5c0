//! The error of this crate: why a plan cannot be read, written, trusted or used.
//!
//! Every variant carries what was expected and what was found. Violations of the format's
//! rules are [`crate::PlanViolation`]s; one [`PlanErrors`] holds all of them.

use crate::PlanViolation;
use std::fmt;
use std::path::PathBuf;

/// Why a plan cannot be read, written, trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read the plan {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the plan {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plan holds something that JSON cannot express.
    #[error("the plan cannot be written as JSON: {0}")]
    Serialise(#[source] serde_json::Error),
    /// The text is JSON but has no plan header.
    #[error("not a plan: {reason}; expected a JSON object that begins with `header`")]
    NotAPlan {
        /// What was found instead.
        reason: String,
    },
    /// The text is not JSON.
    #[error("not a plan: the text is not JSON (line {line}, column {column}: {reason})")]
    NotJson {
        /// Line, counted from one.
        line: usize,
        /// Column, counted from one.
        column: usize,
        /// What the parser said.
        reason: String,
    },
    /// The text ends before the plan does.
    #[error("the plan is truncated: it ends at line {line}, column {column}; compile it again")]
    Truncated {
        /// Line, counted from one.
        line: usize,
        /// Column, counted from one.
        column: usize,
    },
    /// The plan has another format version.
    #[error(
        "the plan has format version {found}, this program reads version {expected}; \
         compile it again with this program"
    )]
    Format {
        /// Version that this crate reads.
        expected: u32,
        /// Version of the file.
        found: u64,
    },
    /// The body does not have the fields of a plan.
    #[error(
        "the plan is damaged at line {line}, column {column}: {reason}; \
         the plan was edited or written by another version: compile it again"
    )]
    Body {
        /// Line, counted from one.
        line: usize,
        /// Column, counted from one.
        column: usize,
        /// What the parser said.
        reason: String,
    },
    /// The plan breaks rules of the format.
    #[error(transparent)]
    Invalid(#[from] PlanErrors),
    /// The plan has no such rank.
    #[error("rank {found} does not exist: the plan has {ranks} ranks, counted from 0")]
    NoRank {
        /// Rank asked for.
        found: crate::Rank,
        /// Ranks of the plan.
        ranks: usize,
    },
    /// The plan was compiled for another model.
    #[error(
        "the plan was compiled for model {found}, this is model {expected}; \
         use the checkpoint that it was compiled for, or compile it again for this one"
    )]
    Model {
        /// Fingerprint of the model at hand.
        expected: String,
        /// Fingerprint in the plan.
        found: String,
    },
    /// The plan was compiled for another shape.
    #[error(
        "the plan was compiled for shape {found}, {expected} is asked for; \
         ask for the shape of the plan, or compile it again for this one"
    )]
    Shape {
        /// Shape asked for.
        expected: String,
        /// Shape of the plan.
        found: String,
    },
    /// The plan was compiled for another element type.
    #[error(
        "the plan was compiled for element type {found}, {expected} is asked for; \
         compile it again for this type"
    )]
    DType {
        /// Element type asked for.
        expected: crate::DType,
        /// Element type of the plan.
        found: crate::DType,
    },
    /// The plan was compiled for another mesh.
    #[error(
        "the plan was compiled for mesh {found}, mesh {expected} is asked for; \
         run it on the mesh of the plan, or compile it again for this one"
    )]
    Mesh {
        /// Mesh asked for.
        expected: String,
        /// Mesh of the plan.
        found: String,
    },
    /// The plan was compiled for another kernel set.
    #[error(
        "the plan was compiled for kernels {found}, this program has {expected}; \
         compile it again with this program"
    )]
    Kernels {
        /// Kernel set at hand.
        expected: String,
        /// Kernel set of the plan.
        found: String,
    },
}

/// The violations of a plan: never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanErrors {
    /// The first [`PlanErrors::KEPT`] violations, in order of the plan.
    pub violations: Vec<PlanViolation>,
    /// Violations beyond those.
    pub more: usize,
}

impl PlanErrors {
    /// How many violations are kept before the rest is only counted.
    pub const KEPT: usize = 1000;
    /// How many violations the text form spells out before it counts the rest.
    pub const SHOWN: usize = 20;
}

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: &str = "the plan was edited or written by another version: compile it again";
        if let [only] = self.violations.as_slice() {
            return write!(f, "{only}; {ADVICE}");
        }
        let count = self.violations.len().saturating_add(self.more);
        writeln!(f, "the plan breaks {count} rules:")?;
        for violation in self.violations.iter().take(Self::SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        if let Some(more @ 1..) = count.checked_sub(Self::SHOWN) {
            writeln!(f, "  and {more} more")?;
        }
        f.write_str(ADVICE)
    }
}

impl std::error::Error for PlanErrors {}
