//! Building blocks of a lowered model: one node per operation of the reference, its weights
//! named after the module.
//!
//! The path of a node is the module's path in the checkpoint; the path of a weight is the name of
//! its tensor.

use crate::ModelError;
use terrace_compiler::ir::{Dim, Graph, NodeId, Type};
use terrace_compiler::ops::{Affine, Linear, LinearEpilogue, Norm, NormKind, Op, Presence};
use terrace_compiler::ops::{Input, Output, Weight};
use terrace_plan::{DType, WeightLayout, WeightSource};

/// A graph under construction.
pub(super) struct Builder {
    graph: Graph,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            graph: Graph::new(name),
        }
    }

    pub(super) fn finish(self) -> Graph {
        self.graph
    }

    pub(super) fn add(
        &mut self,
        op: Op,
        operands: &[NodeId],
        path: &str,
    ) -> Result<NodeId, ModelError> {
        Ok(self.graph.add(op, operands, path)?)
    }

    /// An input of dimensions that the caller lays out as `host`.
    pub(super) fn input(
        &mut self,
        name: &str,
        dims: Vec<Dim>,
        host: Vec<Dim>,
    ) -> Result<NodeId, ModelError> {
        self.typed_input(name, Type::f32(dims), host)
    }

    /// A vector that the caller gives.
    pub(super) fn vector(
        &mut self,
        name: &str,
        dtype: DType,
        dim: Dim,
    ) -> Result<NodeId, ModelError> {
        let ty = Type::new(dtype, vec![dim.clone()]);
        self.typed_input(name, ty, vec![dim])
    }

    fn typed_input(&mut self, name: &str, ty: Type, host: Vec<Dim>) -> Result<NodeId, ModelError> {
        let op = Op::Input(Input {
            name: name.into(),
            ty,
            host,
        });
        self.add(op, &[], name)
    }

    pub(super) fn output(
        &mut self,
        name: &str,
        host: Vec<Dim>,
        value: NodeId,
    ) -> Result<(), ModelError> {
        let op = Op::Output(Output {
            name: name.into(),
            host,
        });
        self.add(op, &[value], name).map(|_| ())
    }

    /// A stored tensor of shape `stored`, read as `dims`.
    pub(super) fn weight(
        &mut self,
        name: &str,
        stored: &[usize],
        dims: Vec<Dim>,
        layout: WeightLayout,
    ) -> Result<NodeId, ModelError> {
        let source = WeightSource {
            name: name.into(),
            aliases: Vec::new(),
            shape: stored.to_vec(),
        };
        let op = Op::Weight(Weight {
            sources: vec![source],
            dims,
            layout,
        });
        self.add(op, &[], name)
    }

    /// The linear module at `path`.
    pub(super) fn linear(
        &mut self,
        path: &str,
        x: NodeId,
        out: Dim,
        bias: Presence,
    ) -> Result<NodeId, ModelError> {
        let inner = self.width(x);
        self.linear_stored_as(path, &[out.size(), inner], x, out, bias)
    }

    /// A linear whose weight is stored with other dimensions after the first.
    pub(super) fn linear_stored_as(
        &mut self,
        path: &str,
        stored: &[usize],
        x: NodeId,
        out: Dim,
        bias: Presence,
    ) -> Result<NodeId, ModelError> {
        let (o, i) = (
            Dim::new("o", out.size()),
            Dim::new("i", stored.iter().skip(1).product()),
        );
        let name = format!("{path}.weight");
        let weight = self.weight(&name, stored, vec![o, i], WeightLayout::Linear)?;
        let mut operands = vec![x, weight];
        if bias == Presence::Present {
            operands.push(self.parameter(path, "bias", out.size())?);
        }
        let op = Op::Linear(Linear {
            out,
            bias,
            epilogue: LinearEpilogue::None,
        });
        self.add(op, &operands, path)
    }

    /// The LayerNorm module at `path`, over the last dimension.
    pub(super) fn layer_norm(
        &mut self,
        path: &str,
        x: NodeId,
        eps: f64,
        affine: Affine,
    ) -> Result<NodeId, ModelError> {
        let width = self.width(x);
        let operands = self.norm_operands(path, x, width, affine)?;
        let op = Op::Norm(Norm {
            kind: NormKind::Layer { eps, affine },
            modulate: None,
        });
        self.add(op, &operands, path)
    }

    /// The LayerNorm module at `path`, over the channels of each head.
    pub(super) fn head_norm(
        &mut self,
        path: &str,
        x: NodeId,
        head_dim: usize,
        eps: f64,
    ) -> Result<NodeId, ModelError> {
        let affine = Affine::WeightBias;
        let operands = self.norm_operands(path, x, head_dim, affine)?;
        self.add(
            Op::HeadNorm(NormKind::Layer { eps, affine }),
            &operands,
            path,
        )
    }

    fn norm_operands(
        &mut self,
        path: &str,
        x: NodeId,
        width: usize,
        affine: Affine,
    ) -> Result<Vec<NodeId>, ModelError> {
        let mut operands = vec![x];
        for kind in ["weight", "bias"].into_iter().take(affine.count()) {
            operands.push(self.parameter(path, kind, width)?);
        }
        Ok(operands)
    }

    fn parameter(&mut self, path: &str, kind: &str, size: usize) -> Result<NodeId, ModelError> {
        let name = format!("{path}.{kind}");
        self.weight(
            &name,
            &[size],
            vec![Dim::new("o", size)],
            WeightLayout::Plain,
        )
    }

    fn width(&self, x: NodeId) -> usize {
        self.graph.node(x).ty.dims.last().map_or(1, Dim::size)
    }
}
