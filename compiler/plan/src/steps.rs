//! What a rank does: its buffers and its straight list of steps.

use crate::{BoxCopy, DType, KernelCall, Rank, StridedBox};
use serde::{Deserialize, Serialize};

/// Index into [`RankPlan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BufferId(pub usize);

/// Index into [`crate::Plan::collectives`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CollectiveId(pub usize);

/// Index into [`RankPlan::patterns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PatternId(pub usize);

/// Index into [`crate::Plan::origins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OriginId(pub usize);

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Scratch of one call; buffers share it by live range.
    Arena,
    /// Kept for the life of a session: ports, tables, carried state. Never shared.
    State,
}

impl Region {
    /// The name used in text forms and plan files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arena => "arena",
            Self::State => "state",
        }
    }
}

/// A dense tensor of one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// Region that holds the buffer.
    pub region: Region,
    /// First byte in the region; a multiple of [`Buffer::ALIGNMENT`].
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub len: usize,
}

impl Buffer {
    /// Alignment of every buffer in bytes: one cache line.
    pub const ALIGNMENT: usize = 64;

    /// Size in bytes, or `None` when it overflows.
    pub fn bytes(&self) -> Option<usize> {
        self.len.checked_mul(self.dtype.bytes())
    }
}

/// How a port of the plan maps onto a buffer of a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Index into [`crate::Plan::inputs`] or [`crate::Plan::outputs`].
    pub port: usize,
    /// The rank's buffer.
    pub buffer: BufferId,
    /// Host tensor to buffer for an input, buffer to host tensor for an output. Empty when the
    /// rank holds no part of the port, or for an output that another rank delivers.
    pub boxes: Vec<BoxCopy>,
}

/// What one rank sends to, or receives from, one peer; boxes are matched in order by element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The other rank.
    pub peer: Rank,
    /// Regions of the source buffer when sending, of the destination when receiving.
    pub boxes: Vec<StridedBox>,
}

/// The data movement of an exchange, apart from the buffers it works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// What the rank keeps: source to destination.
    pub local: Vec<BoxCopy>,
    /// What each peer is sent, in order of rank; never empty boxes.
    pub sends: Vec<Transfer>,
    /// What each peer delivers, in order of rank; never empty boxes.
    pub receives: Vec<Transfer>,
}

/// One entry of a rank's list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The model path that the step comes from.
    pub origin: OriginId,
    /// What to do.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Action {
    /// Run a kernel.
    Launch(KernelCall),
    /// Begin an exchange: `src` is published to the peers and must not change until the wait.
    Exchange {
        /// The collective, in the same order on every member.
        collective: CollectiveId,
        /// The data movement.
        pattern: PatternId,
        /// Buffer that the sends and the local part read.
        src: BufferId,
        /// Buffer that the receives and the local part write; valid after the wait.
        dst: BufferId,
    },
    /// Finish an exchange: `dst` is complete and nobody reads `src` any more.
    Wait {
        /// The collective begun before.
        collective: CollectiveId,
    },
    /// Copy strided regions between two buffers of equal element type.
    Copy {
        /// Buffer read.
        src: BufferId,
        /// Buffer written.
        dst: BufferId,
        /// Regions.
        boxes: Vec<BoxCopy>,
    },
    /// The buffer's live range ends here.
    Free {
        /// An arena buffer.
        buffer: BufferId,
    },
}

/// Everything that one rank holds and does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankPlan {
    /// Bytes of [`Region::Arena`].
    pub arena_bytes: usize,
    /// Bytes of [`Region::State`].
    pub state_bytes: usize,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// Inputs of the plan on this rank, one entry per input port in order.
    pub inputs: Vec<Binding>,
    /// Outputs of the plan on this rank, one entry per output port in order.
    pub outputs: Vec<Binding>,
    /// Distinct data movements.
    pub patterns: Vec<Pattern>,
    /// Run once per session, before the first call.
    pub init: Vec<Step>,
    /// Run once per call.
    pub steps: Vec<Step>,
}
