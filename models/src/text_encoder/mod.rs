//! The text encoder: T5 v1.1, `T5EncoderModel`, as a graph.
//!
//! Attention is neither scaled nor masked: padding is attended to, as the pipelines of CogVideoX do.
//! The relative position bias of the first block serves all blocks. Refused: sizes of zero.
//!
//! Source: `modeling_t5.py` of transformers 5.23.

mod config;

pub use config::TextEncoderConfig;

use crate::ModelError;
use crate::builder::{Builder, source};
use terrace_compiler::ir::{Dim, Graph, NodeId, Type};
use terrace_compiler::ops::{Attention, Embedding, NormKind, Op, Packing, Presence, RelativeBias};
use terrace_plan::{DType, WeightLayout, WeightSource};

/// Sizes of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextShape {
    /// Prompts.
    pub batch: usize,
    /// Tokens of each prompt, padding included.
    pub length: usize,
}

/// Encodes prompts. Input: `input_ids [b, txt]` u32. Output: `prompt_embeds [b, txt, d_model]`.
///
/// # Errors
/// A size is zero.
pub fn text_encoder(config: &TextEncoderConfig, shape: &TextShape) -> Result<Graph, ModelError> {
    for (what, found) in [("batch", shape.batch), ("text length", shape.length)] {
        if found == 0 {
            let expected = "at least 1".into();
            return Err(ModelError::Size {
                what,
                found,
                expected,
            });
        }
    }
    let builder = Builder::new("text-encoder");
    Encoder { config, builder }.lower(shape)
}

struct Encoder<'a> {
    config: &'a TextEncoderConfig,
    builder: Builder,
}

impl Encoder<'_> {
    fn lower(mut self, shape: &TextShape) -> Result<Graph, ModelError> {
        let (b, txt) = (Dim::new("b", shape.batch), Dim::new("txt", shape.length));
        let rows = vec![b, txt];
        let ids = Type::new(DType::U32, rows.clone());
        let ids = self.builder.typed_input("input_ids", ids, rows.clone())?;
        let mut x = self.embedding(ids)?;
        let bias = self.position_bias(shape.length)?;
        for block in 0..self.config.num_layers {
            let path = format!("encoder.block.{block}");
            x = self.attention(&format!("{path}.layer.0"), x, bias)?;
            x = self.feed_forward(&format!("{path}.layer.1"), x)?;
        }
        let x = self.norm("encoder.final_layer_norm", x)?;
        let host = rows.into_iter().chain([self.model_dim()]).collect();
        self.builder.output("prompt_embeds", host, x)?;
        Ok(self.builder.finish())
    }

    fn model_dim(&self) -> Dim {
        Dim::new("e", self.config.d_model)
    }

    /// Checkpoints name the table after the encoder or after what it shares it with.
    fn embedding(&mut self, ids: NodeId) -> Result<NodeId, ModelError> {
        let table = WeightSource {
            aliases: vec!["encoder.embed_tokens.weight".into()],
            ..source(
                "shared.weight",
                &[self.config.vocab_size, self.config.d_model],
            )
        };
        let dims = vec![Dim::new("v", self.config.vocab_size), self.model_dim()];
        let table = self
            .builder
            .weight(vec![table], dims, WeightLayout::Plain)?;
        let op = Op::Embedding(Embedding {
            out: self.model_dim(),
        });
        self.builder.add(op, &[ids, table], "shared")
    }

    fn position_bias(&mut self, length: usize) -> Result<NodeId, ModelError> {
        let path = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias";
        let buckets = self.config.relative_attention_num_buckets;
        let heads = self.config.num_heads;
        let table = self.builder.weight(
            vec![source(format!("{path}.weight"), &[buckets, heads])],
            vec![Dim::new("buckets", buckets), Dim::new("n", heads)],
            WeightLayout::Plain,
        )?;
        let op = Op::RelativeBias(RelativeBias {
            rows: length,
            buckets,
            max_distance: self.config.relative_attention_max_distance,
        });
        self.builder.add(op, &[table], path)
    }

    fn attention(&mut self, path: &str, x: NodeId, bias: NodeId) -> Result<NodeId, ModelError> {
        let module = format!("{path}.SelfAttention");
        let normed = self.norm(&format!("{path}.layer_norm"), x)?;
        let heads = [("n", self.config.num_heads), ("d", self.config.d_kv)];
        let mut operands = Vec::with_capacity(4);
        for part in ["q", "k", "v"] {
            let out = Dim::product("c", &heads);
            operands.push(self.linear(&format!("{module}.{part}"), normed, out)?);
        }
        operands.push(bias);
        let op = Op::Attention(Attention {
            packing: Packing::Separate,
            scale: 1.0,
            products: DType::F32,
            bias: Presence::Present,
        });
        let attended = self.builder.add(op, &operands, &module)?;
        let out = self.linear(&format!("{module}.o"), attended, self.model_dim())?;
        self.builder.add(Op::Residual(None), &[x, out], path)
    }

    fn feed_forward(&mut self, path: &str, x: NodeId) -> Result<NodeId, ModelError> {
        let module = format!("{path}.DenseReluDense");
        let normed = self.norm(&format!("{path}.layer_norm"), x)?;
        let up = self.builder.joined_linear(
            &format!("{module}.wi"),
            &[&format!("{module}.wi_0"), &format!("{module}.wi_1")],
            normed,
            Dim::product("m", &[("g", 2), ("f", self.config.d_ff)]),
            Presence::Absent,
        )?;
        let gated = self.builder.add(Op::GatedGelu, &[up], &module)?;
        let down = self.linear(&format!("{module}.wo"), gated, self.model_dim())?;
        self.builder.add(Op::Residual(None), &[x, down], path)
    }

    fn norm(&mut self, path: &str, x: NodeId) -> Result<NodeId, ModelError> {
        let eps = self.config.layer_norm_epsilon;
        self.builder.norm(path, x, NormKind::Rms { eps })
    }

    fn linear(&mut self, path: &str, x: NodeId, out: Dim) -> Result<NodeId, ModelError> {
        self.builder.linear(path, x, out, Presence::Absent)
    }
}
