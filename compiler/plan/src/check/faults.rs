//! What can be wrong with a collective and with a rank's tables.

use super::violation::{Side, StepList};
use crate::{Axis, BoxFault, DType, Rank, Region};

/// Why a collective is illegal, or how its members disagree.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CollectiveFault {
    /// A member is not in the mesh.
    #[error("rank {member} is a member, the mesh has {ranks} ranks")]
    NoRank {
        /// The member.
        member: Rank,
        /// Ranks of the mesh.
        ranks: usize,
    },
    /// The members are not the ranks along one axis.
    #[error("its members are {found:?}, the {axis} group is {expected:?}")]
    NotAGroup {
        /// The axis.
        axis: Axis,
        /// The group of the first member.
        expected: Vec<usize>,
        /// The members.
        found: Vec<usize>,
    },
    /// The table of bytes does not have one row and column per member.
    #[error("its table of bytes is not {expected} x {expected}")]
    Matrix {
        /// Number of members.
        expected: usize,
    },
    /// A member has no such exchange.
    #[error("member rank {rank} never issues it")]
    NotIssued {
        /// The member.
        rank: Rank,
    },
    /// One member issues it once per session, another in every call.
    #[error(
        "rank {rank} issues it in its {}, rank {other} in its {}; expected one list",
        .list.name(), .other_list.name()
    )]
    Lists {
        /// The member that comes first.
        rank: Rank,
        /// Its list.
        list: StepList,
        /// A member that differs.
        other: Rank,
        /// Its list.
        other_list: StepList,
    },
    /// The members move different element types.
    #[error("rank {from} sends {found}, rank {to} receives {expected}")]
    DType {
        /// Sender.
        from: Rank,
        /// Receiver.
        to: Rank,
        /// Element type of the receiver.
        expected: DType,
        /// Element type of the sender.
        found: DType,
    },
    /// Sender and receiver disagree on the number of boxes.
    #[error("rank {from} sends {found} boxes to rank {to}, which expects {expected}")]
    Boxes {
        /// Sender.
        from: Rank,
        /// Receiver.
        to: Rank,
        /// Boxes of the receiver.
        expected: usize,
        /// Boxes of the sender.
        found: usize,
    },
    /// Sender and receiver disagree on the size of a box.
    #[error(
        "box {index} from rank {from} to rank {to} is {found:?} when sent, {expected:?} when received"
    )]
    Extents {
        /// Sender.
        from: Rank,
        /// Receiver.
        to: Rank,
        /// Index of the box.
        index: usize,
        /// Extents at the receiver.
        expected: Vec<usize>,
        /// Extents at the sender.
        found: Vec<usize>,
    },
    /// The table of bytes is wrong.
    #[error("rank {from} sends {expected} bytes to rank {to}, the table says {found}")]
    Bytes {
        /// Sender.
        from: Rank,
        /// Receiver.
        to: Rank,
        /// Bytes of the boxes.
        expected: u64,
        /// Bytes in the table.
        found: u64,
    },
}

/// What is wrong with a rank's regions, buffers, bindings or patterns.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RankFault {
    /// No machine can hold the region.
    #[error("the {} needs {bytes} bytes, more than can be addressed", .region.name())]
    RegionSize {
        /// The region.
        region: Region,
        /// Its size.
        bytes: usize,
    },
    /// A buffer does not begin on a cache line.
    #[error("buffer {buffer} begins at byte {offset}, expected a multiple of {expected}")]
    Unaligned {
        /// The buffer.
        buffer: usize,
        /// Its first byte.
        offset: usize,
        /// The alignment.
        expected: usize,
    },
    /// The end of a buffer overflows.
    #[error("the end of buffer {buffer} overflows")]
    BufferOverflow {
        /// The buffer.
        buffer: usize,
    },
    /// A buffer leaves its region.
    #[error("buffer {buffer} ends at byte {end}, the {} has {size}", .region.name())]
    Outside {
        /// The buffer.
        buffer: usize,
        /// Its end.
        end: usize,
        /// The region.
        region: Region,
        /// Size of the region.
        size: usize,
    },
    /// Two buffers of the state share bytes.
    #[error("buffers {first} and {second} share bytes of the state")]
    StateOverlap {
        /// The buffer that begins first.
        first: usize,
        /// The other.
        second: usize,
    },
    /// Bindings and ports differ in number.
    #[error("binds {found} {side}s, the plan has {expected}")]
    BindingCount {
        /// Inputs or outputs.
        side: Side,
        /// Ports.
        expected: usize,
        /// Bindings.
        found: usize,
    },
    /// Bindings are not in the order of the ports.
    #[error("binding {expected} of the {side}s is for port {found}, expected {expected}")]
    BindingPort {
        /// Inputs or outputs.
        side: Side,
        /// Index of the binding.
        expected: usize,
        /// Port that it names.
        found: usize,
    },
    /// A binding names no buffer.
    #[error("{side} `{name}` is buffer {buffer}, the rank has {count}")]
    BindingBuffer {
        /// Inputs or outputs.
        side: Side,
        /// Name of the port.
        name: String,
        /// The buffer named.
        buffer: usize,
        /// Number of buffers.
        count: usize,
    },
    /// Port and buffer differ in element type.
    #[error("{side} `{name}` is {expected}, its buffer {buffer} is {found}")]
    BindingDType {
        /// Inputs or outputs.
        side: Side,
        /// Name of the port.
        name: String,
        /// Its buffer.
        buffer: usize,
        /// Element type of the port.
        expected: DType,
        /// Element type of the buffer.
        found: DType,
    },
    /// A box of a binding is illegal.
    #[error("{side} `{name}`, box {index}: {fault}")]
    BindingBox {
        /// Inputs or outputs.
        side: Side,
        /// Name of the port.
        name: String,
        /// Index of the box.
        index: usize,
        /// What is wrong.
        fault: BoxFault,
    },
    /// An input leaves elements of its buffer as they are, or fills some twice.
    #[error("input `{name}` fills {found} elements of buffer {buffer}, which has {expected}")]
    InputCount {
        /// Name of the port.
        name: String,
        /// Its buffer.
        buffer: usize,
        /// Elements of the buffer.
        expected: usize,
        /// Elements filled; saturated when it overflows.
        found: usize,
    },
    /// An element of an input's buffer is filled more than once, so another is never filled.
    #[error("input `{name}` fills element {element} of buffer {buffer} more than once")]
    InputTwice {
        /// Name of the port.
        name: String,
        /// Its buffer.
        buffer: usize,
        /// First element that is filled again.
        element: usize,
    },
    /// Two inputs fill one buffer.
    #[error("inputs `{first}` and `{second}` both fill buffer {buffer}")]
    InputShared {
        /// The buffer.
        buffer: usize,
        /// One input.
        first: String,
        /// The other.
        second: String,
    },
    /// Two input buffers of the arena share bytes, so filling one destroys the other.
    #[error("input buffers {first} and {second} share bytes of the arena")]
    InputOverlap {
        /// One buffer.
        first: usize,
        /// The other.
        second: usize,
    },
    /// An output's buffer holds nothing when the steps have run.
    #[error(
        "output `{name}`: buffer {buffer} is not written, or is freed, at the end of the steps"
    )]
    OutputDead {
        /// Name of the port.
        name: String,
        /// Its buffer.
        buffer: usize,
    },
    /// A box of a pattern is illegal.
    #[error("pattern {pattern}, box {index} of {part}: {fault}")]
    PatternBox {
        /// The pattern.
        pattern: usize,
        /// Which part: `the local copies`, `the sends` or `the receives`.
        part: &'static str,
        /// Index of the box among those of its transfer.
        index: usize,
        /// What is wrong.
        fault: BoxFault,
    },
    /// A pattern's peers are not in order, or one appears twice.
    #[error(
        "pattern {pattern}: rank {found} follows rank {before} in {part}, expected rising ranks"
    )]
    PatternOrder {
        /// The pattern.
        pattern: usize,
        /// `the sends` or `the receives`.
        part: &'static str,
        /// The peer before.
        before: Rank,
        /// The peer.
        found: Rank,
    },
    /// A rank exchanges with itself.
    #[error("pattern {pattern}: {part} name the rank itself")]
    PatternSelf {
        /// The pattern.
        pattern: usize,
        /// `the sends` or `the receives`.
        part: &'static str,
    },
    /// Two boxes of a pattern write to one place.
    #[error("pattern {pattern} writes element {element} of its destination more than once")]
    PatternTwice {
        /// The pattern.
        pattern: usize,
        /// First element that is written again.
        element: usize,
    },
    /// A transfer of nothing.
    #[error("pattern {pattern}: {part} have an empty transfer for rank {peer}, expected none")]
    PatternEmpty {
        /// The pattern.
        pattern: usize,
        /// `the sends` or `the receives`.
        part: &'static str,
        /// The peer.
        peer: Rank,
    },
}
