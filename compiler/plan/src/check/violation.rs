//! The rules of the plan format that a plan can break, one variant each.
//!
//! Every message names the place, what was found and what was expected.

use super::faults::{CollectiveFault, RankFault};
use super::step_fault::StepFault;
use crate::{Axis, DType, Rank, WeightLayout};
use std::fmt;

/// The violations found so far. A plan of many steps can break as many rules, so those beyond the
/// limit are only counted.
#[derive(Default)]
pub(super) struct Violations {
    pub(super) list: Vec<PlanViolation>,
    pub(super) more: usize,
}

impl Violations {
    pub(super) fn push(&mut self, violation: PlanViolation) {
        if self.list.len() < crate::PlanErrors::KEPT {
            self.list.push(violation);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn extend(&mut self, violations: impl IntoIterator<Item = PlanViolation>) {
        for violation in violations {
            self.push(violation);
        }
    }

    pub(super) const fn count(&self) -> usize {
        self.list.len() + self.more
    }
}

/// A broken rule of the plan format.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanViolation {
    /// Another format version.
    #[error("the header has format version {found}, expected {expected}")]
    Format {
        /// Version of this crate.
        expected: u32,
        /// Version in the header.
        found: u32,
    },
    /// An axis without ranks, or a `cfg` axis of more than two.
    #[error("mesh axis {axis} has size {found}, expected {expected}")]
    MeshSize {
        /// The axis.
        axis: Axis,
        /// Legal sizes.
        expected: &'static str,
        /// Its size.
        found: usize,
    },
    /// The fingerprint names another mesh.
    #[error("the header names mesh `{found}`, the plan has mesh `{expected}`")]
    MeshText {
        /// The plan's mesh as text.
        expected: String,
        /// The fingerprint's mesh.
        found: String,
    },
    /// Ranks of the body and of the mesh differ.
    #[error("the plan has {found} ranks, its mesh has {expected}")]
    RankCount {
        /// Product of the axes; saturated when it overflows.
        expected: usize,
        /// Entries in the body.
        found: usize,
    },
    /// A partition is illegal.
    #[error("partition {index} (`{factors}`): {fault}")]
    Partition {
        /// Index of the partition.
        index: usize,
        /// Its factors.
        factors: String,
        /// What is wrong.
        fault: PartitionFault,
    },
    /// Two ports of one side share a name.
    #[error("two {side}s are named `{name}`")]
    PortName {
        /// Inputs or outputs.
        side: Side,
        /// The name.
        name: String,
    },
    /// The size of a port overflows.
    #[error("{side} `{name}`: the size of shape {shape:?} overflows")]
    PortSize {
        /// Inputs or outputs.
        side: Side,
        /// Name of the port.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The ranks do not deliver an output's elements once each.
    #[error("output `{name}` has {expected} elements, the ranks deliver {found}")]
    OutputCount {
        /// Name of the port.
        name: String,
        /// Elements of the host tensor.
        expected: usize,
        /// Elements that the boxes of all ranks hold; saturated when it overflows.
        found: usize,
    },
    /// An element of an output is delivered more than once, so another is never delivered.
    #[error("output `{name}`: element {element} is delivered more than once")]
    OutputOverlap {
        /// Name of the port.
        name: String,
        /// First element that is delivered again.
        element: usize,
    },
    /// A carry is illegal.
    #[error("carry {index}: {fault}")]
    Carry {
        /// Index of the carry.
        index: usize,
        /// What is wrong.
        fault: CarryFault,
    },
    /// A weight is illegal.
    #[error("weight {weight} (`{name}`): {fault}")]
    Weight {
        /// Index of the weight.
        weight: usize,
        /// Name of its first source, empty without one.
        name: String,
        /// What is wrong.
        fault: WeightFault,
    },
    /// A collective is illegal, or its members disagree.
    #[error("exchange {collective}: {fault}")]
    Collective {
        /// Index of the collective.
        collective: usize,
        /// What is wrong.
        fault: CollectiveFault,
    },
    /// Buffers, bindings or patterns of a rank are illegal.
    #[error("rank {rank}: {fault}")]
    Rank {
        /// The rank.
        rank: Rank,
        /// What is wrong.
        fault: RankFault,
    },
    /// A step is illegal.
    #[error("{at}: {fault}")]
    Step {
        /// Which step.
        at: StepAt,
        /// What is wrong.
        fault: StepFault,
    },
}

/// A step of a rank, with the model path that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAt {
    /// The rank.
    pub rank: Rank,
    /// Which of its lists.
    pub list: StepList,
    /// Index in the list.
    pub step: usize,
    /// Model path; `?` when the plan does not have it.
    pub origin: String,
}

impl fmt::Display for StepAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            StepList::Init => "init step",
            StepList::Steps => "step",
        };
        write!(
            f,
            "rank {}, {list} {} ({})",
            self.rank, self.step, self.origin
        )
    }
}

/// The lists of steps of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepList {
    /// Run once per session.
    Init,
    /// Run once per call.
    Steps,
}

impl StepList {
    /// The plural used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init steps",
            Self::Steps => "steps",
        }
    }
}

/// The sides of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Given by the caller.
    Input,
    /// Given back to the caller.
    Output,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// Why a partition is illegal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PartitionFault {
    /// Factor names and sizes differ in number.
    #[error("names {expected} factors, has {found} sizes")]
    Sizes {
        /// Number of names.
        expected: usize,
        /// Number of sizes.
        found: usize,
    },
    /// The product of the sizes overflows.
    #[error("the product of {sizes:?} and {repeat} tokens each overflows")]
    Overflow {
        /// The sizes.
        sizes: Vec<usize>,
        /// Tokens of a unit.
        repeat: usize,
    },
    /// A mesh axis is named twice.
    #[error("axis {axis} is named twice")]
    AxisTwice {
        /// The axis.
        axis: Axis,
    },
    /// Offsets and parts differ in number.
    #[error("has {found} offsets, its axes need {expected}")]
    Count {
        /// Product of the axis sizes, plus one.
        expected: usize,
        /// Number of offsets.
        found: usize,
    },
    /// The offsets do not run from zero upwards to the size.
    #[error("offset {index} is {found}, expected {expected}")]
    Offset {
        /// Index of the offset.
        index: usize,
        /// The legal value, or a bound in words.
        expected: String,
        /// The offset.
        found: usize,
    },
}

/// Why a carry is illegal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CarryFault {
    /// There is no such port.
    #[error("{side} {found} does not exist, the plan has {count}")]
    Port {
        /// Inputs or outputs.
        side: Side,
        /// Index in the carry.
        found: usize,
        /// Number of ports.
        count: usize,
    },
    /// Two carries fill one input.
    #[error("input `{input}` is carried twice")]
    Twice {
        /// Name of the input.
        input: String,
    },
    /// The ports differ.
    #[error("output `{output}` is {found_dtype}{found:?}, input `{input}` is {dtype}{shape:?}")]
    Ports {
        /// Name of the output.
        output: String,
        /// Its element type.
        found_dtype: DType,
        /// Its shape.
        found: Vec<usize>,
        /// Name of the input.
        input: String,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The buffers of a rank differ.
    #[error(
        "on rank {rank} output buffer {output} has {found} elements, input buffer {input} has {expected}"
    )]
    Buffers {
        /// The rank.
        rank: Rank,
        /// The output's buffer.
        output: usize,
        /// Its elements.
        found: usize,
        /// The input's buffer.
        input: usize,
        /// Its elements.
        expected: usize,
    },
    /// A carry overwrites what another, or itself, still has to carry.
    #[error(
        "on rank {rank} output `{output}` is buffer {buffer}, which a carry fills; \
         expected a buffer of its own"
    )]
    Overwritten {
        /// The rank.
        rank: Rank,
        /// Name of the output.
        output: String,
        /// Its buffer.
        buffer: usize,
    },
    /// A rank holds one part of the output and another of the input.
    #[error("on rank {rank} output `{output}` and input `{input}` hold different boxes")]
    Parts {
        /// The rank.
        rank: Rank,
        /// Name of the output.
        output: String,
        /// Name of the input.
        input: String,
    },
    /// A carried input does not outlive the call.
    #[error(
        "on rank {rank} buffer {buffer} of input `{input}` lies in the arena, expected the state"
    )]
    Arena {
        /// The rank.
        rank: Rank,
        /// The input's buffer.
        buffer: usize,
        /// Name of the input.
        input: String,
    },
}

/// Why a weight is illegal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightFault {
    /// The element type in memory is not supported.
    #[error("has element type {found}, expected {expected}")]
    DType {
        /// The supported types.
        expected: &'static str,
        /// The weight's type.
        found: DType,
    },
    /// There is nothing to load.
    #[error("has no source")]
    NoSource,
    /// A size overflows.
    #[error("the size of shape {shape:?} overflows")]
    Overflow {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The sources do not join to the shape.
    #[error("its sources join to {found} elements, shape {shape:?} has {expected}")]
    Elements {
        /// The joined shape.
        shape: Vec<usize>,
        /// Its elements.
        expected: usize,
        /// Elements of all sources.
        found: usize,
    },
    /// A source does not fit beside the others.
    #[error("source `{name}` has {found} elements per row, shape {shape:?} has {expected}")]
    Row {
        /// Name of the source.
        name: String,
        /// The joined shape.
        shape: Vec<usize>,
        /// Elements of a row of the joined shape.
        expected: usize,
        /// Elements of a row of the source.
        found: usize,
    },
    /// The layout needs another number of dimensions.
    #[error("layout {} needs {expected} dimensions, shape {shape:?} has {}", .layout.name(), .shape.len())]
    Rank {
        /// The layout.
        layout: WeightLayout,
        /// Dimensions that it needs.
        expected: usize,
        /// The joined shape.
        shape: Vec<usize>,
    },
    /// A packed weight is cut.
    #[error("layout {} cannot be cut, but the weight has boxes", .layout.name())]
    Cut {
        /// The layout.
        layout: WeightLayout,
    },
    /// A box is illegal.
    #[error("box {index}: {fault}")]
    Box {
        /// Index of the box.
        index: usize,
        /// What is wrong.
        fault: crate::BoxFault,
    },
    /// The length is not that of the part held.
    #[error("holds {found} elements, its boxes or shape have {expected}")]
    Len {
        /// Elements of the boxes, or of the shape without boxes; saturated on overflow.
        expected: usize,
        /// The length.
        found: usize,
    },
}
