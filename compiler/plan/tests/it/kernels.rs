//! Every kernel once, in one valid plan: its operands, weights, arithmetic and text.

use crate::build::{header, step};
use terrace_plan::*;

const LEN: usize = 4096;

/// A plan of one rank that runs `calls` one after the other. Buffer 0 is an input of f32, buffer 1 one
/// of u32; [`out`] gives each call a buffer of its own to write.
pub fn plan(calls: Vec<KernelCall>, weights: Vec<Weight>) -> Plan {
    let input = |name: &str, dtype| Port {
        name: name.into(),
        dtype,
        shape: vec![LEN],
    };
    let buffer = |region, place: usize, dtype| Buffer {
        region,
        offset: place * 4 * LEN,
        dtype,
        len: LEN,
    };
    let mut buffers = vec![
        buffer(Region::State, 0, DType::F32),
        buffer(Region::State, 1, DType::U32),
    ];
    buffers.extend((0..calls.len()).map(|i| buffer(Region::Arena, i, DType::F32)));
    let binding = |port| Binding {
        port,
        buffer: BufferId(port),
        boxes: vec![crate::build::dense(LEN, 0, 0)],
    };
    Plan {
        header: header(Mesh::ONE),
        mesh: Mesh::ONE,
        partitions: Vec::new(),
        inputs: vec![input("f", DType::F32), input("u", DType::U32)],
        outputs: Vec::new(),
        carries: Vec::new(),
        weights,
        collectives: Vec::new(),
        origins: vec!["kernel".into()],
        ranks: vec![RankPlan {
            arena_bytes: calls.len() * 4 * LEN,
            state_bytes: 8 * LEN,
            buffers,
            inputs: vec![binding(0), binding(1)],
            outputs: Vec::new(),
            patterns: Vec::new(),
            init: Vec::new(),
            steps: calls
                .into_iter()
                .map(|call| step(0, Action::Launch(call)))
                .collect(),
        }],
    }
}

/// Element `offset` of the input of f32.
pub const fn x(offset: usize) -> Slot {
    Slot {
        buffer: BufferId(0),
        offset,
    }
}

/// The input of u32.
pub const U: Slot = Slot {
    buffer: BufferId(1),
    offset: 0,
};

/// Where call `index` writes.
pub const fn out(index: usize) -> Slot {
    Slot {
        buffer: BufferId(2 + index),
        offset: 0,
    }
}

pub fn weight(name: &str, shape: &[usize], layout: WeightLayout) -> Weight {
    Weight {
        sources: vec![WeightSource {
            name: name.into(),
            aliases: Vec::new(),
            shape: shape.to_vec(),
        }],
        dtype: DType::F32,
        shape: shape.to_vec(),
        layout,
        boxes: Vec::new(),
        len: shape.iter().product(),
    }
}

/// `[batch, rows, heads, head_dim]`, dense.
pub const fn heads(slot: Slot, rows: usize, heads: usize, head_dim: usize) -> Heads {
    Heads {
        slot,
        batch_stride: rows * heads * head_dim,
        row_stride: heads * head_dim,
        head_stride: head_dim,
    }
}

pub const SHAPE: AttentionShape = AttentionShape {
    batch: 2,
    heads: 3,
    q_rows: 5,
    kv_rows: 7,
    head_dim: 4,
    scale: 0.5,
    products: DType::F32,
};

pub const CONV: ConvShape = ConvShape {
    batch: 1,
    grid: [2, 3, 4],
    cin: 5,
    cout: 6,
    kernel: [3, 3, 3],
};

const PLAIN: [Option<WeightId>; 2] = [Some(WeightId(1)), Some(WeightId(2))];

fn weights() -> Vec<Weight> {
    vec![
        weight("linear", &[6, 4], WeightLayout::Linear),
        weight("a", &[6], WeightLayout::Plain),
        weight("b", &[6], WeightLayout::Plain),
        weight("table", &[10, 6], WeightLayout::Plain),
        weight("bias", &[8, 3], WeightLayout::Plain),
        weight("positions", &[5, 6], WeightLayout::Plain),
        weight("conv", &[6, 5, 3, 3, 3], WeightLayout::Conv3d),
    ]
}

fn affine() -> Affine {
    let [weight, bias] = PLAIN;
    Affine { weight, bias }
}

fn gate() -> Gate {
    let mods = Mods {
        slot: x(100),
        stride: 12,
    };
    let segments = vec![
        GateSegment { rows: 2, gate: 0 },
        GateSegment { rows: 3, gate: 6 },
    ];
    Gate {
        mods,
        batch: 2,
        segments,
    }
}

fn row_kernels() -> Vec<KernelCall> {
    vec![
        KernelCall::Linear {
            rows: 10,
            k: 4,
            n: 6,
            x: x(0),
            weight: WeightId(0),
            bias: Some(WeightId(1)),
            epilogue: Epilogue::Residual {
                residual: x(200),
                gate: Some(gate()),
            },
            y: out(0),
        },
        KernelCall::NormModulate {
            batch: 2,
            width: 6,
            segments: vec![ModSegment {
                rows: 3,
                shift: 0,
                scale: 6,
            }],
            norm: Norm::Layer {
                eps: 1e-5,
                affine: affine(),
            },
            mods: Some(gate().mods),
            x: x(0),
            y: out(1),
        },
        KernelCall::GateAdd {
            rows: 10,
            width: 6,
            gate: Some(gate()),
            residual: x(0),
            x: x(64),
            y: out(2),
        },
        KernelCall::Activate {
            len: 9,
            function: Activation::Gelu,
            x: x(0),
            y: out(3),
        },
        KernelCall::GatedGelu {
            rows: 3,
            width: 6,
            x: x(0),
            y: out(4),
        },
        KernelCall::Cast {
            len: 9,
            x: x(0),
            y: out(21),
        },
    ]
}

fn head_kernels() -> Vec<KernelCall> {
    let (q, kv) = (heads(x(0), 5, 3, 4), heads(x(500), 7, 3, 4));
    vec![
        KernelCall::Attention {
            shape: SHAPE,
            q,
            k: kv,
            v: kv,
            bias: Some(x(1000)),
            y: heads(out(5), 5, 3, 4),
        },
        KernelCall::AttentionStep {
            shape: SHAPE,
            q,
            k: kv,
            v: kv,
            stage: Stage::First,
            state: out(6),
        },
        KernelCall::AttentionFinish {
            rows: 10,
            heads: 3,
            head_dim: 4,
            state: out(6),
            y: out(7),
        },
        KernelCall::QkNormRope {
            batch: 2,
            rows: 5,
            heads: 3,
            head_dim: 6,
            norm: Some(QkNorm {
                eps: 1e-6,
                q: affine(),
                k: affine(),
            }),
            rope: Some(Rope {
                table: x(0),
                first_row: 2,
            }),
            // The result of a call before it, changed in place.
            qkv: out(5),
        },
    ]
}

fn table_kernels() -> Vec<KernelCall> {
    vec![
        KernelCall::Embedding {
            rows: 4,
            width: 6,
            vocabulary: 10,
            ids: U,
            table: WeightId(3),
            y: out(9),
        },
        KernelCall::RelativeBias {
            heads: 3,
            q_rows: 5,
            kv_rows: 7,
            buckets: 8,
            max_distance: 16,
            table: WeightId(4),
            y: out(10),
        },
        KernelCall::TimestepEmbedding {
            batch: 2,
            dim: 8,
            order: SinusoidOrder::CosSin,
            shift: 0.0,
            timestep: x(0),
            y: out(11),
        },
        KernelCall::PositionTable {
            kind: PositionKind::Rotary { theta: 10_000.0 },
            columns: vec![PositionColumns {
                axis: GridAxis::H,
                dim: 6,
                start: 0.0,
                step: 1.0,
            }],
            zero_rows: 2,
            t: 2,
            grid_w: 3,
            first_cell: 4,
            cells: 5,
            y: out(12),
        },
        KernelCall::Join {
            batch: 2,
            text_rows: 2,
            video_rows: 3,
            width: 6,
            text: x(0),
            video: x(24),
            positions: Some(Operand::Weight(WeightId(5))),
            y: out(13),
        },
        KernelCall::Noise {
            boxes: vec![crate::build::dense(5, 1000, 3)],
            key: U,
            y: out(14),
        },
    ]
}

fn grid_kernels() -> Vec<KernelCall> {
    vec![
        KernelCall::Conv3d {
            shape: CONV,
            x: x(0),
            cache: Some(x(500)),
            weight: WeightId(6),
            bias: Some(WeightId(1)),
            residual: Some(x(1000)),
            y: out(15),
        },
        KernelCall::ConvCache {
            batch: 1,
            frames: 2,
            frame_len: 60,
            keep: 2,
            x: x(0),
            cache: None,
            y: out(16),
        },
        KernelCall::GroupNorm {
            batch: 1,
            grid: [2, 3, 4],
            channels: 6,
            groups: 3,
            eps: 1e-6,
            affine: affine(),
            spatial: Some(SpatialModulation {
                yb: x(500),
                grid: [1, 3, 2],
            }),
            activation: Some(Activation::Silu),
            x: x(0),
            y: out(17),
        },
        KernelCall::Upsample {
            batch: 1,
            grid: [3, 2, 2],
            channels: 5,
            time: UpsampleTime::Double,
            x: x(0),
            y: out(18),
        },
    ]
}

fn sampler_kernels() -> Vec<KernelCall> {
    vec![
        KernelCall::Denoise {
            len: 20,
            uncond: Some(x(0)),
            pred: x(20),
            latents: x(40),
            coefficients: x(60),
            y: out(19),
        },
        KernelCall::Advance {
            len: 20,
            latents: x(0),
            x0: x(20),
            previous: Some(x(40)),
            noise: Some(x(60)),
            coefficients: x(80),
            y: out(20),
        },
    ]
}

fn every() -> Plan {
    let calls = [
        row_kernels(),
        head_kernels(),
        table_kernels(),
        grid_kernels(),
        sampler_kernels(),
    ];
    plan(calls.concat(), weights())
}

#[test]
fn every_kernel_passes_the_check() {
    let plan = every();
    assert_eq!(plan.check(), Ok(()));
    assert_eq!(plan.ranks[0].steps.len(), 22);
}

#[test]
fn every_kernel_has_a_line_of_text() {
    let steps = explain::steps(&every(), Rank(0)).unwrap();
    insta::assert_snapshot!(steps.to_text());
}

#[test]
fn regions_are_as_large_as_the_sizes_say() {
    let plan = every();
    let mut regions = Vec::new();
    for step in &plan.ranks[0].steps {
        let Action::Launch(call) = &step.action else {
            panic!("only launches");
        };
        for it in call.operands().unwrap() {
            let (name, access) = (it.name, it.access);
            let span = it.end - it.offset;
            regions.push(format!(
                "{} {name}: {} of {span} {}, {access:?}",
                call.name(),
                it.elements,
                it.dtype.name()
            ));
        }
        for it in call.weights() {
            let (name, layout) = (it.name, it.layout.name());
            regions.push(format!("{} {name}: {layout} {:?}", call.name(), it.shape));
        }
    }
    insta::assert_snapshot!(regions.join("\n"));
}

#[test]
fn operations_of_products_attention_and_convolution_are_counted() {
    let flops = |call: &KernelCall| call.flops();
    let linear = flops(&row_kernels()[0]);
    assert_eq!(linear, 2 * 10 * 4 * 6);
    let [attention, step, finish] = [0, 1, 2].map(|i| flops(&head_kernels()[i]));
    assert_eq!(attention, 4 * 2 * 3 * 5 * 7 * 4);
    assert_eq!((step, finish), (attention, 0));
    let convolution = flops(&grid_kernels()[0]);
    assert_eq!(convolution, 2 * (2 * 3 * 4) * 6 * 5 * 27);
    let huge = KernelCall::Attention {
        shape: AttentionShape {
            q_rows: usize::MAX,
            ..SHAPE
        },
        q: heads(x(0), 1, 1, 1),
        k: heads(x(0), 1, 1, 1),
        v: heads(x(0), 1, 1, 1),
        bias: None,
        y: heads(out(0), 1, 1, 1),
    };
    assert_eq!(huge.flops(), u64::MAX);
}
