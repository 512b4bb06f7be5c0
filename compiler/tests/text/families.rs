//! Random nodes of every op, each with operands that fit it.

use crate::dice::Dice;
use crate::maker::{AFFINES, Maker, host};
use crate::random::sharding;
use terrace_compiler::ir::{Dim, Graph, NodeId, Type};
use terrace_compiler::ops::{
    AllGather, AllToAll, Attention, AttentionStep, Conv3d, ConvCache, Denoise, Embedding,
    GroupNorm, Guidance, Linear, LinearEpilogue, Noise, Norm, Op, Output, Packing, PositionTable,
    Presence, QkNormRope, RelativeBias, Repeat, RingShift, Rope, Sources, Take, TimestepEmbedding,
    Upsample,
};
use terrace_plan::{
    Activation, Axis, DType, PositionKind, SinusoidOrder, Stage, UpsampleTime, WeightLayout,
};

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::Gelu];

/// Adds a node of a random op, and operands for it, to a graph.
pub fn add(graph: &mut Graph, dice: &mut Dice) -> NodeId {
    let families = [
        border,
        linear,
        rows,
        heads,
        attention,
        embeddings,
        movement,
        video,
        sampler,
        collectives,
    ];
    dice.pick(&families)(&mut Maker { graph, dice })
}

fn border(make: &mut Maker<'_>) -> NodeId {
    let last = make.channels("c", &[]);
    let x = make.rows(last);
    match make.dice.from(0, 2) {
        0 => x,
        1 => make.weight(&[3, 4], WeightLayout::Linear),
        _ => {
            let output = Output {
                name: make.dice.text(),
                host: host(&make.dims(x)),
            };
            make.add(Op::Output(output), &[x])
        }
    }
}

fn linear(make: &mut Maker<'_>) -> NodeId {
    let inner = make.dice.from(1, 6);
    let x = make.rows(Dim::new("c", inner));
    let out = make.channels("e", &[]);
    let weight = make.weight(&[out.size(), inner], WeightLayout::Linear);
    let mut operands = vec![x, weight];
    let bias = make.optional(&mut operands, |make| make.vectors(1, out.size())[0]);
    let epilogue = match make.dice.from(0, 3) {
        0 => LinearEpilogue::None,
        1 => LinearEpilogue::Activate(make.dice.pick(&ACTIVATIONS)),
        gated => {
            let mut dims = make.dims(x);
            dims[2] = out.clone();
            let residual = make.tensor(dims);
            operands.push(residual);
            if gated == 3 {
                operands.push(make.mods(residual));
                LinearEpilogue::GatedResidual(make.gates(residual))
            } else {
                LinearEpilogue::Residual
            }
        }
    };
    let op = Linear {
        out,
        bias,
        epilogue,
    };
    make.add(Op::Linear(op), &operands)
}

fn rows(make: &mut Maker<'_>) -> NodeId {
    let width = make.dice.from(1, 6);
    let x = make.rows(Dim::new("c", width));
    match make.dice.from(0, 4) {
        0 => {
            let kind = make.norm();
            let mut operands = vec![x];
            operands.extend(make.vectors(kind.weights(), width));
            let modulate = make.dice.coin().then(|| {
                operands.push(make.mods(x));
                make.chunks(x)
            });
            make.add(Op::Norm(Norm { kind, modulate }), &operands)
        }
        1 => {
            let operands = [x, make.mods(x)];
            let chunks = make.chunks(x);
            make.add(Op::Modulate(chunks), &operands)
        }
        2 => {
            let mut operands = vec![x, x];
            let gates = make.dice.coin().then(|| {
                operands.push(make.mods(x));
                make.gates(x)
            });
            make.add(Op::Residual(gates), &operands)
        }
        3 => {
            let function = make.dice.pick(&ACTIVATIONS);
            make.add(Op::Activate(function), &[x])
        }
        _ => {
            let x = make.rows(Dim::product("m", &[("g", 2), ("f", width)]));
            make.add(Op::GatedGelu, &[x])
        }
    }
}

fn heads(make: &mut Maker<'_>) -> NodeId {
    let single = make.channels("c", &[]);
    let x = make.rows(single);
    let grid = make.dims(x)[1].segments.last().unwrap().clone();
    let turned = grid.factors.len() == 3;
    match make.dice.from(0, 2) {
        0 => {
            let kind = make.norm();
            let mut operands = vec![x];
            operands.extend(make.vectors(kind.weights(), 4));
            make.add(Op::HeadNorm(kind), &operands)
        }
        1 if turned => {
            let table = make.table(grid);
            make.add(Op::Rope(Rope), &[x, table])
        }
        _ => {
            let mut dims = make.dims(x);
            dims[2] = make.channels("c", &[("qkv", 3)]);
            let qkv = make.tensor(dims);
            let mut op = QkNormRope {
                norm: make.dice.coin().then(|| make.norm()),
                rope: Presence::Absent,
            };
            let mut operands = vec![qkv];
            operands.extend(make.vectors(op.norm_operands(), 4));
            if turned {
                op.rope = make.optional(&mut operands, |make| make.table(grid));
            }
            make.add(Op::QkNormRope(op), &operands)
        }
    }
}

fn attention(make: &mut Maker<'_>) -> NodeId {
    let packed = make.channels("c", &[("qkv", 3)]);
    let qkv = make.rows(packed);
    let scale = make.dice.float();
    let products = [DType::F32, DType::Bf16][make.dice.from(0, 1)];
    match make.dice.from(0, 3) {
        0 => {
            let single = make.channels("c", &[]);
            let x = make.rows(single);
            let mut operands = vec![x; 3];
            let bias = make.optional(&mut operands, |make| make.tensor(vec![Dim::new("n", 2)]));
            let op = Attention {
                packing: Packing::Separate,
                scale,
                products,
                bias,
            };
            make.add(Op::Attention(op), &operands)
        }
        1 => {
            let mut operands = vec![qkv];
            let bias = make.optional(&mut operands, |make| make.tensor(vec![Dim::new("n", 2)]));
            let op = Attention {
                packing: Packing::Packed,
                scale,
                products,
                bias,
            };
            make.add(Op::Attention(op), &operands)
        }
        steps => {
            let stage = Stage::First;
            let first = Op::AttentionStep(AttentionStep {
                scale,
                products,
                stage,
            });
            let state = make.add(first, &[qkv, qkv]);
            let shift = RingShift { axis: Axis::Ring };
            let kv = make.add(Op::RingShift(shift), &[qkv]);
            let stage = Stage::Next;
            let next = Op::AttentionStep(AttentionStep {
                scale,
                products,
                stage,
            });
            let state = make.add(next, &[qkv, kv, state]);
            match steps {
                2 => state,
                _ => make.add(Op::AttentionFinish(DType::F32), &[state]),
            }
        }
    }
}

fn embeddings(make: &mut Maker<'_>) -> NodeId {
    let width = make.dice.from(1, 6);
    match make.dice.from(0, 4) {
        0 => {
            let ids = make.input(DType::U32, vec![Dim::new("b", 2), Dim::new("txt", 5)]);
            let table = make.weight(&[10, width], WeightLayout::Plain);
            let out = Dim::new("c", width);
            make.add(Op::Embedding(Embedding { out }), &[ids, table])
        }
        1 => {
            let table = make.weight(&[8, 2], WeightLayout::Plain);
            let op = RelativeBias {
                rows: make.dice.from(1, 9),
                buckets: 8,
                max_distance: make.dice.from(1, 200),
            };
            make.add(Op::RelativeBias(op), &[table])
        }
        2 => {
            let timestep = make.tensor(vec![Dim::new("b", 2)]);
            let op = TimestepEmbedding {
                out: Dim::new("c", width),
                order: make
                    .dice
                    .pick(&[SinusoidOrder::SinCos, SinusoidOrder::CosSin]),
                shift: make.dice.float(),
            };
            make.add(Op::TimestepEmbedding(op), &[timestep])
        }
        3 => {
            let op = PositionTable {
                kind: PositionKind::SinCos,
                columns: Vec::new(),
                rows: Dim::product("v", &[("t", 2), ("h", width), ("w", 1)]),
                out: Dim::new("c", 0),
            };
            make.add(Op::PositionTable(op), &[])
        }
        _ => {
            let dims = |seq: Dim| vec![Dim::new("b", 1), seq, Dim::new("c", width)];
            let text = make.tensor(dims(Dim::new("txt", 3)));
            let grid = Dim::product("v", &[("t", 1), ("h", 2), ("w", 2)]);
            let video = make.tensor(dims(grid));
            let mut operands = vec![text, video];
            let rows = Dim::new("p", 7 * width);
            let positions = make.optional(&mut operands, |make| make.tensor(vec![rows]));
            make.add(Op::Join(positions), &operands)
        }
    }
}

fn movement(make: &mut Maker<'_>) -> NodeId {
    let x = make.rows(Dim::new("c", 6));
    match make.dice.from(0, 4) {
        0 => {
            let segments = make.dims(x)[1].segments.len();
            let index = make.dice.from(0, segments - 1);
            make.add(Op::Segment(index), &[x])
        }
        1 => {
            let factor = {
                let factors: Vec<_> = make.graph.node(x).ty.factors().cloned().collect();
                make.dice.pick(&factors)
            };
            let start = make.dice.from(0, factor.size - 1);
            let take = Take {
                start,
                count: make.dice.from(1, factor.size - start),
                factor: factor.name,
            };
            make.add(Op::Take(take), &[x])
        }
        2 => {
            let to = make.dice.pick(&[DType::F32, DType::F16, DType::Bf16]);
            make.add(Op::Cast(to), &[x])
        }
        3 => {
            let operands = vec![x; make.dice.from(1, 3)];
            make.add(Op::Concat("c".into()), &operands)
        }
        _ => {
            let x = make.rows(Dim::new("c", 1));
            let repeat = Repeat {
                factor: "c".into(),
                count: make.dice.from(1, 9),
            };
            make.add(Op::Repeat(repeat), &[x])
        }
    }
}

/// `[b, f, y, x, c]`.
fn pixels(frames: usize, channels: usize) -> Vec<Dim> {
    let names = [("b", 1), ("f", frames), ("y", 2), ("x", 3), ("c", channels)];
    names.map(|(name, size)| Dim::new(name, size)).to_vec()
}

fn video(make: &mut Maker<'_>) -> NodeId {
    let frames = make.dice.from(1, 5);
    let x = make.tensor(pixels(frames, 4));
    match make.dice.from(0, 3) {
        0 => {
            let kernel = [make.dice.from(1, 3), 3, 1];
            let [kt, kh, kw] = kernel;
            let weight = make.weight(&[8, 4, kt, kh, kw], WeightLayout::Conv3d);
            let mut operands = vec![x, weight];
            let op = Conv3d {
                out: Dim::new("c", 8),
                kernel,
                bias: make.optional(&mut operands, |make| make.vectors(1, 8)[0]),
                cache: make.optional(&mut operands, |make| make.tensor(pixels(kt - 1, 4))),
                residual: make.optional(&mut operands, |make| make.tensor(pixels(frames, 8))),
            };
            make.add(Op::Conv3d(op), &operands)
        }
        1 => {
            let keep = make.dice.from(1, 3);
            let mut operands = vec![x];
            let cache = make.optional(&mut operands, |make| make.tensor(pixels(keep, 4)));
            make.add(Op::ConvCache(ConvCache { keep, cache }), &operands)
        }
        2 => {
            let affine = make.dice.pick(&AFFINES);
            let mut operands = vec![x];
            operands.extend(make.vectors(affine.count(), 4));
            let spatial = make.optional(&mut operands, |make| make.tensor(pixels(1, 8)));
            let op = GroupNorm {
                groups: make.dice.pick(&[1, 2, 4]),
                eps: make.dice.float(),
                affine,
                spatial,
                activation: make.dice.coin().then(|| make.dice.pick(&ACTIVATIONS)),
            };
            make.add(Op::GroupNorm(op), &operands)
        }
        _ => {
            let time = make.dice.pick(&[UpsampleTime::Keep, UpsampleTime::Double]);
            make.add(Op::Upsample(Upsample { time }), &[x])
        }
    }
}

fn sampler(make: &mut Maker<'_>) -> NodeId {
    let latents = make.tensor(pixels(2, 4));
    let coefficients = make.tensor(vec![Dim::new("k", 7)]);
    match make.dice.from(0, 2) {
        0 => {
            let guided = make.dice.coin();
            let mut dims = pixels(2, 4);
            dims[0] = Dim::new("b", 1 + usize::from(guided));
            let pred = make.tensor(dims);
            let guidance = match guided {
                true => Guidance::ClassifierFree,
                false => Guidance::None,
            };
            let op = Op::Denoise(Denoise { guidance });
            make.add(op, &[pred, latents, coefficients])
        }
        1 => {
            let mut operands = vec![latents, latents, coefficients];
            let sources = Sources {
                previous: make.optional(&mut operands, |_| latents),
                noise: make.optional(&mut operands, |_| latents),
            };
            make.add(Op::Advance(sources), &operands)
        }
        _ => {
            let key = make.input(DType::U32, vec![Dim::new("k", 4)]);
            let dims = pixels(2, 4);
            let noise = Noise {
                host: host(&dims),
                ty: Type::f32(dims),
            };
            make.add(Op::Noise(noise), &[key])
        }
    }
}

fn collectives(make: &mut Maker<'_>) -> NodeId {
    let last = make.channels("c", &[("kv", 2)]);
    let x = make.rows(last);
    let axis = make.dice.pick(&Axis::ALL);
    let gather = make.dice.word().as_str().into();
    let op = match make.dice.from(0, 3) {
        0 => Op::Reshard(sharding(make.dice)),
        1 => Op::AllToAll(AllToAll {
            axis,
            gather,
            split: make.dice.word().as_str().into(),
        }),
        2 => Op::AllGather(AllGather { axis, gather }),
        _ => Op::RingShift(RingShift { axis }),
    };
    make.add(op, &[x])
}
