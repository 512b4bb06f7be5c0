//! Every way in which a plan can be wrong, by name.
//!
//! A new variant does not compile until it stands here, and the coverage test of `check` fails until
//! a case produces it.

use std::collections::BTreeSet;
use terrace_plan::*;

macro_rules! variants {
    ($($kind:ident, $name:ident, $all:ident: $($variant:ident)+;)+) => {
        $(
            const $all: &[&str] = &[$(concat!(stringify!($kind), "::", stringify!($variant))),+];

            fn $name(value: &$kind) -> &'static str {
                match value {
                    $($kind::$variant { .. } => {
                        concat!(stringify!($kind), "::", stringify!($variant))
                    })+
                }
            }
        )+

        /// Names of all variants.
        pub fn all() -> BTreeSet<&'static str> {
            [$($all),+].concat().into_iter().collect()
        }
    };
}

variants! {
    PlanViolation, violation, VIOLATIONS: Format MeshSize MeshText RankCount Partition PortName
        PortSize OutputCount OutputOverlap Carry Weight Collective Rank Step;
    PartitionFault, partition, PARTITIONS: Sizes Overflow AxisTwice Count Offset;
    CarryFault, carry, CARRIES: Port Twice Ports Buffers Overwritten Parts Arena;
    WeightFault, weight, WEIGHTS: DType NoSource Overflow Elements Row Rank Cut Box Len;
    CollectiveFault, collective, COLLECTIVES: NoRank NotAGroup Matrix NotIssued Lists DType Boxes
        Extents Bytes;
    RankFault, rank, RANKS: RegionSize Unaligned BufferOverflow Outside StateOverlap BindingCount
        BindingPort BindingBuffer BindingDType BindingBox InputCount InputTwice InputShared
        InputOverlap OutputDead PatternBox PatternOrder PatternSelf PatternTwice PatternEmpty;
    StepFault, step, STEPS: NoOrigin Call NoBuffer Short DType Mixed NoWeight WeightShape
        WeightLen WeightLayout Aliased Unwritten Freed LiveOverlap FreeState FreeDead SourceChanged
        DestinationUsed SameBuffer Box NoPattern Filled NoCollective NotAMember Peer Order
        WaitUnknown WaitOrder NotWaited;
    CallError, call, CALLS: Zero Overflow Strides Box SegmentRows Groups EvenKernel Odd FirstRow
        Buckets FrequencyShift NotFinite Products Negative;
    BoxFault, box_fault, BOXES: Dimensions Overflow Overlap Source Destination;
}

/// Names of a violation and of everything that it wraps.
pub fn names(it: &PlanViolation) -> Vec<&'static str> {
    let mut names = vec![violation(it)];
    match it {
        PlanViolation::Partition { fault, .. } => names.push(partition(fault)),
        PlanViolation::Carry { fault, .. } => names.push(carry(fault)),
        PlanViolation::Weight { fault, .. } => {
            names.push(weight(fault));
            if let WeightFault::Box { fault, .. } = fault {
                names.push(box_fault(fault));
            }
        }
        PlanViolation::Collective { fault, .. } => names.push(collective(fault)),
        PlanViolation::Rank { fault, .. } => {
            names.push(rank(fault));
            if let RankFault::BindingBox { fault, .. } | RankFault::PatternBox { fault, .. } = fault
            {
                names.push(box_fault(fault));
            }
        }
        PlanViolation::Step { fault, .. } => {
            names.push(step(fault));
            if let StepFault::Call { error, .. } = fault {
                names.push(call(error));
            }
            if let StepFault::Box { fault, .. } = fault {
                names.push(box_fault(fault));
            }
        }
        PlanViolation::Format { .. }
        | PlanViolation::MeshSize { .. }
        | PlanViolation::MeshText { .. }
        | PlanViolation::RankCount { .. }
        | PlanViolation::PortName { .. }
        | PlanViolation::PortSize { .. }
        | PlanViolation::OutputCount { .. }
        | PlanViolation::OutputOverlap { .. } => {}
    }
    names
}
