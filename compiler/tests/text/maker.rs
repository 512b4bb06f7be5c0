//! Random operands: tensors, weights, norms, tables, modulation.

use crate::dice::Dice;
use terrace_compiler::ir::{Dim, Graph, NodeId, Segment, Type};
use terrace_compiler::ops::{
    Affine, Input, ModChunks, NormKind, Op, PositionTable, Presence, Weight,
};
use terrace_plan::{DType, GridAxis, PositionColumns, PositionKind, WeightLayout, WeightSource};

pub const AFFINES: [Affine; 3] = [Affine::None, Affine::Weight, Affine::WeightBias];

/// Makes nodes and the operands that they need.
pub struct Maker<'a> {
    pub graph: &'a mut Graph,
    pub dice: &'a mut Dice,
}

impl Maker<'_> {
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let path = self.dice.text();
        self.graph
            .add(op, operands, &path)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// An input of this type, its host layout in reverse.
    pub fn input(&mut self, dtype: DType, dims: Vec<Dim>) -> NodeId {
        let input = Input {
            name: self.dice.text(),
            host: host(&dims),
            ty: Type::new(dtype, dims),
        };
        self.add(Op::Input(input), &[])
    }

    pub fn tensor(&mut self, dims: Vec<Dim>) -> NodeId {
        self.input(DType::F32, dims)
    }

    pub fn weight(&mut self, shape: &[usize], layout: WeightLayout) -> NodeId {
        let names = ["o", "i", "kt", "kh", "kw"];
        let rows = shape[0];
        let first = self.dice.from(1, rows);
        let source = |dice: &mut Dice, rows: usize| WeightSource {
            name: dice.text(),
            aliases: dice.some(0, 2, Dice::text),
            shape: std::iter::once(rows).chain(shape[1..].to_vec()).collect(),
        };
        let mut sources = vec![source(self.dice, first)];
        if first < rows {
            sources.push(source(self.dice, rows - first));
        }
        let dims = shape.iter().zip(names);
        let dims = dims.map(|(&size, name)| Dim::new(name, size)).collect();
        let op = Op::Weight(Weight {
            sources,
            dims,
            layout,
            dtype: match layout {
                WeightLayout::Plain => DType::F32,
                WeightLayout::Linear | WeightLayout::Conv3d => {
                    self.dice.pick(&[DType::F32, DType::Bf16])
                }
            },
        });
        self.add(op, &[])
    }

    pub fn vectors(&mut self, count: usize, width: usize) -> Vec<NodeId> {
        (0..count)
            .map(|_| self.weight(&[width], WeightLayout::Plain))
            .collect()
    }

    pub fn presence(&mut self) -> Presence {
        self.dice.pick(&[Presence::Absent, Presence::Present])
    }

    /// An optional operand.
    pub fn optional(
        &mut self,
        operands: &mut Vec<NodeId>,
        make: impl FnOnce(&mut Self) -> NodeId,
    ) -> Presence {
        let presence = self.presence();
        if presence == Presence::Present {
            operands.push(make(self));
        }
        presence
    }

    /// `seq=(txt | t h w)`, or one of its segments.
    pub fn seq(&mut self) -> Dim {
        let text = Segment::new(&[("txt", self.dice.from(1, 9))]);
        let sizes = [(); 3].map(|()| self.dice.from(1, 5));
        let video = Segment::new(&[("t", sizes[0]), ("h", sizes[1]), ("w", sizes[2])]);
        let segments = match self.dice.from(0, 2) {
            0 => vec![text],
            1 => vec![video],
            _ => vec![text, video],
        };
        Dim::sum("seq", segments)
    }

    /// `[b, seq, last]`.
    pub fn rows(&mut self, last: Dim) -> NodeId {
        let dims = vec![Dim::new("b", self.dice.from(1, 2)), self.seq(), last];
        self.tensor(dims)
    }

    pub fn channels(&mut self, name: &str, parts: &[(&str, usize)]) -> Dim {
        let mut factors = parts.to_vec();
        factors.extend([("n", self.dice.from(1, 5)), ("d", 4)]);
        Dim::product(name, &factors)
    }

    pub fn dims(&self, node: NodeId) -> Vec<Dim> {
        self.graph.node(node).ty.dims.clone()
    }

    /// Modulation of six chunks for rows.
    pub fn mods(&mut self, rows: NodeId) -> NodeId {
        let dims = self.dims(rows);
        let chunks = Dim::product("m", &[("k", 6), ("e", dims[2].size())]);
        self.tensor(vec![dims[0].clone(), chunks])
    }

    pub fn gates(&mut self, rows: NodeId) -> Vec<usize> {
        let segments = self.dims(rows)[1].segments.len();
        (0..segments).map(|_| self.dice.from(0, 5)).collect()
    }

    pub fn chunks(&mut self, rows: NodeId) -> Vec<ModChunks> {
        let shifts = self.gates(rows);
        shifts
            .into_iter()
            .map(|shift| ModChunks {
                shift,
                scale: self.dice.from(0, 5),
            })
            .collect()
    }

    pub fn norm(&mut self) -> NormKind {
        let eps = self.dice.float();
        match self.dice.coin() {
            true => NormKind::Rms { eps },
            false => NormKind::Layer {
                eps,
                affine: self.dice.pick(&AFFINES),
            },
        }
    }

    pub fn table(&mut self, grid: Segment) -> NodeId {
        let columns: Vec<PositionColumns> = [(GridAxis::T, 1), (GridAxis::H, 1), (GridAxis::W, 2)]
            .into_iter()
            .map(|(axis, dim)| PositionColumns {
                axis,
                dim,
                start: self.dice.float(),
                step: self.dice.float(),
            })
            .collect();
        let table = PositionTable {
            kind: PositionKind::Rotary {
                theta: self.dice.float(),
            },
            columns,
            rows: Dim::sum("v", vec![grid]),
            out: Dim::product("r", &[("cs", 2), ("d", 4)]),
        };
        self.add(Op::PositionTable(table), &[])
    }
}

/// A host layout: the dimensions in reverse, products taken apart.
pub fn host(dims: &[Dim]) -> Vec<Dim> {
    let apart = |dim: &Dim| match dim.segments.as_slice() {
        [product] => {
            let factors = product.factors.iter().rev();
            factors.map(|f| Dim::new(&f.name, f.size)).collect()
        }
        _ => vec![dim.clone()],
    };
    dims.iter().rev().flat_map(apart).collect()
}
