//! What can be wrong with a step.

use crate::{BoxFault, CallError, DType, Rank, WeightLayout};

/// Why a step is illegal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StepFault {
    /// The step has no origin.
    #[error("its origin is {found}, the plan has {count}")]
    NoOrigin {
        /// The origin named.
        found: usize,
        /// Number of origins.
        count: usize,
    },
    /// The sizes of a kernel call are illegal.
    #[error("{kernel}: {error}")]
    Call {
        /// The kernel.
        kernel: &'static str,
        /// What is wrong.
        error: CallError,
    },
    /// An operand names no buffer.
    #[error("`{operand}` is buffer {buffer}, the rank has {count}")]
    NoBuffer {
        /// The operand.
        operand: &'static str,
        /// The buffer named.
        buffer: usize,
        /// Number of buffers.
        count: usize,
    },
    /// An operand ends after its buffer.
    #[error("`{operand}`: buffer {buffer} needs {needs} elements, has {has}")]
    Short {
        /// The operand.
        operand: &'static str,
        /// Its buffer.
        buffer: usize,
        /// End of the operand.
        needs: usize,
        /// Elements of the buffer.
        has: usize,
    },
    /// An operand has another element type.
    #[error("`{operand}`: buffer {buffer} is {found}, expected {expected}")]
    DType {
        /// The operand.
        operand: &'static str,
        /// Its buffer.
        buffer: usize,
        /// Element types that the step takes.
        expected: &'static str,
        /// Element type of the buffer.
        found: DType,
    },
    /// The activations of a call have several element types.
    #[error("`{operand}`: buffer {buffer} is {found}, the activations before it are {expected}")]
    Mixed {
        /// The operand.
        operand: &'static str,
        /// Its buffer.
        buffer: usize,
        /// Element type of the activations before it.
        expected: DType,
        /// Element type of the buffer.
        found: DType,
    },
    /// A call names no weight.
    #[error("`{operand}` is weight {weight}, the plan has {count}")]
    NoWeight {
        /// The operand.
        operand: &'static str,
        /// The weight named.
        weight: usize,
        /// Number of weights.
        count: usize,
    },
    /// A weight has another shape.
    #[error("`{operand}`: weight {weight} is {found:?}, expected {expected:?}")]
    WeightShape {
        /// The operand.
        operand: &'static str,
        /// The weight.
        weight: usize,
        /// Shape that the kernel needs.
        expected: Vec<usize>,
        /// Shape of the weight.
        found: Vec<usize>,
    },
    /// The part of a weight that the rank holds has another size.
    #[error("`{operand}`: weight {weight} holds {found} elements, {expected:?} is needed")]
    WeightLen {
        /// The operand.
        operand: &'static str,
        /// The weight.
        weight: usize,
        /// Shape that the kernel needs.
        expected: Vec<usize>,
        /// Elements held.
        found: usize,
    },
    /// A weight has another layout.
    #[error("`{operand}`: weight {weight} has layout {}, expected {}", .found.name(), .expected.name())]
    WeightLayout {
        /// The operand.
        operand: &'static str,
        /// The weight.
        weight: usize,
        /// Layout that the kernel needs.
        expected: WeightLayout,
        /// Layout of the weight.
        found: WeightLayout,
    },
    /// A written operand overlaps another.
    #[error("`{written}` overlaps `{other}` in buffer {buffer}")]
    Aliased {
        /// The operand written.
        written: &'static str,
        /// The other operand.
        other: &'static str,
        /// Their buffer.
        buffer: usize,
    },
    /// A buffer is read before anything wrote it.
    #[error("buffer {buffer} is read before it is written")]
    Unwritten {
        /// The buffer.
        buffer: usize,
    },
    /// A buffer is used after its live range.
    #[error("buffer {buffer} is used after it was freed")]
    Freed {
        /// The buffer.
        buffer: usize,
    },
    /// Two live buffers of the arena share bytes.
    #[error("buffer {buffer} shares bytes with buffer {other}, which is still in use")]
    LiveOverlap {
        /// The buffer whose live range begins.
        buffer: usize,
        /// The live buffer.
        other: usize,
    },
    /// A buffer of the state is freed.
    #[error("buffer {buffer} is freed, but lies in the state")]
    FreeState {
        /// The buffer.
        buffer: usize,
    },
    /// A buffer is freed twice, or before its live range.
    #[error("buffer {buffer} is freed, but is not in use")]
    FreeDead {
        /// The buffer.
        buffer: usize,
    },
    /// The source of an exchange changes before the wait.
    #[error("buffer {buffer} is written or freed while exchange {collective} sends from it")]
    SourceChanged {
        /// The buffer.
        buffer: usize,
        /// The exchange.
        collective: usize,
    },
    /// The destination of an exchange is used before the wait.
    #[error("buffer {buffer} is used while exchange {collective} fills it")]
    DestinationUsed {
        /// The buffer.
        buffer: usize,
        /// The exchange.
        collective: usize,
    },
    /// Source and destination are one buffer.
    #[error("buffer {buffer} is both source and destination")]
    SameBuffer {
        /// The buffer.
        buffer: usize,
    },
    /// A box of a copy is illegal.
    #[error("box {index}: {fault}")]
    Box {
        /// Index of the box.
        index: usize,
        /// What is wrong.
        fault: BoxFault,
    },
    /// An exchange names no pattern.
    #[error("its pattern is {pattern}, the rank has {count}")]
    NoPattern {
        /// The pattern named.
        pattern: usize,
        /// Number of patterns.
        count: usize,
    },
    /// A pattern leaves elements of its destination as they are.
    #[error("pattern {pattern} writes {found} elements to buffer {buffer}, which has {expected}")]
    Filled {
        /// The pattern.
        pattern: usize,
        /// The destination.
        buffer: usize,
        /// Elements of the destination.
        expected: usize,
        /// Elements written.
        found: usize,
    },
    /// An exchange or a wait names no collective.
    #[error("exchange {collective} does not exist, the plan has {count}")]
    NoCollective {
        /// The collective named.
        collective: usize,
        /// Number of collectives.
        count: usize,
    },
    /// The rank is no member of the collective.
    #[error("takes part in exchange {collective}, whose members are {members:?}")]
    NotAMember {
        /// The collective.
        collective: usize,
        /// Its members.
        members: Vec<usize>,
    },
    /// A pattern has a peer outside the collective.
    #[error(
        "pattern {pattern} exchanges with rank {peer}, but exchange {collective} has members {members:?}"
    )]
    Peer {
        /// The pattern.
        pattern: usize,
        /// The peer.
        peer: Rank,
        /// The collective.
        collective: usize,
        /// Its members.
        members: Vec<usize>,
    },
    /// Exchanges are not issued in the order of the table.
    #[error("exchange {collective} is issued after exchange {before}, expected rising numbers")]
    Order {
        /// The collective.
        collective: usize,
        /// The one issued before it.
        before: usize,
    },
    /// A wait without an exchange.
    #[error("waits for exchange {collective}, which is not under way")]
    WaitUnknown {
        /// The collective.
        collective: usize,
    },
    /// Waits are not in the order of issue.
    #[error("waits for exchange {collective}, expected {expected}, which was issued first")]
    WaitOrder {
        /// The collective.
        collective: usize,
        /// The oldest one under way.
        expected: usize,
    },
    /// An exchange without a wait.
    #[error("exchange {collective} is never waited for")]
    NotWaited {
        /// The collective.
        collective: usize,
    },
}
