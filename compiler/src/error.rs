//! The error of this crate: what was wrong, where in the graph, what was expected and found.

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
}
