//! The plan as a whole: header, ports, weights, collectives and ranks.

use crate::{Axis, DType, Mesh, Rank, RankPlan, Weight};
use serde::{Deserialize, Serialize};

/// A compiled graph: plain data, untrusted until checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Read and compared before anything else.
    pub header: Header,
    /// Sizes of the named axes.
    pub mesh: Mesh,
    /// How the work was cut; empty when the graph runs on one rank.
    pub partitions: Vec<NamedPartition>,
    /// Tensors given by the caller.
    pub inputs: Vec<Port>,
    /// Tensors given back to the caller.
    pub outputs: Vec<Port>,
    /// Outputs that become inputs of the next call without leaving the ranks.
    pub carries: Vec<Carry>,
    /// Weights of all ranks.
    pub weights: Vec<Weight>,
    /// Exchanges of all ranks, in the order of issue.
    pub collectives: Vec<Collective>,
    /// Model paths that steps refer to.
    pub origins: Vec<String>,
    /// One entry per rank of the mesh.
    pub ranks: Vec<RankPlan>,
}

/// What a plan was made by and for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of this format: [`Header::FORMAT`].
    pub format: u32,
    /// Name and version of the program that wrote the plan.
    pub producer: String,
    /// Name of the graph, e.g. `denoise-step`.
    pub graph: String,
    /// What the plan fits; every part has its own message when it does not.
    pub fingerprint: Fingerprint,
    /// What was asked of the compiler, as canonical JSON; enough to compile again.
    pub request: String,
}

impl Plan {
    /// Element type of activations: 16 bits where a buffer has them, f32 otherwise. A device must have kernels
    /// that take it.
    pub fn activations(&self) -> DType {
        let buffers = self.ranks.iter().flat_map(|rank| &rank.buffers);
        let mut types = buffers.map(|buffer| buffer.dtype);
        types
            .find(|dtype| dtype.is_floating() && *dtype != DType::F32)
            .unwrap_or(DType::F32)
    }
}

impl Header {
    /// The version of the plan format that this crate reads and writes.
    pub const FORMAT: u32 = 2;
}

/// What a plan fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Hash of the model config.
    pub model: String,
    /// Global sizes, e.g. `49x480x720 text=226 batch=2`.
    pub shape: String,
    /// Element type of activations.
    pub dtype: DType,
    /// The mesh as text.
    pub mesh: String,
    /// Name and version of the kernel set.
    pub kernels: String,
}

/// A tensor that crosses the border of the plan, in its host layout (dense, row-major).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name used to bind the tensor.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Global host shape.
    pub shape: Vec<usize>,
}

/// An output that is the next call's input; both ports have equal shapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carry {
    /// Index into [`Plan::outputs`].
    pub output: usize,
    /// Index into [`Plan::inputs`].
    pub input: usize,
}

/// Offsets of one group of factors over mesh axes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPartition {
    /// Factor group, e.g. `txt`, `h.w`, `n`.
    pub factors: String,
    /// Sizes of the factors in the group, e.g. `[30, 45]`.
    pub sizes: Vec<usize>,
    /// Tokens that one unit of the group carries: the frames for `h.w`, otherwise one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repeat: usize,
    /// Mesh axes, outermost first.
    pub axes: Vec<Axis>,
    /// `product of axis sizes + 1` offsets, from zero to the size of the group.
    pub offsets: Vec<usize>,
}

/// Kind of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectiveKind {
    /// Sequence shards for head shards, or back.
    AllToAll,
    /// Every member gets every part.
    AllGather,
    /// Every member passes its block to the next.
    RingShift,
}

impl CollectiveKind {
    /// The name used in text forms.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllToAll => "all_to_all",
            Self::AllGather => "all_gather",
            Self::RingShift => "ring_shift",
        }
    }
}

/// One exchange among the members of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collective {
    /// Kind.
    pub kind: CollectiveKind,
    /// Axis along which the members differ.
    pub axis: Axis,
    /// Members in axis order.
    pub members: Vec<Rank>,
    /// Bytes from member (row) to member (column); zero on the diagonal.
    pub bytes: Vec<Vec<u64>>,
}

const fn one() -> usize {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_one(n: &usize) -> bool {
    *n == 1
}
