//! From kernel call to what is queued: a library's product, attention or convolution where
//! [`super::route`] says so, the kernels of `terrace-kernels` for everything else.
//!
//! Invariants: operands are resolved and checked when a session is created, kernels compiled and plans
//! of libraries made; a launch only queues. Scratch is used by one call at a time.

use super::super::args;
use super::copy::address;
use super::fp8;
use super::memory::{CudaMemory, Places, at};
use super::need::{for_attention, for_conv, of_conv, of_product, of_step, served};
use super::route::{self, ProductRoute, Rest};
use super::weight::CudaWeight;
use crate::RuntimeError;
use crate::backend::View;
use crate::backend::cube::{self, Binder, Places as _};
use crate::backend::resolved::Resolved;
use std::sync::Arc;
use terrace_kernels::KernelError;
use terrace_kernels::cube::{
    Activate, Add, AttentionMerge, Call, Element, Function, GateAdd, Mods, Queue,
};
use terrace_kernels::cuda::{
    Attention, AttentionOperands, AttentionPlan, Conv, ConvOperands, ConvPlan, CudaBuffer,
    CudaLaunch, DeviceAddress, DeviceMemory, Factors, Float, Product, ProductKind, ProductOperands,
};
use terrace_plan::{AttentionShape, DType, Epilogue, Heads, KernelCall, Stage};

/// Floating types of activations.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// A kernel call with everything made that it queues.
#[derive(Debug)]
pub struct CudaCall {
    parts: Vec<Part>,
    // What the parts work on, beside the weights, which the session keeps.
    _added: Vec<DeviceMemory>,
    _memory: Arc<CudaMemory>,
}

/// One entry of the queue.
#[derive(Debug)]
pub(super) enum Part {
    Kernel(CudaLaunch),
    Product(Product),
    Attention(Attention),
    Conv(Conv),
    Copy {
        src: DeviceAddress,
        dst: DeviceAddress,
        bytes: usize,
    },
}

impl CudaCall {
    /// Queues the call on the lane of its memory.
    ///
    /// # Safety
    /// As for [`crate::Backend::launch`].
    pub(super) unsafe fn run(&self) -> Result<(), KernelError> {
        let lane = self._memory.lane();
        for part in &self.parts {
            // SAFETY: the operands were checked when the call was prepared; results overlap others only
            // as the call allows; the caller rules out other access, and the queue keeps the order.
            unsafe {
                match part {
                    Part::Kernel(launch) => lane.queue().launch(launch)?,
                    Part::Product(product) => product.run(lane.stream())?,
                    Part::Attention(attention) => attention.run()?,
                    Part::Conv(conv) => conv.run()?,
                    Part::Copy { src, dst, bytes } => lane.stream().copy(*src, *dst, *bytes)?,
                }
            }
        }
        Ok(())
    }
}

/// Prepares a call with the weights of the GPU of this number.
pub(super) fn prepare(
    memory: &Arc<CudaMemory>,
    gpu: usize,
    weights: &[Arc<CudaWeight>],
    call: &KernelCall,
) -> Result<CudaCall, RuntimeError> {
    let maker = Maker {
        places: Places::new(memory),
        memory,
        gpu,
        weights,
    };
    let parts = maker.parts(call)?;
    Ok(CudaCall {
        parts,
        _added: maker.places.added.into_inner(),
        _memory: Arc::clone(memory),
    })
}

pub(super) type Parts = Result<Vec<Part>, RuntimeError>;

/// The operands of one call by their names.
pub(super) type Operands<'a> = Resolved<'a, CudaWeight>;

/// Makes the parts of one call.
pub(super) struct Maker<'a> {
    pub(super) places: Places<'a>,
    pub(super) memory: &'a CudaMemory,
    gpu: usize,
    weights: &'a [Arc<CudaWeight>],
}

impl Maker<'_> {
    fn parts(&self, call: &KernelCall) -> Parts {
        match call {
            KernelCall::Linear { .. } => self.linear(call),
            KernelCall::Attention {
                shape,
                q,
                k,
                v,
                bias: None,
                y,
            } => self.attention(call, *shape, [q, k, v], y),
            KernelCall::AttentionStep {
                shape,
                q,
                k,
                v,
                stage,
                ..
            } => self.attention_step(call, *shape, [q, k, v], *stage),
            KernelCall::Conv3d { .. } => self.conv3d(call),
            KernelCall::Attention { bias: Some(_), .. }
            | KernelCall::Cast { .. }
            | KernelCall::NormModulate { .. }
            | KernelCall::GateAdd { .. }
            | KernelCall::QkNormRope { .. }
            | KernelCall::AttentionFinish { .. }
            | KernelCall::Activate { .. }
            | KernelCall::GatedGelu { .. }
            | KernelCall::Embedding { .. }
            | KernelCall::RelativeBias { .. }
            | KernelCall::TimestepEmbedding { .. }
            | KernelCall::PositionTable { .. }
            | KernelCall::Join { .. }
            | KernelCall::ConvCache { .. }
            | KernelCall::GroupNorm { .. }
            | KernelCall::Upsample { .. }
            | KernelCall::Denoise { .. }
            | KernelCall::Advance { .. }
            | KernelCall::Noise { .. } => self.kernels(call),
        }
    }

    fn resolve(&self, call: &KernelCall) -> Result<Operands<'_>, RuntimeError> {
        Resolved::new(
            &FLOATS,
            |buffer| self.memory.view(buffer),
            self.weights,
            call,
        )
    }

    /// The kernels of `terrace-kernels`.
    fn kernels(&self, call: &KernelCall) -> Parts {
        let weights = self.weights.iter().map(|weight| {
            let copy = weight.on(self.gpu)?;
            Ok(Arc::clone(copy.cube()))
        });
        let weights = weights.collect::<Result<Vec<_>, RuntimeError>>()?;
        let binder = Binder::new(&FLOATS, &self.places, &weights, call)?;
        let device = self.memory.lane().queue().device();
        self.queued(&cube::calls(&binder, device, call)?)
    }

    pub(super) fn queued(&self, calls: &[Call<CudaBuffer>]) -> Parts {
        let queue = self.memory.lane().queue();
        let launches = calls
            .iter()
            .map(|call| Ok(Part::Kernel(queue.prepare(call)?)));
        launches.collect()
    }

    fn linear(&self, call: &KernelCall) -> Parts {
        let KernelCall::Linear {
            rows,
            k,
            n,
            bias,
            epilogue,
            ..
        } = call
        else {
            return self.kernels(call);
        };
        let on = self.resolve(call)?;
        let (x, y) = (on.view("x")?, on.view("y")?);
        let weight = on.weight("weight").ok_or_else(|| on.missing("weight"))?;
        let with_bias = bias.is_some();
        let route = route::product(x.dtype(), weight.dtype(), [*k, *n], epilogue, with_bias);
        let Some(route) = route else {
            fp8::refuse(weight.dtype(), x.dtype())?;
            return self.kernels(call);
        };
        if *rows == 0 {
            return Ok(Vec::new());
        }
        let weight = weight.on(self.gpu)?;
        let bias = on
            .weight("bias")
            .map(|bias| bias.on(self.gpu)?.vector(route.element));
        let ([codes, scales, product], bytes) = of_product(&route, [*rows, *k, *n]);
        let scratch = self.memory.scratch(bytes)?;
        let product = match route.rest {
            Rest::Residual => scratch.plus(product),
            Rest::Nothing | Rest::Gelu | Rest::GeluTanh | Rest::Silu => address(y),
        };
        let to = [codes, scales].map(|part| scratch.plus(part));
        let (mut parts, x, scales) = self.factors(&on, route.factors, [*rows, *k], weight, to)?;
        let operands = ProductOperands {
            x,
            weight: weight.address(),
            bias: bias.transpose()?.unwrap_or(DeviceAddress(0)),
            y: product,
            scales,
            workspace: self.memory.product_scratch(),
        };
        let kind = ProductKind {
            k: *k,
            n: *n,
            factors: route.factors,
            element: route.element,
            epilogue: route.epilogue,
        };
        let Some(prepared) = self.product(kind, *rows, operands)? else {
            return self.kernels(call);
        };
        parts.push(Part::Product(prepared));
        parts.extend(self.rest(&on, epilogue, [*rows, *n], route, product)?);
        Ok(parts)
    }

    /// A product of cublasLt, or nothing where the kernels have to multiply.
    fn product(
        &self,
        kind: ProductKind,
        rows: usize,
        operands: ProductOperands,
    ) -> Result<Option<Product>, RuntimeError> {
        let blas = self.memory.lane().gpu().blas();
        let prepared = blas.prepare(kind, rows, operands);
        match kind.factors {
            Factors::OfResult => served(prepared),
            // No other kernel multiplies codes.
            Factors::F8E4M3 => Ok(Some(prepared?)),
        }
    }

    /// What cublasLt does not do behind a product, `[rows, n]`, that lies at `product`.
    fn rest(
        &self,
        on: &Operands<'_>,
        epilogue: &Epilogue,
        [rows, n]: [usize; 2],
        route: ProductRoute,
        product: DeviceAddress,
    ) -> Parts {
        let device = self.memory.lane().queue().device();
        let x = at(product, rows * n, element(route.element));
        let in_place = |function| Activate {
            function,
            x: x.clone(),
            y: x.clone(),
        };
        let calls = match (route.rest, epilogue) {
            (Rest::Nothing, _) => Vec::new(),
            (Rest::Gelu, _) => in_place(Function::Gelu).calls(device)?,
            (Rest::GeluTanh, _) => in_place(Function::GeluTanh).calls(device)?,
            (Rest::Silu, _) => in_place(Function::Silu).calls(device)?,
            (
                Rest::Residual,
                Epilogue::Residual {
                    gate: Some(gate), ..
                },
            ) => GateAdd {
                batch: gate.batch,
                width: n,
                segments: &args::gate_segments(gate),
                mods: Mods {
                    data: self.places.operand(on.view("mods")?)?,
                    stride: gate.mods.stride,
                },
                residual: self.places.operand(on.view("residual")?)?,
                x,
                y: self.places.operand(on.view("y")?)?,
            }
            .calls(device)?,
            (Rest::Residual, _) => Add {
                a: self.places.operand(on.view("residual")?)?,
                b: x,
                y: self.places.operand(on.view("y")?)?,
            }
            .calls(device)?,
        };
        self.queued(&calls)
    }

    /// `views`: queries, keys, values.
    fn attention(
        &self,
        call: &KernelCall,
        shape: AttentionShape,
        views: [&Heads; 3],
        result: &Heads,
    ) -> Parts {
        let on = self.resolve(call)?;
        let [q, k, v] = [on.view("q")?, on.view("k")?, on.view("v")?];
        let Some(key) = route::attention(q.dtype(), shape, views, Some(result)) else {
            return self.kernels(call);
        };
        let operands = AttentionOperands {
            q: address(q),
            k: address(k),
            v: address(v),
            y: address(on.view("y")?),
            lse: DeviceAddress(0),
        };
        let lane = self.memory.lane();
        let Some(workspace) = for_attention(lane, key)? else {
            return self.kernels(call);
        };
        let workspace = self.memory.scratch(workspace)?;
        let prepared = lane
            .dnn()?
            .attention(key, shape.scale as f32, operands, workspace);
        match served(prepared)? {
            Some(attention) => Ok(vec![Part::Attention(attention)]),
            None => self.kernels(call),
        }
    }

    fn attention_step(
        &self,
        call: &KernelCall,
        shape: AttentionShape,
        views: [&Heads; 3],
        stage: Stage,
    ) -> Parts {
        let on = self.resolve(call)?;
        let [q, k, v] = [on.view("q")?, on.view("k")?, on.view("v")?];
        let Some(key) = route::attention(q.dtype(), shape, views, None) else {
            return self.kernels(call);
        };
        let lane = self.memory.lane();
        let Some(workspace) = for_attention(lane, key)? else {
            return self.kernels(call);
        };
        let ([o, lse, workspace], bytes) = of_step(&key, workspace);
        let scratch = self.memory.scratch(bytes)?;
        let operands = AttentionOperands {
            q: address(q),
            k: address(k),
            v: address(v),
            y: scratch.plus(o),
            lse: scratch.plus(lse),
        };
        let workspace = scratch.plus(workspace);
        let prepared = lane
            .dnn()?
            .attention(key, shape.scale as f32, operands, workspace);
        let Some(attention) = served(prepared)? else {
            return self.kernels(call);
        };
        let mut parts = vec![Part::Attention(attention)];
        parts.extend(self.merge(&key, operands, stage, on.view("state")?)?);
        Ok(parts)
    }

    /// Merges what cuDNN made of a block of keys into the running state.
    fn merge(
        &self,
        key: &AttentionPlan,
        from: AttentionOperands,
        stage: Stage,
        state: View,
    ) -> Parts {
        let rows = key.batch * key.heads * key.q_rows;
        let merge = AttentionMerge {
            batch: key.batch,
            rows: key.q_rows,
            heads: key.heads,
            head_dim: key.head_dim,
            o: at(from.y, rows * key.head_dim, element(key.element)),
            lse: at(from.lse, rows, Element::F32),
            stage: args::stage(stage),
            state: self.places.operand(state)?,
        };
        self.queued(&merge.calls(self.memory.lane().queue().device())?)
    }

    fn conv3d(&self, call: &KernelCall) -> Parts {
        let KernelCall::Conv3d {
            shape,
            bias,
            residual,
            ..
        } = call
        else {
            return self.kernels(call);
        };
        let on = self.resolve(call)?;
        let (x, y) = (on.view("x")?, on.view("y")?);
        let weight = on.weight("weight").ok_or_else(|| on.missing("weight"))?;
        let route = route::conv(x.dtype(), *shape, bias.is_some(), residual.is_some());
        let taps = weight.on(self.gpu)?.taps();
        let (Some(key), Some(taps)) = (route.filter(|_| weight.dtype() == x.dtype()), taps) else {
            return self.kernels(call);
        };
        let lane = self.memory.lane();
        let Some(workspace) = for_conv(lane, key)? else {
            return self.kernels(call);
        };
        let ([frames, workspace], bytes) = of_conv(&key, workspace);
        let scratch = self.memory.scratch(bytes)?;
        let mut parts = before(&key, x, on.maybe("cache"), scratch.plus(frames));
        let from = match parts.is_empty() {
            true => address(x),
            false => scratch.plus(frames),
        };
        let bias = on
            .weight("bias")
            .map(|bias| bias.on(self.gpu)?.vector(key.element));
        let operands = ConvOperands {
            x: from,
            weight: taps,
            bias: bias.transpose()?.unwrap_or(DeviceAddress(0)),
            residual: on.maybe("residual").map_or(DeviceAddress(0), address),
            y: address(y),
        };
        let prepared = lane.dnn()?.conv(key, operands, scratch.plus(workspace));
        let Some(conv) = served(prepared)? else {
            return self.kernels(call);
        };
        parts.push(Part::Conv(conv));
        Ok(parts)
    }
}

/// The copies that put the frames before `x` in front of it, at `to`; none for a filter of one frame.
fn before(key: &ConvPlan, x: View, cache: Option<View>, to: DeviceAddress) -> Vec<Part> {
    let [t, h, w] = key.grid;
    let (frame, kept) = (h * w * key.cin * key.element.bytes(), key.kernel[0] - 1);
    let mut parts = Vec::new();
    if kept == 0 {
        return parts;
    }
    for item in 0..key.batch {
        let dst = to.plus(item * (t + kept) * frame);
        let first = address(x).plus(item * t * frame);
        match cache {
            Some(cache) => parts.push(Part::Copy {
                src: address(cache).plus(item * kept * frame),
                dst,
                bytes: kept * frame,
            }),
            None => parts.extend((0..kept).map(|index| Part::Copy {
                src: first,
                dst: dst.plus(index * frame),
                bytes: frame,
            })),
        }
        parts.push(Part::Copy {
            src: first,
            dst: dst.plus(kept * frame),
            bytes: t * frame,
        });
    }
    parts
}

const fn element(float: Float) -> Element {
    match float {
        Float::F32 => Element::F32,
        Float::F16 => Element::F16,
        Float::Bf16 => Element::Bf16,
    }
}
