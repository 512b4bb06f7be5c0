//! Kernels over rows of channels: matrix products, norms, gates, activations.

use super::super::args;
use super::{Binder, Buffer, Calls, For, Places};
use crate::RuntimeError;
use terrace_kernels::GateSegment;
use terrace_kernels::cube::{
    Activate, Add, Cast, Function, GateAdd, GatedGelu, HeadNorm, Linear, LinearEpilogue,
    LinearGate, Mods, Norm, NormModulate, QkNormRope,
};
use terrace_plan::{Activation, Epilogue, Gate, KernelCall, Norm as PlanNorm};

pub(super) fn calls<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    match call {
        KernelCall::Linear { .. } => linear(b, device, call),
        KernelCall::NormModulate { .. } => norm_modulate(b, device, call),
        KernelCall::GateAdd { width, gate, .. } => gate_add(b, device, *width, gate.as_ref()),
        KernelCall::QkNormRope { .. } => qk_norm_rope(b, device, call),
        KernelCall::Activate { function: f, .. } => {
            let activate = Activate {
                function: function(*f),
                x: b.operand("x")?,
                y: b.operand("y")?,
            };
            Ok(activate.calls(device)?)
        }
        KernelCall::Cast { .. } => {
            let cast = Cast {
                x: b.operand("x")?,
                y: b.operand("y")?,
            };
            Ok(cast.calls(device)?)
        }
        KernelCall::GatedGelu { rows, width, .. } => {
            let gated = GatedGelu {
                rows: *rows,
                width: *width,
                x: b.operand("x")?,
                y: b.operand("y")?,
            };
            Ok(gated.calls(device)?)
        }
        KernelCall::Attention { .. }
        | KernelCall::AttentionStep { .. }
        | KernelCall::AttentionFinish { .. }
        | KernelCall::Embedding { .. }
        | KernelCall::RelativeBias { .. }
        | KernelCall::TimestepEmbedding { .. }
        | KernelCall::PositionTable { .. }
        | KernelCall::Join { .. }
        | KernelCall::Conv3d { .. }
        | KernelCall::ConvCache { .. }
        | KernelCall::GroupNorm { .. }
        | KernelCall::Upsample { .. }
        | KernelCall::Denoise { .. }
        | KernelCall::Advance { .. }
        | KernelCall::Noise { .. } => Err(b.other_family()),
    }
}

/// The function as kernels call it.
pub(super) const fn function(activation: Activation) -> Function {
    match activation {
        Activation::Silu => Function::Silu,
        Activation::Gelu => Function::Gelu,
        Activation::GeluTanh => Function::GeluTanh,
    }
}

fn linear<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    let KernelCall::Linear {
        rows,
        k,
        n,
        epilogue,
        ..
    } = call
    else {
        return Err(b.other_family());
    };
    let segments = match epilogue {
        Epilogue::Residual {
            gate: Some(gate), ..
        } => args::gate_segments(gate),
        Epilogue::None
        | Epilogue::Gelu
        | Epilogue::GeluTanh
        | Epilogue::Silu
        | Epilogue::Residual { gate: None, .. } => Vec::new(),
    };
    let linear = Linear {
        rows: *rows,
        n: *n,
        k: *k,
        x: b.operand("x")?,
        weight: b.weight("weight")?,
        bias: b.loaded("bias"),
        epilogue: tail(b, epilogue, &segments)?,
        y: b.operand("y")?,
    };
    Ok(linear.calls(device)?)
}

fn tail<'a, P: Places>(
    b: &Binder<'_, P>,
    epilogue: &Epilogue,
    segments: &'a [GateSegment],
) -> Result<LinearEpilogue<'a, Buffer<P>>, RuntimeError> {
    Ok(match epilogue {
        Epilogue::None => LinearEpilogue::Function(Function::Identity),
        Epilogue::Gelu => LinearEpilogue::Function(Function::Gelu),
        Epilogue::GeluTanh => LinearEpilogue::Function(Function::GeluTanh),
        Epilogue::Silu => LinearEpilogue::Function(Function::Silu),
        Epilogue::Residual { gate, .. } => {
            let gate = gate.as_ref().map(|gate| {
                Ok::<_, RuntimeError>(LinearGate {
                    mods: mods(b, gate.mods.stride)?,
                    batch: gate.batch,
                    segments,
                })
            });
            LinearEpilogue::Residual {
                residual: b.operand("residual")?,
                gate: gate.transpose()?,
            }
        }
    })
}

fn norm_modulate<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    let KernelCall::NormModulate {
        batch,
        width,
        segments,
        norm,
        mods: vectors,
        ..
    } = call
    else {
        return Err(b.other_family());
    };
    let segments = args::mod_segments(segments);
    let (weight, bias) = (b.loaded("weight"), b.loaded("bias"));
    let vectors = vectors.as_ref().map(|vectors| mods(b, vectors.stride));
    let modulate = NormModulate {
        batch: *batch,
        width: *width,
        segments: &segments,
        norm: match *norm {
            PlanNorm::None => Norm::None,
            PlanNorm::Layer { eps, .. } => Norm::Layer {
                eps: eps as f32,
                weight,
                bias,
            },
            PlanNorm::Rms { eps, .. } => Norm::Rms {
                eps: eps as f32,
                weight,
            },
        },
        mods: vectors.transpose()?,
        x: b.operand("x")?,
        y: b.operand("y")?,
    };
    Ok(modulate.calls(device)?)
}

fn gate_add<P: Places>(
    b: &Binder<'_, P>,
    device: &For<P>,
    width: usize,
    gate: Option<&Gate>,
) -> Calls<P> {
    let (residual, x, y) = (b.operand("residual")?, b.operand("x")?, b.operand("y")?);
    let Some(gate) = gate else {
        let add = Add {
            a: residual,
            b: x,
            y,
        };
        return Ok(add.calls(device)?);
    };
    let gated = GateAdd {
        batch: gate.batch,
        width,
        segments: &args::gate_segments(gate),
        mods: mods(b, gate.mods.stride)?,
        residual,
        x,
        y,
    };
    Ok(gated.calls(device)?)
}

fn qk_norm_rope<P: Places>(b: &Binder<'_, P>, device: &For<P>, call: &KernelCall) -> Calls<P> {
    let KernelCall::QkNormRope {
        batch,
        rows,
        heads,
        head_dim,
        norm,
        rope,
        ..
    } = call
    else {
        return Err(b.other_family());
    };
    let head = |weight, bias| {
        norm.map(|norm| HeadNorm {
            eps: norm.eps as f32,
            weight: b.loaded(weight),
            bias: b.loaded(bias),
        })
    };
    let kernel = QkNormRope {
        batch: *batch,
        rows: *rows,
        text_rows: rope.map_or(*rows, |rope| rope.first_row),
        parts: 3,
        heads: *heads,
        dim: *head_dim,
        q: head("q weight", "q bias"),
        k: head("k weight", "k bias"),
        table: b.maybe("rope")?,
        qkv: b.operand("qkv")?,
    };
    Ok(kernel.calls(device)?)
}

fn mods<P: Places>(b: &Binder<'_, P>, stride: usize) -> Result<Mods<Buffer<P>>, RuntimeError> {
    let data = b.operand("mods")?;
    Ok(Mods { data, stride })
}
