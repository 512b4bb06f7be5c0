//! One call at least for every kernel and every form of it.

use terrace_kernels::cpu::{Axis, GridAxis, PositionKind, SinCosOrder};
use terrace_kernels::cube::*;
use terrace_kernels::{GateSegment, KernelError, ModSegment, StepStage};

pub type Calls = Result<Vec<Call<()>>, KernelError>;
type Target = Device<<WgpuQueue as Queue>::Runtime>;

const WIDTH: usize = 64;
const ROWS: usize = 6;
const SEGMENTS: [ModSegment; 2] = [
    ModSegment {
        rows: 2,
        shift: 0,
        scale: WIDTH,
    },
    ModSegment {
        rows: 4,
        shift: 0,
        scale: WIDTH,
    },
];
const GATES: [GateSegment; 2] = [
    GateSegment { rows: 2, gate: 0 },
    GateSegment {
        rows: 4,
        gate: WIDTH,
    },
];
const FUNCTIONS: [Function; 4] = [
    Function::Identity,
    Function::Silu,
    Function::Gelu,
    Function::GeluTanh,
];

/// Makes calls with operands that begin `skew` elements behind their buffers.
pub struct Maker<'a> {
    pub device: &'a Target,
    pub element: Element,
    pub skew: usize,
}

impl Maker<'_> {
    pub fn all(&self) -> Vec<Call<()>> {
        let mut calls = Vec::new();
        let families: [&dyn Fn() -> Vec<Calls>; 6] = [
            &|| self.rows(),
            &|| self.products(),
            &|| self.attention(),
            &|| self.tables(),
            &|| self.video(),
            &|| self.sampler(),
        ];
        for family in families {
            family()
                .into_iter()
                .for_each(|made| calls.extend(made.unwrap()));
        }
        calls
    }

    pub fn of(&self, element: Element, len: usize) -> Operand<()> {
        Operand {
            buffer: (),
            offset: self.skew,
            len,
            element,
        }
    }

    /// Activations.
    pub fn x(&self, len: usize) -> Operand<()> {
        self.of(self.element, len)
    }

    /// Vectors, states, positions.
    pub fn f(&self, len: usize) -> Operand<()> {
        self.of(Element::F32, len)
    }

    fn mods(&self) -> Mods<()> {
        Mods {
            data: self.x(2 * WIDTH),
            stride: 0,
        }
    }

    fn norms(&self) -> Vec<Calls> {
        let x = self.x(ROWS * WIDTH);
        let (weight, bias) = (Some(self.f(WIDTH)), Some(self.f(WIDTH)));
        let layer = |weight, bias| Norm::Layer {
            eps: 1e-5,
            weight,
            bias,
        };
        let rms = Norm::Rms {
            eps: 1e-6,
            weight: weight.clone(),
        };
        let norms = [Norm::None, layer(None, None), layer(weight, bias), rms];
        let mut calls = Vec::new();
        for norm in norms {
            for mods in [None, Some(self.mods())] {
                let modulate = NormModulate {
                    batch: 1,
                    width: WIDTH,
                    segments: &SEGMENTS,
                    norm: norm.clone(),
                    mods,
                    x: x.clone(),
                    y: x.clone(),
                };
                calls.push(modulate.calls(self.device));
            }
        }
        calls
    }

    fn rows(&self) -> Vec<Calls> {
        let (x, on) = (self.x(ROWS * WIDTH), self.device);
        let mut calls = self.norms();
        let gated = GateAdd {
            batch: 1,
            width: WIDTH,
            segments: &GATES,
            mods: self.mods(),
            residual: x.clone(),
            x: x.clone(),
            y: x.clone(),
        };
        calls.push(gated.calls(on));
        let (a, b, y) = (x.clone(), x.clone(), x.clone());
        calls.push(Add { a, b, y }.calls(on));
        for (x, y) in [(x.clone(), self.f(x.len)), (self.f(x.len), x.clone())] {
            calls.push(Cast { x, y }.calls(on));
        }
        for function in FUNCTIONS {
            let (x, y) = (x.clone(), x.clone());
            calls.push(Activate { function, x, y }.calls(on));
        }
        let gelu = GatedGelu {
            rows: ROWS,
            width: WIDTH / 2,
            y: self.x(ROWS * WIDTH / 2),
            x,
        };
        calls.push(gelu.calls(on));
        let quantize = QuantizeRows {
            rows: ROWS,
            width: WIDTH,
            x: self.x(ROWS * WIDTH),
            codes: self.of(Element::U32, ROWS * WIDTH / 4),
            scales: self.f(ROWS),
        };
        calls.push(quantize.calls(on));
        calls
    }

    fn products(&self) -> Vec<Calls> {
        let residual = |gate| LinearEpilogue::Residual {
            residual: self.x(ROWS * WIDTH),
            gate,
        };
        let gate = LinearGate {
            mods: self.mods(),
            batch: 1,
            segments: &GATES,
        };
        let functions = FUNCTIONS.map(LinearEpilogue::Function);
        let epilogues = functions
            .into_iter()
            .chain([residual(None), residual(Some(gate))]);
        let mut calls = Vec::new();
        for epilogue in epilogues {
            // Weights of another type stand under f32 activations only.
            let weights = match self.element {
                Element::F32 => vec![Element::F32, Element::F16, Element::Bf16],
                Element::F16 | Element::Bf16 | Element::U32 => vec![self.element],
            };
            for weight in weights {
                let linear = Linear {
                    rows: ROWS,
                    n: WIDTH,
                    k: WIDTH,
                    x: self.x(ROWS * WIDTH),
                    weight: self.of(weight, WIDTH * WIDTH),
                    bias: Some(self.f(WIDTH)),
                    epilogue: epilogue.clone(),
                    y: self.x(ROWS * WIDTH),
                };
                calls.push(linear.calls(self.device));
            }
        }
        calls
    }

    fn heads(&self, dim: usize) -> HeadsView<()> {
        HeadsView {
            data: self.x(ROWS * 2 * dim),
            batch_stride: ROWS * 2 * dim,
            row_stride: 2 * dim,
            head_stride: dim,
        }
    }

    fn attention(&self) -> Vec<Calls> {
        let on = self.device;
        let mut calls = Vec::new();
        for dim in [32, 64, 128] {
            let view = self.heads(dim);
            for bias in [None, Some(self.f(2 * ROWS * ROWS))] {
                let whole = Attention {
                    batch: 1,
                    heads: 2,
                    q_rows: ROWS,
                    kv_rows: ROWS,
                    head_dim: dim,
                    scale: 0.125,
                    q: view.clone(),
                    k: view.clone(),
                    v: view.clone(),
                    bias,
                    y: view.clone(),
                };
                calls.push(whole.calls(on));
            }
            for stage in [StepStage::First, StepStage::Next] {
                calls.push(self.step(dim, stage));
                calls.push(self.merge(dim, stage));
            }
            let finish = AttentionFinish {
                rows: ROWS,
                heads: 2,
                head_dim: dim,
                state: self.f(ROWS * 2 * (dim + 2)),
                y: self.x(ROWS * 2 * dim),
            };
            calls.push(finish.calls(on));
            calls.extend(self.heads_in_place(dim));
        }
        calls
    }

    fn step(&self, dim: usize, stage: StepStage) -> Calls {
        let view = self.heads(dim);
        let step = AttentionStep {
            batch: 1,
            heads: 2,
            q_rows: ROWS,
            kv_rows: ROWS,
            head_dim: dim,
            scale: 0.125,
            q: view.clone(),
            k: view.clone(),
            v: view,
            stage,
            state: self.f(ROWS * 2 * (dim + 2)),
        };
        step.calls(self.device)
    }

    fn merge(&self, dim: usize, stage: StepStage) -> Calls {
        let merge = AttentionMerge {
            batch: 1,
            rows: ROWS,
            heads: 2,
            head_dim: dim,
            o: self.x(ROWS * 2 * dim),
            lse: self.f(ROWS * 2),
            stage,
            state: self.f(ROWS * 2 * (dim + 2)),
        };
        merge.calls(self.device)
    }

    fn heads_in_place(&self, dim: usize) -> Vec<Calls> {
        let norm = || HeadNorm {
            eps: 1e-6,
            weight: Some(self.f(dim)),
            bias: Some(self.f(dim)),
        };
        let table = || self.f((ROWS - 2) * 2 * dim);
        let forms = [
            (Some(norm()), Some(table())),
            (Some(norm()), None),
            (None, Some(table())),
        ];
        let calls = forms.into_iter().map(|(norm, table)| {
            let heads = QkNormRope {
                batch: 1,
                rows: ROWS,
                text_rows: if table.is_some() { 2 } else { ROWS },
                parts: 3,
                heads: 2,
                dim,
                q: norm.clone(),
                k: norm,
                table,
                qkv: self.x(ROWS * 3 * 2 * dim),
            };
            heads.calls(self.device)
        });
        calls.collect()
    }

    fn tables(&self) -> Vec<Calls> {
        let on = self.device;
        let embedding = TokenEmbedding {
            vocabulary: 9,
            width: WIDTH,
            ids: self.of(Element::U32, ROWS),
            table: self.f(9 * WIDTH),
            y: self.x(ROWS * WIDTH),
        };
        let shape = RelativeShape {
            heads: 2,
            queries: ROWS,
            keys: ROWS,
            buckets: 8,
            max_distance: 16,
        };
        let relative = RelativeBias {
            table: self.f(16),
            buckets: self.of(Element::U32, shape.buckets().unwrap().len()),
            shape,
            y: self.f(2 * ROWS * ROWS),
        };
        let shape = TimestepShape {
            dim: WIDTH,
            order: SinCosOrder::CosSin,
            downscale_freq_shift: 0.0,
            max_period: 1e4,
        };
        let timestep = TimestepEmbedding {
            frequencies: self.f(shape.frequencies().unwrap().len()),
            shape,
            timesteps: self.f(2),
            y: self.f(2 * WIDTH),
        };
        let mut calls = vec![embedding.calls(on), relative.calls(on), timestep.calls(on)];
        let rotary = PositionKind::Rotary { theta: 1e4 };
        calls.extend([PositionKind::SinCos, rotary].map(|kind| self.positions(kind)));
        for positions in [None, Some(self.f(ROWS * WIDTH))] {
            let join = Join {
                batch: 1,
                text_rows: 2,
                video_rows: ROWS - 2,
                width: WIDTH,
                text: self.x(2 * WIDTH),
                video: self.x((ROWS - 2) * WIDTH),
                positions,
                y: self.x(ROWS * WIDTH),
            };
            calls.push(join.calls(on));
        }
        calls
    }

    fn positions(&self, kind: PositionKind) -> Calls {
        let column = |axis| Axis {
            axis,
            dim: 8,
            start: 0.0,
            step: 1.0,
        };
        let width = match kind {
            PositionKind::SinCos => 24,
            PositionKind::Rotary { .. } => 48,
        };
        let shape = PositionShape {
            kind,
            columns: [GridAxis::T, GridAxis::H, GridAxis::W].map(column).to_vec(),
            t: 2,
            grid_w: 3,
            cells: 0..4,
            zero_rows: 1,
        };
        let constants = shape.constants()?;
        let table = PositionTable {
            map: self.of(Element::U32, constants.map.len()),
            entries: self.f(constants.entries.len()),
            shape,
            y: self.f(9 * width),
        };
        table.calls(self.device)
    }
}
