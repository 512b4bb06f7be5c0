//! Kernels over rows of channels: matrix products, norms, gates, activations.
//!
//! Invariant: segments are converted once, so a launch does not allocate.

use super::super::super::args;
use super::super::operand::{Access, Binder, In, Input, Plain};
use super::Run;
use crate::RuntimeError;
use terrace_kernels::KernelError;
use terrace_kernels::cpu::{
    GateAdd, GateSegment as KernelGate, GatedGelu, HeadNorm, Input as KernelInput, Linear,
    LinearEpilogue, LinearGate, Mods as KernelMods, Norm as KernelNorm, NormModulate, QkNormRope,
    add, gelu, gelu_tanh, silu,
};
use terrace_plan::{Activation, Epilogue, Gate, ModSegment, Mods, Norm, QkNorm, Rope};

pub(super) fn linear(
    b: &Binder<'_>,
    rows: usize,
    epilogue: &Epilogue,
) -> Result<Run, RuntimeError> {
    let (x, y) = (b.input("x")?, b.output("y")?);
    let (weight, bias) = (b.linear("weight")?, b.plain("bias"));
    let tail = Tail::new(b, epilogue)?;
    Ok(Box::new(move |a: &Access| {
        Linear {
            rows,
            x: x.get(a),
            weight: &weight,
            bias: values(bias.as_ref()),
            epilogue: tail.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

/// The epilogue of a linear kernel.
enum Tail {
    None,
    Gelu,
    GeluTanh,
    Silu,
    Residual {
        residual: Input,
        gate: Option<TailGate>,
    },
}

struct TailGate {
    mods: In<f32>,
    stride: usize,
    batch: usize,
    segments: Vec<KernelGate>,
}

impl Tail {
    fn new(b: &Binder<'_>, epilogue: &Epilogue) -> Result<Self, RuntimeError> {
        Ok(match epilogue {
            Epilogue::None => Self::None,
            Epilogue::Gelu => Self::Gelu,
            Epilogue::GeluTanh => Self::GeluTanh,
            Epilogue::Silu => Self::Silu,
            Epilogue::Residual { gate, .. } => {
                let gate = gate.as_ref().map(|gate| TailGate::new(b, gate));
                Self::Residual {
                    residual: b.maybe_in_place("residual")?,
                    gate: gate.transpose()?,
                }
            }
        })
    }

    fn get<'a>(&'a self, a: &'a Access) -> LinearEpilogue<'a> {
        match self {
            Self::None => LinearEpilogue::None,
            Self::Gelu => LinearEpilogue::Gelu,
            Self::GeluTanh => LinearEpilogue::GeluTanh,
            Self::Silu => LinearEpilogue::Silu,
            Self::Residual { residual, gate } => LinearEpilogue::Residual {
                residual: residual.get(a),
                gate: gate.as_ref().map(|gate| gate.get(a)),
            },
        }
    }
}

impl TailGate {
    fn new(b: &Binder<'_>, gate: &Gate) -> Result<Self, RuntimeError> {
        Ok(Self {
            mods: b.input("mods")?,
            stride: gate.mods.stride,
            batch: gate.batch,
            segments: args::gate_segments(gate),
        })
    }

    fn get<'a>(&'a self, a: &'a Access) -> LinearGate<'a> {
        LinearGate {
            mods: KernelMods {
                data: self.mods.get(a),
                stride: self.stride,
            },
            batch: self.batch,
            segments: &self.segments,
        }
    }
}

pub(super) fn norm_modulate(
    b: &Binder<'_>,
    batch: usize,
    width: usize,
    segments: &[ModSegment],
    norm: Norm,
    mods: Option<&Mods>,
) -> Result<Run, RuntimeError> {
    let (x, y) = (b.maybe_in_place("x")?, b.output("y")?);
    let (weight, bias) = (b.plain("weight"), b.plain("bias"));
    let mods = mods.zip(b.maybe("mods")).map(|(m, data)| (data, m.stride));
    let segments = args::mod_segments(segments);
    Ok(Box::new(move |a: &Access| {
        let (weight, bias) = (values(weight.as_ref()), values(bias.as_ref()));
        let norm = match norm {
            Norm::None => KernelNorm::None,
            Norm::Layer { eps, .. } => KernelNorm::Layer {
                eps: eps as f32,
                weight,
                bias,
            },
            Norm::Rms { eps, .. } => KernelNorm::Rms {
                eps: eps as f32,
                weight,
            },
        };
        let mods = mods.as_ref().map(|(data, stride)| KernelMods {
            data: data.get(a),
            stride: *stride,
        });
        NormModulate {
            batch,
            width,
            segments: &segments,
            norm,
            mods,
            x: x.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

/// The residual addition of a row kernel, with or without a gate.
struct Gating {
    batch: usize,
    width: usize,
    segments: Vec<KernelGate>,
    mods: Option<(In<f32>, usize)>,
}

impl Gating {
    fn new(b: &Binder<'_>, width: usize, gate: Option<&Gate>) -> Self {
        let mods = gate.zip(b.maybe("mods"));
        Self {
            batch: gate.map_or(0, |gate| gate.batch),
            width,
            segments: gate.map_or_else(Vec::new, args::gate_segments),
            mods: mods.map(|(gate, data)| (data, gate.mods.stride)),
        }
    }

    fn run(
        &self,
        a: &Access,
        residual: KernelInput<'_>,
        x: KernelInput<'_>,
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        let Some((data, stride)) = &self.mods else {
            return add(residual, x, y);
        };
        GateAdd {
            batch: self.batch,
            width: self.width,
            segments: &self.segments,
            mods: KernelMods {
                data: data.get(a),
                stride: *stride,
            },
            residual,
            x,
            y,
        }
        .run()
    }
}

pub(super) fn gate_add(
    b: &Binder<'_>,
    width: usize,
    gate: Option<&Gate>,
) -> Result<Run, RuntimeError> {
    let gating = Gating::new(b, width, gate);
    let (residual, x) = (b.maybe_in_place("residual")?, b.maybe_in_place("x")?);
    let y = b.output("y")?;
    Ok(Box::new(move |a: &Access| {
        gating.run(a, residual.get(a), x.get(a), y.get(a))
    }))
}

/// `sizes`: batch, rows, heads, head dimension.
pub(super) fn qk_norm_rope(
    b: &Binder<'_>,
    sizes: [usize; 4],
    norm: Option<QkNorm>,
    rope: Option<Rope>,
) -> Result<Run, RuntimeError> {
    let [batch, rows, heads, dim] = sizes;
    let qkv = b.output("qkv")?;
    let table = b.maybe("rope");
    let (q_weight, q_bias) = (b.plain("q weight"), b.plain("q bias"));
    let (k_weight, k_bias) = (b.plain("k weight"), b.plain("k bias"));
    Ok(Box::new(move |a: &Access| {
        let head = |weight, bias| {
            norm.map(|norm| HeadNorm {
                eps: norm.eps as f32,
                weight: values(weight),
                bias: values(bias),
            })
        };
        QkNormRope {
            batch,
            rows,
            text_rows: rope.map_or(rows, |rope| rope.first_row),
            parts: 3,
            heads,
            dim,
            q: head(q_weight.as_ref(), q_bias.as_ref()),
            k: head(k_weight.as_ref(), k_bias.as_ref()),
            table: table.as_ref().map(|table| table.get(a)),
            qkv: qkv.get(a),
        }
        .run()
    }))
}

pub(super) fn activate(b: &Binder<'_>, function: Activation) -> Result<Run, RuntimeError> {
    let (x, y) = (b.maybe_in_place("x")?, b.output("y")?);
    Ok(Box::new(move |a: &Access| match function {
        Activation::Silu => silu(x.get(a), y.get(a)),
        Activation::Gelu => gelu(x.get(a), y.get(a)),
        Activation::GeluTanh => gelu_tanh(x.get(a), y.get(a)),
    }))
}

/// Activations are f32 here, so that values stay what they are.
pub(super) fn cast(b: &Binder<'_>) -> Result<Run, RuntimeError> {
    let (x, y) = (b.input("x")?, b.output("y")?);
    Ok(Box::new(move |a: &Access| {
        y.get(a).copy_from_slice(x.get(a));
        Ok(())
    }))
}

pub(super) fn gated_gelu(b: &Binder<'_>, rows: usize, width: usize) -> Result<Run, RuntimeError> {
    let (x, y) = (b.input("x")?, b.output("y")?);
    Ok(Box::new(move |a: &Access| {
        GatedGelu {
            rows,
            width,
            x: x.get(a),
            y: y.get(a),
        }
        .run()
    }))
}

fn values(weight: Option<&Plain>) -> Option<&[f32]> {
    weight.map(Plain::get)
}
