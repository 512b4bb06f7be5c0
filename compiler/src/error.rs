//! The error of this crate: what was wrong, where in the graph, what was expected and found.

use crate::verify::Violations;
use thiserror::Error;

/// Why a graph could not be built, parsed, verified or compiled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompileError {
    /// An op was given operands that it does not take.
    #[error("{op} at {path}: expected {expected}, found {found}")]
    Operand {
        /// Name of the op.
        op: &'static str,
        /// Model path of the node.
        path: String,
        /// What the op takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// The text of a graph is not what the parser takes.
    #[error("line {line}, column {column}: expected {expected}, found {found}")]
    Text {
        /// Line, counted from one.
        line: usize,
        /// Column in characters, counted from one.
        column: usize,
        /// What the parser takes here.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A graph breaks the invariants of its stage: a bug of whoever made it.
    #[error(transparent)]
    Broken(#[from] Violations),
    /// A node cannot be erased while others use it.
    #[error("node {node} at {path} still has {uses} uses")]
    InUse {
        /// Dense number of the node.
        node: usize,
        /// Model path of the node.
        path: String,
        /// Number of uses.
        uses: usize,
    },
    /// A graph on several ranks has nothing that slices could cut.
    #[error(
        "graph {graph} has no attention over a latent grid to slice; it runs on one rank, not {ranks}"
    )]
    NothingToSlice {
        /// Name of the graph.
        graph: String,
        /// Ranks asked for.
        ranks: usize,
    },
    /// A degree is higher than what there is to cut.
    #[error(
        "{axis} degree {degree} cannot be served: there are {available} {what}; use {axis} degree {available} or less"
    )]
    TooManyRanks {
        /// Mesh axes.
        axis: String,
        /// Degree asked for.
        degree: usize,
        /// What the axes cut.
        what: String,
        /// How many of them there are.
        available: usize,
    },
    /// An op cannot work on parts of its operands.
    #[error("{op} at {path} cannot work on parts cut as {sharding}")]
    Unshardable {
        /// Name of the op.
        op: &'static str,
        /// Model path of the node.
        path: String,
        /// The cut.
        sharding: String,
    },
    /// A change of cut would gather a whole activation.
    #[error("{path}: going from {from} to {to} would gather a whole activation on a rank")]
    Gather {
        /// Model path of the node.
        path: String,
        /// Cut of the operand.
        from: String,
        /// Cut needed.
        to: String,
    },
    /// No product has the element type asked for.
    #[error("no matrix product has element type {found}; use f32, f16, bf16, i8 or f8e4m3")]
    Precision {
        /// Element type asked for.
        found: terrace_plan::DType,
    },
    /// Activations are not of the element type asked for.
    #[error("activations are no numbers of type {found}; use f32, f16 or bf16")]
    Activations {
        /// Element type asked for.
        found: terrace_plan::DType,
    },
    /// No kernel serves an op in the form in which it reached the plan.
    #[error("{op} at {path}: no kernel serves it: {reason}")]
    NoKernel {
        /// Name of the op.
        op: &'static str,
        /// Model path of the node.
        path: String,
        /// What is missing.
        reason: String,
    },
    /// Two layouts do not hold the same elements.
    #[error("{path}: no copy leads from {from} to {to}")]
    Layout {
        /// Model path of the node.
        path: String,
        /// Layout read.
        from: String,
        /// Layout written.
        to: String,
    },
    /// A pass wrote a plan that breaks a rule of the format: a bug of the compiler.
    #[error("the plan that was written is not valid; this is a bug of the compiler:\n{violations}")]
    InvalidPlan {
        /// All violations, one a line.
        violations: String,
    },
}
