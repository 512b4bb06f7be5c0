//! The facts of an explained plan, as plain data with a stable JSON form.

use crate::{Axis, CollectiveKind, DType, Header, Mesh, Port, Rank};
use serde::{Deserialize, Serialize};

/// What a plan says: how the work is cut, what every rank holds, computes and exchanges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What the plan was made by and for.
    pub header: Header,
    /// Element type of activations.
    pub activations: DType,
    /// Sizes of the named axes.
    pub mesh: Mesh,
    /// How the work was cut; empty when nothing is.
    pub cuts: Vec<Cut>,
    /// How evenly tokens lie on the ranks; absent when the plan has no token grid.
    pub token_balance: Option<Balance>,
    /// One entry per rank, in order.
    pub ranks: Vec<RankFacts>,
    /// What all ranks together exchange in one call, one entry per kind that occurs.
    pub traffic: Vec<KindTraffic>,
    /// What one call moves from one rank to another, in order of sender, receiver and kind.
    pub links: Vec<Link>,
    /// Number of weights of all ranks together.
    pub weights: usize,
    /// Tensors given by the caller.
    pub inputs: Vec<Port>,
    /// Tensors given back to the caller.
    pub outputs: Vec<Port>,
    /// Outputs that become inputs of the next call without leaving the ranks.
    pub carries: Vec<CarryFacts>,
}

/// What a cut divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Text tokens: factor `txt`.
    Text,
    /// Cells of the `(h w)` raster, each of them a token per frame.
    Cells,
    /// Whole rows of the `(h w)` raster: a cut of cells that hits row borders only.
    Rows,
    /// Attention heads: factor `n`.
    Heads,
    /// Batch items: factor `b`.
    Batch,
    /// Any other factor.
    Other,
}

impl Quantity {
    /// The plural used in text forms.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text tokens",
            Self::Cells => "cells",
            Self::Rows => "rows",
            Self::Heads => "heads",
            Self::Batch => "batch items",
            Self::Other => "units",
        }
    }
}

/// Offsets of one group of factors over mesh axes, in units of its quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Factor group, e.g. `h.w`.
    pub factors: String,
    /// Sizes of the factors in the group.
    pub sizes: Vec<usize>,
    /// What the offsets count.
    pub quantity: Quantity,
    /// Tokens that one unit carries: cells of a row x frames; zero for heads and batch items.
    pub tokens_per_unit: usize,
    /// Mesh axes, outermost first.
    pub axes: Vec<Axis>,
    /// First unit of every part, and the end of the last.
    pub offsets: Vec<usize>,
    /// How evenly the parts are sized.
    pub balance: Option<Balance>,
}

/// How evenly something lies on the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Of the rank that has least.
    pub min: usize,
    /// Of the rank that has most.
    pub max: usize,
    /// Average.
    pub mean: f64,
    /// `max / mean - 1` in percent: the time that the average rank waits.
    pub imbalance_percent: f64,
}

impl Balance {
    /// The balance of some loads; `None` without any.
    pub fn of(loads: &[usize]) -> Option<Self> {
        let (min, max) = (*loads.iter().min()?, *loads.iter().max()?);
        let mean = loads.iter().map(|&n| n as f64).sum::<f64>() / loads.len() as f64;
        let imbalance_percent = if mean > 0.0 {
            (max as f64 - mean) / mean * 100.0
        } else {
            0.0
        };
        Some(Self {
            min,
            max,
            mean,
            imbalance_percent,
        })
    }
}

/// What one rank holds, computes and exchanges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankFacts {
    /// The rank.
    pub rank: Rank,
    /// The rank's part of every cut, in the order of [`Explanation::cuts`]; absent when the
    /// cut does not fit the mesh.
    pub parts: Vec<Option<Part>>,
    /// Tokens per batch item; absent when the plan has no token grid.
    pub tokens: Option<Tokens>,
    /// Memory.
    pub memory: Memory,
    /// What it exchanges in one call.
    pub traffic: Vec<Traffic>,
    /// Steps run once per session.
    pub init: Work,
    /// Steps run once per call.
    pub call: Work,
}

/// A half-open range of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// First unit.
    pub start: usize,
    /// One past the last unit.
    pub end: usize,
}

impl Part {
    /// Number of units.
    pub const fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether the rank holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tokens of one batch item on a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of the text.
    pub text: usize,
    /// Of the video: cells x frames.
    pub video: usize,
    /// Both.
    pub total: usize,
}

impl Tokens {
    pub(super) const fn new(text: usize, video: usize) -> Self {
        Self {
            text,
            video,
            total: text.saturating_add(video),
        }
    }
}

/// Memory of a rank in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Scratch of one call, at its peak.
    pub arena: u64,
    /// Kept for the life of a session.
    pub state: u64,
    /// Weights that the rank reads, as they lie in memory, one entry per element type. Ranks of one process
    /// share them.
    pub weights: Vec<WeightBytes>,
    /// Everything.
    pub total: u64,
}

impl Memory {
    pub(super) fn of(arena: usize, state: usize, weights: Vec<WeightBytes>) -> Self {
        let (arena, state) = (arena as u64, state as u64);
        let total = weights.iter().fold(arena.saturating_add(state), |sum, it| {
            sum.saturating_add(it.bytes)
        });
        Self {
            arena,
            state,
            weights,
            total,
        }
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        self.weights
            .iter()
            .fold(0, |sum, it| sum.saturating_add(it.bytes))
    }
}

/// Bytes of the weights of one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightBytes {
    /// Element type in memory.
    pub dtype: DType,
    /// Number of weights.
    pub count: usize,
    /// Their bytes, without the padding of packed layouts.
    pub bytes: u64,
}

/// What a rank exchanges in one call by one kind of collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Kind.
    pub kind: CollectiveKind,
    /// Exchanges that the rank takes part in.
    pub count: usize,
    /// Bytes sent to other ranks.
    pub sent: u64,
    /// Bytes received from other ranks.
    pub received: u64,
}

/// What all ranks exchange in one call by one kind of collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindTraffic {
    /// Kind.
    pub kind: CollectiveKind,
    /// Collectives, each counted once for all of its members.
    pub count: usize,
    /// Bytes that cross from rank to rank.
    pub bytes: u64,
}

/// What one call moves from one rank to another by one kind of collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Sender.
    pub from: Rank,
    /// Receiver.
    pub to: Rank,
    /// Kind.
    pub kind: CollectiveKind,
    /// Bytes.
    pub bytes: u64,
}

/// How much a list of steps does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Steps of all kinds.
    pub steps: usize,
    /// Launches by kernel, in order of name.
    pub launches: Vec<Count>,
    /// Copies between buffers of the rank.
    pub copies: usize,
    /// Exchanges begun.
    pub exchanges: usize,
    /// Floating point operations of matrix products, attention and convolutions.
    pub flops: u64,
}

/// How often a kernel is launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Name of the kernel.
    pub kernel: String,
    /// Launches.
    pub count: usize,
}

/// A carried port by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryFacts {
    /// The output.
    pub output: String,
    /// The input of the next call.
    pub input: String,
}
