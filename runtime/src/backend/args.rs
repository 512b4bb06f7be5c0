//! Arguments of a plan as the kernels of every backend take them.

use terrace_kernels::cpu::{
    Axis, GridAxis as KernelAxis, PositionKind as KernelPositions, SinCosOrder, TimeMode,
};
use terrace_kernels::{GateSegment, ModSegment as KernelSegment, StepStage};
use terrace_plan::{
    Gate, GridAxis, ModSegment, PositionColumns, PositionKind, SinusoidOrder, Stage, UpsampleTime,
};

/// Longest period of the sinusoids (diffusers 0.42, `get_timestep_embedding`).
pub(super) const MAX_PERIOD: f64 = 10_000.0;

pub(super) fn gate_segments(gate: &Gate) -> Vec<GateSegment> {
    let segments = gate.segments.iter();
    segments
        .map(|s| GateSegment {
            rows: s.rows,
            gate: s.gate,
        })
        .collect()
}

pub(super) fn mod_segments(segments: &[ModSegment]) -> Vec<KernelSegment> {
    segments
        .iter()
        .map(|s| KernelSegment {
            rows: s.rows,
            shift: s.shift,
            scale: s.scale,
        })
        .collect()
}

pub(super) const fn stage(stage: Stage) -> StepStage {
    match stage {
        Stage::First => StepStage::First,
        Stage::Next => StepStage::Next,
    }
}

pub(super) const fn time_mode(time: UpsampleTime) -> TimeMode {
    match time {
        UpsampleTime::Keep => TimeMode::Keep,
        UpsampleTime::Double => TimeMode::Double,
    }
}

pub(super) const fn order(order: SinusoidOrder) -> SinCosOrder {
    match order {
        SinusoidOrder::SinCos => SinCosOrder::SinCos,
        SinusoidOrder::CosSin => SinCosOrder::CosSin,
    }
}

pub(super) const fn positions(kind: PositionKind) -> KernelPositions {
    match kind {
        PositionKind::SinCos => KernelPositions::SinCos,
        PositionKind::Rotary { theta } => KernelPositions::Rotary { theta },
    }
}

pub(super) fn axes(columns: &[PositionColumns]) -> Vec<Axis> {
    let axis = |axis| match axis {
        GridAxis::T => KernelAxis::T,
        GridAxis::H => KernelAxis::H,
        GridAxis::W => KernelAxis::W,
    };
    columns
        .iter()
        .map(|columns| Axis {
            axis: axis(columns.axis),
            dim: columns.dim,
            start: columns.start,
            step: columns.step,
        })
        .collect()
}
