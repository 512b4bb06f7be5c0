//! Lowering of `CogVideoXTransformer3DModel`: from embedded inputs to the prediction.
//!
//! Text and video are one joint sequence `seq=(txt | t h w)`, text first, from the embedding to
//! the last block; modulation and gates choose their chunks by segment.

use super::TransformerConfig;
use super::grid::Grid;
use super::positions;
use crate::ModelError;
use crate::builder::Builder;
use terrace_compiler::ir::{Dim, NodeId};
use terrace_compiler::ops::TimestepEmbedding;
use terrace_compiler::ops::{Affine, Attention, ModChunks, NormKind, Op, Packing, Presence, Rope};
use terrace_plan::{Activation, DType, SinusoidOrder};

/// Added to the variance by the norms of queries and keys; the reference fixes it.
const QK_NORM_EPS: f64 = 1e-6;

/// Chunks of `CogVideoXLayerNormZero`: shift, scale and gate of the video, then of the text.
const CHUNKS: usize = 6;

/// What a forward reads.
pub(super) struct Operands {
    /// `[b, v=(t h w), e=(c s p q)]`.
    pub(super) video: NodeId,
    /// `[b, txt, e]`.
    pub(super) text: NodeId,
    /// `[b]`.
    pub(super) timestep: NodeId,
    /// `[b]`, where the config has `ofs_embed_dim`.
    pub(super) ofs: Option<NodeId>,
}

/// Values that every block reads.
struct Shared {
    /// `silu(time embedding)`, `[b, e]`.
    condition: NodeId,
    /// Rotary positions.
    rotary: Option<NodeId>,
}

/// The prediction `[b, seq=(t h w), e=(c s p q)]`.
pub(super) fn lower(
    b: &mut Builder,
    config: &TransformerConfig,
    grid: &Grid,
    operands: &Operands,
) -> Result<NodeId, ModelError> {
    let time = time_embedding(b, config, operands)?;
    let condition = b.add(Op::Activate(Activation::Silu), &[time], "time_embedding")?;
    let mut x = embed(b, config, grid, operands)?;
    let rotary = positions::rotary(b, config, grid)?;
    let shared = Shared { condition, rotary };
    for layer in 0..config.num_layers {
        let path = format!("transformer_blocks.{layer}");
        x = attention_part(b, config, &shared, &path, x)?;
        x = feed_forward_part(b, config, &shared, &path, x)?;
    }
    finish(b, config, grid, &shared, x)
}

/// The joint sequence `[b, seq=(txt | t h w), c]`.
fn embed(
    b: &mut Builder,
    config: &TransformerConfig,
    grid: &Grid,
    operands: &Operands,
) -> Result<NodeId, ModelError> {
    let c = Dim::new("c", config.width());
    let text = b.linear(
        "patch_embed.text_proj",
        operands.text,
        c.clone(),
        Presence::Present,
    )?;
    let (p, channels) = (config.patch_size, config.in_channels);
    // Flat patches are embedded by a convolution whose stride is its kernel: a linear of patches.
    let (stored, bias) = match config.patch_size_t {
        None => (vec![c.size(), channels, p, p], config.patch_bias.into()),
        Some(_) => {
            let inner = channels * config.patch_elements();
            (vec![c.size(), inner], Presence::Present)
        }
    };
    let path = "patch_embed.proj";
    let video = b.linear_stored_as(path, &[path], &stored, operands.video, c, bias)?;
    let mut joined = vec![text, video];
    joined.extend(positions::added(b, config, grid)?);
    let op = Op::Join(Presence::from(joined.len() > 2));
    b.add(op, &joined, "patch_embed")
}

/// The embedding `[b, e]` of the time step, and of `ofs` where there is one.
fn time_embedding(
    b: &mut Builder,
    config: &TransformerConfig,
    operands: &Operands,
) -> Result<NodeId, ModelError> {
    let time = scalar_embedding(b, config, "time", operands.timestep, config.width())?;
    match (operands.ofs, config.ofs_embed_dim) {
        (Some(ofs), Some(width)) => {
            let ofs = scalar_embedding(b, config, "ofs", ofs, width)?;
            b.add(Op::Residual(None), &[time, ofs], "ofs_embedding")
        }
        _ => Ok(time),
    }
}

/// `Timesteps` and `TimestepEmbedding` of the reference.
fn scalar_embedding(
    b: &mut Builder,
    config: &TransformerConfig,
    name: &str,
    value: NodeId,
    width: usize,
) -> Result<NodeId, ModelError> {
    let sinusoids = Op::TimestepEmbedding(TimestepEmbedding {
        out: Dim::new("e", width),
        order: match config.flip_sin_to_cos {
            true => SinusoidOrder::CosSin,
            false => SinusoidOrder::SinCos,
        },
        shift: config.freq_shift,
    });
    let x = b.add(sinusoids, &[value], &format!("{name}_proj"))?;
    let out = Dim::new("e", config.time_embed_dim);
    let path = format!("{name}_embedding");
    let [first, second] = ["linear_1", "linear_2"].map(|l| format!("{path}.{l}"));
    let x = b.linear(&first, x, out.clone(), Presence::Present)?;
    let act = Op::Activate(config.timestep_activation_fn);
    let x = b.add(act, &[x], &format!("{path}.act"))?;
    b.linear(&second, x, out, Presence::Present)
}

/// `x + gate * attention(norm(x))`.
fn attention_part(
    b: &mut Builder,
    config: &TransformerConfig,
    shared: &Shared,
    path: &str,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let (normed, mods) = norm_zero(b, config, shared, &format!("{path}.norm1"), x)?;
    let path = format!("{path}.attn1");
    let q = projection(b, config, &path, "q", normed)?;
    let q = normed_heads(b, config, shared, &path, "q", q)?;
    let k = projection(b, config, &path, "k", normed)?;
    let k = normed_heads(b, config, shared, &path, "k", k)?;
    let v = projection(b, config, &path, "v", normed)?;
    let op = Op::Attention(Attention {
        packing: Packing::Separate,
        scale: 1.0 / (config.attention_head_dim as f64).sqrt(),
        products: DType::F32,
        bias: Presence::Absent,
    });
    let y = b.add(op, &[q, k, v], &path)?;
    let c = Dim::new("c", config.width());
    let y = b.linear(&format!("{path}.to_out.0"), y, c, Presence::Present)?;
    gate(b, &path, x, y, mods)
}

/// `x + gate * mlp(norm(x))`.
fn feed_forward_part(
    b: &mut Builder,
    config: &TransformerConfig,
    shared: &Shared,
    path: &str,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let (normed, mods) = norm_zero(b, config, shared, &format!("{path}.norm2"), x)?;
    let path = format!("{path}.ff");
    let inner = Dim::new("f", 4 * config.width());
    let y = b.linear(
        &format!("{path}.net.0.proj"),
        normed,
        inner,
        Presence::Present,
    )?;
    let act = Op::Activate(config.activation_fn);
    let y = b.add(act, &[y], &format!("{path}.net.0"))?;
    let c = Dim::new("c", config.width());
    let y = b.linear(&format!("{path}.net.2"), y, c, Presence::Present)?;
    gate(b, &path, x, y, mods)
}

/// `CogVideoXLayerNormZero`: the modulated norm, and the modulation `[b, m=(k c)]`.
fn norm_zero(
    b: &mut Builder,
    config: &TransformerConfig,
    shared: &Shared,
    path: &str,
    x: NodeId,
) -> Result<(NodeId, NodeId), ModelError> {
    let chunks = [
        ModChunks { shift: 3, scale: 4 },
        ModChunks { shift: 0, scale: 1 },
    ];
    modulated_norm(b, config, shared, path, x, &chunks, CHUNKS)
}

fn modulated_norm(
    b: &mut Builder,
    config: &TransformerConfig,
    shared: &Shared,
    path: &str,
    x: NodeId,
    segments: &[ModChunks],
    chunks: usize,
) -> Result<(NodeId, NodeId), ModelError> {
    let m = Dim::product("m", &[("k", chunks), ("c", config.width())]);
    let linear = format!("{path}.linear");
    let mods = b.linear(&linear, shared.condition, m, Presence::Present)?;
    let norm = format!("{path}.norm");
    let normed = b.norm(&norm, x, norm_kind(config))?;
    let op = Op::Modulate(segments.to_vec());
    Ok((b.add(op, &[normed, mods], path)?, mods))
}

/// `x + gate * y`, with the gates of text and video.
fn gate(
    b: &mut Builder,
    path: &str,
    x: NodeId,
    y: NodeId,
    mods: NodeId,
) -> Result<NodeId, ModelError> {
    b.add(Op::Residual(Some(vec![5, 2])), &[x, y, mods], path)
}

/// Queries, keys or values `[b, seq, c=(n d)]`.
fn projection(
    b: &mut Builder,
    config: &TransformerConfig,
    path: &str,
    name: &str,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let (n, d) = (config.num_attention_heads, config.attention_head_dim);
    let out = Dim::product("c", &[("n", n), ("d", d)]);
    let path = format!("{path}.to_{name}");
    b.linear(&path, x, out, config.attention_bias.into())
}

/// Queries or keys after their norm and positions.
fn normed_heads(
    b: &mut Builder,
    config: &TransformerConfig,
    shared: &Shared,
    path: &str,
    name: &str,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let norm = format!("{path}.norm_{name}");
    let kind = NormKind::Layer {
        eps: QK_NORM_EPS,
        affine: Affine::WeightBias,
    };
    let mut operands = vec![x];
    operands.extend(b.affine(&norm, config.attention_head_dim, kind.weights())?);
    let x = b.add(Op::HeadNorm(kind), &operands, &norm)?;
    match shared.rotary {
        None => Ok(x),
        Some(table) => b.add(
            Op::Rope(Rope),
            &[x, table],
            &format!("{path}.rotary_{name}"),
        ),
    }
}

/// The last norms and the projection to patches, of the video tokens alone.
fn finish(
    b: &mut Builder,
    config: &TransformerConfig,
    grid: &Grid,
    shared: &Shared,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let video = b.add(Op::Segment(1), &[x], "norm_final")?;
    let normed = b.norm("norm_final", video, norm_kind(config))?;
    // With `chunk_dim=1` the reference puts the shift before the scale.
    let chunks = [ModChunks { shift: 0, scale: 1 }];
    let (normed, _) = modulated_norm(b, config, shared, "norm_out", normed, &chunks, 2)?;
    let out = grid.patch(config.out_channels);
    b.linear("proj_out", normed, out, Presence::Present)
}

/// The norm over the width of a row.
fn norm_kind(config: &TransformerConfig) -> NormKind {
    NormKind::Layer {
        eps: config.norm_eps,
        affine: match config.norm_elementwise_affine {
            true => Affine::WeightBias,
            false => Affine::None,
        },
    }
}
