//! A denoising step of a CogVideoX-like transformer of any size, as the lowering makes it.

use terrace_compiler::ir::{Dim, Graph, NodeId, Type};
use terrace_compiler::ops::{
    Affine, Attention, Denoise, Guidance, Input, Linear, LinearEpilogue, ModChunks, Norm, NormKind,
    Op, Output, Packing, PositionTable, Presence, Repeat, Rope, Sources, TimestepEmbedding, Weight,
};
use terrace_plan::{
    Activation, DType, GridAxis, PositionColumns, PositionKind, SinusoidOrder, WeightLayout,
    WeightSource,
};

/// Sizes and variants.
#[derive(Clone, Copy)]
pub struct Step {
    pub blocks: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub text: usize,
    pub grid: [usize; 3],
    pub guidance: Guidance,
    pub qk_norm: Option<Affine>,
    pub rotary: Presence,
    pub qkv_bias: Presence,
}

impl Step {
    /// Odd everywhere: five heads, seven words, nine rows.
    pub const SMALL: Self = Self {
        blocks: 2,
        heads: 5,
        head_dim: 8,
        text: 7,
        grid: [2, 9, 5],
        guidance: Guidance::ClassifierFree,
        qk_norm: Some(Affine::WeightBias),
        rotary: Presence::Present,
        qkv_bias: Presence::Present,
    };

    pub fn graph(self) -> Graph {
        Builder {
            step: self,
            graph: Graph::new("step"),
        }
        .build()
    }

    fn batch(&self) -> usize {
        match self.guidance {
            Guidance::None => 1,
            Guidance::ClassifierFree => 2,
        }
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn grid_factors(&self) -> [(&'static str, usize); 3] {
        let [t, h, w] = self.grid;
        [("t", t), ("h", h), ("w", w)]
    }
}

struct Builder {
    step: Step,
    graph: Graph,
}

const PATCH: [(&str, usize); 3] = [("c", 4), ("p", 2), ("q", 2)];

impl Builder {
    fn build(mut self) -> Graph {
        let step = self.step;
        let width = Dim::new("c", step.width());
        let latents = self.latents();
        let text = self.input(
            "text",
            &[
                Dim::new("b", step.batch()),
                Dim::product("seq", &[("txt", step.text)]),
                Dim::new("c", 16),
            ],
        );
        let coefficients = self.input("coefficients", &[Dim::new("k", 7)]);
        let silu = self.time();
        let video = self.op(
            Op::Repeat(Repeat {
                factor: "b".into(),
                count: step.batch(),
            }),
            &[latents],
            "latents",
        );
        let video = self.linear(video, width.clone(), Presence::Present, "patch_embed.proj");
        let text = self.linear(text, width, Presence::Present, "patch_embed.text_proj");
        let mut rows = self.op(Op::Join(Presence::Absent), &[text, video], "patch_embed");
        for block in 0..step.blocks {
            rows = self.block(rows, silu, &format!("blocks.{block}"));
        }
        let rows = self.norm(rows, "norm_final");
        let rows = self.op(Op::Segment(1), &[rows], "norm_final");
        let mods = self.modulation(silu, 2, "norm_out.linear");
        let rows = self.norm(rows, "norm_out.norm");
        let rows = self.modulate(rows, mods, &[(0, 1)], "norm_out");
        let pred = self.linear(
            rows,
            Dim::product("e", &PATCH),
            Presence::Present,
            "proj_out",
        );
        let guidance = step.guidance;
        let x0 = self.op(
            Op::Denoise(Denoise { guidance }),
            &[pred, latents, coefficients],
            "scheduler",
        );
        let none = Sources {
            previous: Presence::Absent,
            noise: Presence::Absent,
        };
        let next = self.op(Op::Advance(none), &[latents, x0, coefficients], "scheduler");
        let output = Output {
            name: "latents".into(),
            host: self.host(),
        };
        self.op(Op::Output(output), &[next], "latents");
        self.graph
    }

    fn op(&mut self, op: Op, operands: &[NodeId], path: &str) -> NodeId {
        self.graph.add(op, operands, path).unwrap()
    }

    fn input(&mut self, name: &str, dims: &[Dim]) -> NodeId {
        let input = Input {
            name: name.into(),
            ty: Type::f32(dims.to_vec()),
            host: dims.to_vec(),
        };
        self.op(Op::Input(input), &[], name)
    }

    fn host(&self) -> Vec<Dim> {
        let [t, h, w] = self.step.grid;
        vec![
            Dim::new("b", 1),
            Dim::product("f", &[("t", t)]),
            Dim::new("c", 4),
            Dim::product("y", &[("h", h), ("p", 2)]),
            Dim::product("x", &[("w", w), ("q", 2)]),
        ]
    }

    fn latents(&mut self) -> NodeId {
        let input = Input {
            name: "latents".into(),
            ty: Type::f32(vec![
                Dim::new("b", 1),
                Dim::product("seq", &self.step.grid_factors()),
                Dim::product("e", &PATCH),
            ]),
            host: self.host(),
        };
        self.op(Op::Input(input), &[], "latents")
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> NodeId {
        let dims = shape.iter().zip(["o", "i"]);
        let weight = Weight {
            sources: vec![WeightSource {
                name: name.into(),
                aliases: Vec::new(),
                shape: shape.to_vec(),
            }],
            dims: dims.map(|(&size, dim)| Dim::new(dim, size)).collect(),
            layout: match shape.len() {
                2 => WeightLayout::Linear,
                _ => WeightLayout::Plain,
            },
            dtype: DType::F32,
        };
        self.op(Op::Weight(weight), &[], name)
    }

    fn linear(&mut self, x: NodeId, out: Dim, bias: Presence, path: &str) -> NodeId {
        let inner = self.graph.node(x).ty.dims.last().unwrap().size();
        let mut operands = vec![
            x,
            self.weight(&format!("{path}.weight"), &[out.size(), inner]),
        ];
        if bias == Presence::Present {
            operands.push(self.weight(&format!("{path}.bias"), &[out.size()]));
        }
        let linear = Linear {
            out,
            bias,
            epilogue: LinearEpilogue::None,
        };
        self.op(Op::Linear(linear), &operands, path)
    }

    /// The activated embedding of the time step.
    fn time(&mut self) -> NodeId {
        let timestep = self.input("timestep", &[Dim::new("b", self.step.batch())]);
        let embedding = TimestepEmbedding {
            out: Dim::new("c", self.step.width()),
            order: SinusoidOrder::CosSin,
            shift: 0.0,
        };
        let x = self.op(Op::TimestepEmbedding(embedding), &[timestep], "time_proj");
        let x = self.linear(
            x,
            Dim::new("c", 32),
            Presence::Present,
            "time_embedding.linear_1",
        );
        let x = self.op(Op::Activate(Activation::Silu), &[x], "time_embedding.act");
        let x = self.linear(
            x,
            Dim::new("c", 32),
            Presence::Present,
            "time_embedding.linear_2",
        );
        self.op(Op::Activate(Activation::Silu), &[x], "time_embedding")
    }

    fn modulation(&mut self, silu: NodeId, chunks: usize, path: &str) -> NodeId {
        let out = Dim::product("m", &[("k", chunks), ("c", self.step.width())]);
        self.linear(silu, out, Presence::Present, path)
    }

    fn norm(&mut self, x: NodeId, path: &str) -> NodeId {
        let kind = NormKind::Layer {
            eps: 1e-5,
            affine: Affine::WeightBias,
        };
        let width = self.step.width();
        let weights = ["weight", "bias"].map(|p| self.weight(&format!("{path}.{p}"), &[width]));
        let norm = Norm {
            kind,
            modulate: None,
        };
        self.op(Op::Norm(norm), &[x, weights[0], weights[1]], path)
    }

    fn modulate(
        &mut self,
        x: NodeId,
        mods: NodeId,
        chunks: &[(usize, usize)],
        path: &str,
    ) -> NodeId {
        let chunks = chunks
            .iter()
            .map(|&(shift, scale)| ModChunks { shift, scale });
        self.op(Op::Modulate(chunks.collect()), &[x, mods], path)
    }

    fn block(&mut self, rows: NodeId, silu: NodeId, path: &str) -> NodeId {
        let width = Dim::new("c", self.step.width());
        let mods = self.modulation(silu, 6, &format!("{path}.norm1.linear"));
        let x = self.norm(rows, &format!("{path}.norm1.norm"));
        let x = self.modulate(x, mods, &[(3, 4), (0, 1)], &format!("{path}.norm1"));
        let x = self.attention(x, &format!("{path}.attn1"));
        let x = self.linear(
            x,
            width.clone(),
            Presence::Present,
            &format!("{path}.attn1.to_out.0"),
        );
        let gates = Op::Residual(Some(vec![5, 2]));
        let rows = self.op(gates.clone(), &[rows, x, mods], path);
        let mods = self.modulation(silu, 6, &format!("{path}.norm2.linear"));
        let x = self.norm(rows, &format!("{path}.norm2.norm"));
        let x = self.modulate(x, mods, &[(3, 4), (0, 1)], &format!("{path}.norm2"));
        let inner = Dim::new("f", 4 * self.step.width());
        let x = self.linear(
            x,
            inner,
            Presence::Present,
            &format!("{path}.ff.net.0.proj"),
        );
        let x = self.op(
            Op::Activate(Activation::GeluTanh),
            &[x],
            &format!("{path}.ff.net.0"),
        );
        let x = self.linear(x, width, Presence::Present, &format!("{path}.ff.net.2"));
        self.op(gates, &[rows, x, mods], path)
    }

    fn attention(&mut self, x: NodeId, path: &str) -> NodeId {
        let parts = ["to_q", "to_k", "to_v"].map(|part| {
            let out = Dim::product("c", &[("n", self.step.heads), ("d", self.step.head_dim)]);
            self.linear(x, out, self.step.qkv_bias, &format!("{path}.{part}"))
        });
        let q = self.prepare(parts[0], &format!("{path}.norm_q"));
        let k = self.prepare(parts[1], &format!("{path}.norm_k"));
        let attention = Attention {
            packing: Packing::Separate,
            scale: 0.3,
            products: DType::F32,
            bias: Presence::Absent,
        };
        self.op(Op::Attention(attention), &[q, k, parts[2]], path)
    }

    /// Norm of the heads and rotary positions, where the variant has them.
    fn prepare(&mut self, x: NodeId, path: &str) -> NodeId {
        let mut x = x;
        if let Some(affine) = self.step.qk_norm {
            let mut operands = vec![x];
            for part in ["weight", "bias"].iter().take(affine.count()) {
                operands.push(self.weight(&format!("{path}.{part}"), &[self.step.head_dim]));
            }
            let kind = NormKind::Layer { eps: 1e-6, affine };
            x = self.op(Op::HeadNorm(kind), &operands, path);
        }
        if self.step.rotary == Presence::Present {
            let table = self.table();
            x = self.op(Op::Rope(Rope), &[x, table], path);
        }
        x
    }

    fn table(&mut self) -> NodeId {
        let d = self.step.head_dim;
        let axes = [
            (GridAxis::T, d / 2),
            (GridAxis::H, d / 4),
            (GridAxis::W, d / 4),
        ];
        let columns = axes.map(|(axis, dim)| PositionColumns {
            axis,
            dim,
            start: 0.0,
            step: 1.0,
        });
        let table = PositionTable {
            kind: PositionKind::Rotary { theta: 1e4 },
            columns: columns.to_vec(),
            rows: Dim::product("v", &self.step.grid_factors()),
            out: Dim::product("r", &[("cs", 2), ("d", d)]),
        };
        self.op(Op::PositionTable(table), &[], "rope")
    }
}
