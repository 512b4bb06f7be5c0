//! What cannot be wrong with a plan that has passed its check, and is looked at again all the same.
//!
//! A fault is a bug of the compiler or of this crate, or a backend that breaks its contract. Memory is
//! touched through raw addresses, so nothing is left to trust.

use terrace_plan::{BoxCopy, BufferId, CallError, CollectiveId, DType, PatternId, Rank};
use terrace_plan::{WeightId, WeightLayout};

/// Why a part of a checked plan cannot be resolved or executed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ResolveFault {
    /// The sizes of a kernel call are illegal.
    #[error("kernel {kernel}: {source}")]
    Call {
        /// Name of the kernel.
        kernel: &'static str,
        /// What is wrong.
        source: CallError,
    },
    /// A call reached the kernels of another family.
    #[error("kernel {kernel} is not in the family that it was looked for in")]
    OtherFamily {
        /// Name of the kernel.
        kernel: &'static str,
    },
    /// A call lacks an operand that its kernel needs.
    #[error("kernel {kernel} needs an operand `{operand}`")]
    NoOperand {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
    },
    /// The kernels of the device take other element types.
    #[error(
        "kernel {kernel}: operand `{operand}` is {found}, this device takes {expected}; run the plan \
         on the device that it was compiled for"
    )]
    OperandType {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
        /// Types that the kernel takes.
        expected: String,
        /// Type of the buffer.
        found: DType,
    },
    /// An operand does not lie in its buffer.
    #[error(
        "kernel {kernel}: operand `{operand}` ends at element {end}, buffer {} has {len}",
        .buffer.0
    )]
    OperandMisfit {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
        /// The buffer.
        buffer: BufferId,
        /// One past the last element of the operand.
        end: usize,
        /// Elements of the buffer.
        len: usize,
    },
    /// The device has no products of this element type.
    #[error(
        "weights of products are f32, bf16, i8 or f8e4m3 on the cpu, the plan has {found}; compile it with \
         another --dtype, or run it on the device that it was compiled for"
    )]
    WeightType {
        /// Type in the plan.
        found: DType,
    },
    /// A result overlaps another operand.
    #[error("kernel {kernel}: operands `{first}` and `{second}` overlap")]
    OperandsOverlap {
        /// Name of the kernel.
        kernel: &'static str,
        /// One operand.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A weight has another layout, or there is no such weight.
    #[error(
        "kernel {kernel}: operand `{operand}` needs weight {} in {} layout, found {}",
        .weight.0,
        .expected.name(),
        .found.map_or("none", WeightLayout::name)
    )]
    WeightMisfit {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the operand.
        operand: &'static str,
        /// The weight.
        weight: WeightId,
        /// Layout that the kernel reads.
        expected: WeightLayout,
        /// Layout of the weight.
        found: Option<WeightLayout>,
    },
    /// The device has no products in FP8 of this size.
    #[error(
        "products in f8e4m3 have sizes that are multiples of {step} on this device, a weight has shape \
         {shape:?}; compile the plan with --dtype bf16"
    )]
    CodesSize {
        /// Shape of the weight.
        shape: Vec<usize>,
        /// What sizes are multiples of.
        step: usize,
    },
    /// The shape of a weight does not fit its layout.
    #[error("a weight of shape {shape:?} cannot have {} layout", .layout.name())]
    WeightShape {
        /// The layout.
        layout: WeightLayout,
        /// The shape.
        shape: Vec<usize>,
    },
    /// Extents and strides of a box differ in number, or its end overflows.
    #[error("malformed box {copy:?}")]
    MalformedBox {
        /// The box.
        copy: BoxCopy,
    },
    /// Boxes end behind a buffer.
    #[error("boxes read up to element {src_end} of {src} and write up to {dst_end} of {dst}")]
    BoxOutOfRange {
        /// One past the last element read.
        src_end: usize,
        /// Elements of the source.
        src: usize,
        /// One past the last element written.
        dst_end: usize,
        /// Elements of the destination.
        dst: usize,
    },
    /// A copy between buffers of different types.
    #[error("cannot copy {src} to {dst}")]
    CopyDType {
        /// Type of the source.
        src: DType,
        /// Type of the destination.
        dst: DType,
    },
    /// Host memory is not aligned for its elements.
    #[error("host memory is not aligned to its elements of {bytes} bytes")]
    HostAlignment {
        /// Size of an element.
        bytes: usize,
    },
    /// A buffer lies outside its region.
    #[error(
        "rank {rank}: buffer {} of {len} {dtype} at byte {offset} leaves its region of \
         {region_bytes} bytes",
        .buffer.0
    )]
    BufferOutOfRange {
        /// The rank.
        rank: Rank,
        /// The buffer.
        buffer: BufferId,
        /// Its first byte.
        offset: usize,
        /// Its elements.
        len: usize,
        /// Its type.
        dtype: DType,
        /// Size of the region.
        region_bytes: usize,
    },
    /// There is no such rank.
    #[error("the plan has no rank {rank}")]
    NoRank {
        /// The rank.
        rank: Rank,
    },
    /// A rank has no such buffer.
    #[error("rank {rank} has no buffer {}", .buffer.0)]
    NoBuffer {
        /// The rank.
        rank: Rank,
        /// The buffer.
        buffer: BufferId,
    },
    /// A rank has no such pattern.
    #[error("rank {rank} has no pattern {}", .pattern.0)]
    NoPattern {
        /// The rank.
        rank: Rank,
        /// The pattern.
        pattern: PatternId,
    },
    /// What a rank sends is not what its peer receives.
    #[error("{sent} elements are sent, {received} received")]
    UnmatchedTransfer {
        /// Elements sent.
        sent: usize,
        /// Elements received.
        received: usize,
    },
    /// A rank receives from a peer that does not send.
    #[error("rank {rank} receives from rank {peer}, which sends it nothing")]
    NoSender {
        /// The receiver.
        rank: Rank,
        /// The peer.
        peer: Rank,
    },
    /// A rank takes part in an exchange of others.
    #[error("rank {rank} is no member of collective {}", .collective.0)]
    NotAMember {
        /// The rank.
        rank: Rank,
        /// The exchange.
        collective: CollectiveId,
    },
    /// An exchange was begun and not waited for.
    #[error("rank {rank} begins collective {} twice", .collective.0)]
    BegunTwice {
        /// The rank.
        rank: Rank,
        /// The exchange.
        collective: CollectiveId,
    },
    /// A wait without a begin.
    #[error("rank {rank} waits for collective {}, which it has not begun", .collective.0)]
    NotBegun {
        /// The rank.
        rank: Rank,
        /// The exchange.
        collective: CollectiveId,
    },
    /// An output does not fit the input that it is carried into.
    #[error(
        "rank {rank}: output {output} of {} elements cannot be carried into input {input} of {}",
        count(*.output_len),
        count(*.input_len)
    )]
    CarryMismatch {
        /// The rank.
        rank: Rank,
        /// Index of the output.
        output: usize,
        /// Index of the input.
        input: usize,
        /// Elements of the output's buffer.
        output_len: Option<usize>,
        /// Elements of the input's buffer.
        input_len: Option<usize>,
    },
    /// A carried input is also the buffer of an output, which it would destroy.
    #[error(
        "rank {rank}: carrying into input {input} overwrites output {output}, which lies in its buffer"
    )]
    CarryOverwrites {
        /// The rank.
        rank: Rank,
        /// Index of the output.
        output: usize,
        /// Index of the input.
        input: usize,
    },
    /// A device has no elements of this type.
    #[error("kernels of GPUs have no {dtype} elements")]
    NoElement {
        /// The type.
        dtype: DType,
    },
    /// A weight or a rank is looked for on a GPU that the backend does not have.
    #[error("GPU number {gpu} of {found} is not there")]
    NoCopy {
        /// Number of the GPU.
        gpu: usize,
        /// Number of GPUs.
        found: usize,
    },
    /// A launch needs more scratch than its rank was given.
    #[error("a launch needs {expected} bytes of scratch, its rank has {found}")]
    Scratch {
        /// Bytes needed.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
}

fn count(len: Option<usize>) -> String {
    len.map_or_else(|| "no".to_owned(), |len| len.to_string())
}
