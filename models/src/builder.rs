//! Building blocks of a lowered model: one node per operation of the reference, its weights
//! named after the module.
//!
//! The path of a node is the module's path in the checkpoint; the path of a weight is the name of
//! its first tensor. A weight that is asked for twice is one node.

use crate::ModelError;
use std::collections::BTreeMap;
use terrace_compiler::ir::{Dim, Graph, NodeId, Type};
use terrace_compiler::ops::{Input, Output, Weight};
use terrace_compiler::ops::{Linear, LinearEpilogue, Norm, NormKind, Op, Presence};
use terrace_plan::{DType, WeightLayout, WeightSource};

/// A graph under construction.
pub(crate) struct Builder {
    graph: Graph,
    weights: BTreeMap<Vec<WeightSource>, NodeId>,
}

/// A stored tensor.
pub(crate) fn source(name: impl Into<String>, shape: &[usize]) -> WeightSource {
    WeightSource {
        name: name.into(),
        aliases: Vec::new(),
        shape: shape.to_vec(),
    }
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            graph: Graph::new(name),
            weights: BTreeMap::new(),
        }
    }

    pub(crate) fn finish(self) -> Graph {
        self.graph
    }

    pub(crate) fn add(
        &mut self,
        op: Op,
        operands: &[NodeId],
        path: &str,
    ) -> Result<NodeId, ModelError> {
        Ok(self.graph.add(op, operands, path)?)
    }

    /// An input of dimensions that the caller lays out as `host`.
    pub(crate) fn input(
        &mut self,
        name: &str,
        dims: Vec<Dim>,
        host: Vec<Dim>,
    ) -> Result<NodeId, ModelError> {
        self.typed_input(name, Type::f32(dims), host)
    }

    pub(crate) fn typed_input(
        &mut self,
        name: &str,
        ty: Type,
        host: Vec<Dim>,
    ) -> Result<NodeId, ModelError> {
        let op = Op::Input(Input {
            name: name.into(),
            ty,
            host,
        });
        self.add(op, &[], name)
    }

    pub(crate) fn output(
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

    /// Stored tensors, joined along their first dimension and read as `dims`.
    pub(crate) fn weight(
        &mut self,
        sources: Vec<WeightSource>,
        dims: Vec<Dim>,
        layout: WeightLayout,
    ) -> Result<NodeId, ModelError> {
        if let Some(&node) = self.weights.get(&sources) {
            return Ok(node);
        }
        let path = sources.first().map_or("", |s| &s.name).to_owned();
        let op = Op::Weight(Weight {
            sources: sources.clone(),
            dims,
            layout,
            dtype: DType::F32,
        });
        let node = self.add(op, &[], &path)?;
        self.weights.insert(sources, node);
        Ok(node)
    }

    /// The linear module at `path`.
    pub(crate) fn linear(
        &mut self,
        path: &str,
        x: NodeId,
        out: Dim,
        bias: Presence,
    ) -> Result<NodeId, ModelError> {
        self.joined_linear(path, &[path], x, out, bias)
    }

    /// Several modules of one input as one linear; all give equally many channels.
    pub(crate) fn joined_linear(
        &mut self,
        path: &str,
        modules: &[&str],
        x: NodeId,
        out: Dim,
        bias: Presence,
    ) -> Result<NodeId, ModelError> {
        let stored = [out.size() / modules.len().max(1), self.width(x)];
        self.linear_stored_as(path, modules, &stored, x, out, bias)
    }

    /// A linear whose modules each store their weight as `stored`, with any dimensions after the
    /// first.
    pub(crate) fn linear_stored_as(
        &mut self,
        path: &str,
        modules: &[&str],
        stored: &[usize],
        x: NodeId,
        out: Dim,
        bias: Presence,
    ) -> Result<NodeId, ModelError> {
        let dims = vec![
            Dim::new("o", out.size()),
            Dim::new("i", stored.iter().skip(1).product()),
        ];
        let sources = all(modules, "weight", stored);
        let mut operands = vec![x, self.weight(sources, dims, WeightLayout::Linear)?];
        if bias == Presence::Present {
            operands.push(self.vector(modules, "bias", out.size())?);
        }
        let op = Op::Linear(Linear {
            out,
            bias,
            epilogue: LinearEpilogue::None,
        });
        self.add(op, &operands, path)
    }

    /// The norm module at `path`, over the last dimension.
    pub(crate) fn norm(
        &mut self,
        path: &str,
        x: NodeId,
        kind: NormKind,
    ) -> Result<NodeId, ModelError> {
        let width = self.width(x);
        let mut operands = vec![x];
        operands.extend(self.affine(path, width, kind.weights())?);
        let op = Op::Norm(Norm {
            kind,
            modulate: None,
        });
        self.add(op, &operands, path)
    }

    /// The first `count` of weight and bias of the norm module at `path`.
    pub(crate) fn affine(
        &mut self,
        path: &str,
        width: usize,
        count: usize,
    ) -> Result<Vec<NodeId>, ModelError> {
        ["weight", "bias"]
            .into_iter()
            .take(count)
            .map(|kind| self.vector(&[path], kind, width))
            .collect()
    }

    /// Vectors of several modules, joined to `size` elements.
    pub(crate) fn vector(
        &mut self,
        modules: &[&str],
        kind: &str,
        size: usize,
    ) -> Result<NodeId, ModelError> {
        let sources = all(modules, kind, &[size / modules.len().max(1)]);
        self.weight(sources, vec![Dim::new("o", size)], WeightLayout::Plain)
    }

    /// Type of a node.
    pub(crate) fn ty(&self, node: NodeId) -> &Type {
        &self.graph.node(node).ty
    }

    /// Size of the last dimension.
    pub(crate) fn width(&self, x: NodeId) -> usize {
        self.ty(x).dims.last().map_or(1, Dim::size)
    }
}

/// The tensor `kind` of every module.
fn all(modules: &[&str], kind: &str, shape: &[usize]) -> Vec<WeightSource> {
    modules
        .iter()
        .map(|module| source(format!("{module}.{kind}"), shape))
        .collect()
}
