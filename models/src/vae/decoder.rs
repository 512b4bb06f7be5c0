//! Lowering of the decoder.
//!
//! Spatial norms multiply and shift by two pointwise convolutions of the latents. Those commute with
//! the nearest up-sampling, so they are one linear at the latents' size and the norm looks its pixels
//! up. A cache is made when the next batch of frames needs it, so the last batch makes none.

use super::VaeConfig;
use crate::ModelError;
use crate::builder::{Builder, source};
use std::collections::BTreeMap;
use terrace_compiler::ir::{Dim, Graph, NodeId};
use terrace_compiler::ops::{Affine, Conv3d, ConvCache, GroupNorm, Op, Presence, Take, Upsample};
use terrace_plan::{Activation, UpsampleTime, WeightLayout};

/// Latent frames that are decoded together.
const FRAME_BATCH: usize = 2;

/// Kernel of the causal convolutions.
const CAUSAL: [usize; 3] = [3, 3, 3];

/// Added to the variance by every norm of the decoder.
const EPS: f64 = 1e-6;

/// Residual blocks in the middle.
const MID_LAYERS: usize = 2;

/// Size of the latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeShape {
    /// Videos.
    pub batch: usize,
    /// Latent frames.
    pub frames: usize,
    /// Latent rows.
    pub height: usize,
    /// Latent columns.
    pub width: usize,
}

/// Decodes latents to frames.
///
/// Input: `latents [b, f, c, y, x]`, already divided by the scaling factor
/// ([`VaeConfig::unscale`]). Output: `frames [b, F, 3, Y, X]` in about -1 to 1, not clamped.
///
/// # Errors
/// A size is zero.
pub fn decoder(config: &VaeConfig, shape: &DecodeShape) -> Result<Graph, ModelError> {
    let sizes = [
        ("batch", shape.batch),
        ("number of latent frames", shape.frames),
        ("latent height", shape.height),
        ("latent width", shape.width),
    ];
    for (what, found) in sizes {
        if found == 0 {
            let expected = "at least 1".into();
            return Err(ModelError::Size {
                what,
                found,
                expected,
            });
        }
    }
    let decoder = Decoder {
        config,
        builder: Builder::new("vae-decoder"),
        seen: BTreeMap::new(),
    };
    decoder.lower(shape)
}

/// What a causal convolution saw in the batch of frames before.
#[derive(Clone, Copy)]
struct Seen {
    x: NodeId,
    cache: Option<NodeId>,
}

struct Decoder<'a> {
    config: &'a VaeConfig,
    builder: Builder,
    seen: BTreeMap<String, Seen>,
}

impl Decoder<'_> {
    fn lower(mut self, shape: &DecodeShape) -> Result<Graph, ModelError> {
        let latents = self.latents(shape)?;
        let mut decoded = Vec::new();
        for (start, count) in frame_batches(shape.frames) {
            let take = Op::Take(Take {
                factor: "f".into(),
                start,
                count,
            });
            let z = self.builder.add(take, &[latents], "latents")?;
            decoded.push(self.decode(z)?);
        }
        let frames = self
            .builder
            .add(Op::Concat("f".into()), &decoded, "decoder")?;
        let host = frames_first(&self.builder.ty(frames).dims);
        self.builder.output("frames", host, frames)?;
        Ok(self.builder.finish())
    }

    fn latents(&mut self, shape: &DecodeShape) -> Result<NodeId, ModelError> {
        let channels = self.config.latent_channels;
        let dims = vec![
            Dim::new("b", shape.batch),
            Dim::new("f", shape.frames),
            Dim::new("y", shape.height),
            Dim::new("x", shape.width),
            Dim::new("c", channels),
        ];
        let host = frames_first(&dims);
        let latents = self.builder.input("latents", dims, host)?;
        match self.config.post_quant_conv {
            Presence::Absent => Ok(latents),
            Presence::Present => self.pointwise("post_quant_conv", latents, channels),
        }
    }

    /// One batch of frames.
    fn decode(&mut self, z: NodeId) -> Result<NodeId, ModelError> {
        let config = self.config;
        let blocks = config.block_out_channels.iter().rev();
        let deepest = config.block_out_channels.last().copied().unwrap_or(0);
        let mut x = self.causal("decoder.conv_in", z, deepest, None)?;
        for layer in 0..MID_LAYERS {
            let path = format!("decoder.mid_block.resnets.{layer}");
            x = self.residual_block(&path, x, z, deepest)?;
        }
        for (block, &channels) in blocks.enumerate() {
            x = self.up_block(block, x, z, channels)?;
        }
        let x = self.spatial_norm("decoder.norm_out", x, z)?;
        self.causal("decoder.conv_out", x, config.out_channels, None)
    }

    fn up_block(
        &mut self,
        block: usize,
        mut x: NodeId,
        z: NodeId,
        channels: usize,
    ) -> Result<NodeId, ModelError> {
        let path = format!("decoder.up_blocks.{block}");
        for layer in 0..=self.config.layers_per_block {
            x = self.residual_block(&format!("{path}.resnets.{layer}"), x, z, channels)?;
        }
        if block + 1 == self.config.block_out_channels.len() {
            return Ok(x);
        }
        let time = if block < self.config.temporal_levels {
            UpsampleTime::Double
        } else {
            UpsampleTime::Keep
        };
        self.upsample(&format!("{path}.upsamplers.0"), x, time)
    }

    fn upsample(
        &mut self,
        path: &str,
        x: NodeId,
        time: UpsampleTime,
    ) -> Result<NodeId, ModelError> {
        let channels = self.builder.width(x);
        let larger = self
            .builder
            .add(Op::Upsample(Upsample { time }), &[x], path)?;
        let path = format!("{path}.conv");
        // Stored as a convolution of images, each frame being one.
        let stored = [channels, channels, 3, 3];
        let kernel = [1, 3, 3];
        let operands = self.conv_operands(&path, larger, &stored, kernel)?;
        let op = conv(channels, kernel);
        self.builder.add(Op::Conv3d(op), &operands, &path)
    }

    fn residual_block(
        &mut self,
        path: &str,
        x: NodeId,
        z: NodeId,
        channels: usize,
    ) -> Result<NodeId, ModelError> {
        let normed = self.spatial_norm(&format!("{path}.norm1"), x, z)?;
        let inner = self.causal(&format!("{path}.conv1"), normed, channels, None)?;
        let normed = self.spatial_norm(&format!("{path}.norm2"), inner, z)?;
        let shortcut = if self.builder.width(x) == channels {
            x
        } else {
            self.pointwise(&format!("{path}.conv_shortcut"), x, channels)?
        };
        self.causal(&format!("{path}.conv2"), normed, channels, Some(shortcut))
    }

    /// `CogVideoXSpatialNorm3D` and the activation that always follows it.
    fn spatial_norm(&mut self, path: &str, x: NodeId, z: NodeId) -> Result<NodeId, ModelError> {
        let channels = self.builder.width(x);
        let modules = [format!("{path}.conv_y.conv"), format!("{path}.conv_b.conv")];
        let spatial = self.builder.linear_stored_as(
            path,
            &modules.each_ref().map(String::as_str),
            &[channels, self.builder.width(z), 1, 1, 1],
            z,
            Dim::product("m", &[("yb", 2), ("c", channels)]),
            Presence::Present,
        )?;
        let affine = Affine::WeightBias;
        let mut operands = vec![x];
        let norm = format!("{path}.norm_layer");
        operands.extend(self.builder.affine(&norm, channels, affine.count())?);
        operands.push(spatial);
        let op = Op::GroupNorm(GroupNorm {
            groups: self.config.norm_num_groups,
            eps: EPS,
            affine,
            spatial: Presence::Present,
            activation: Some(Activation::Silu),
        });
        self.builder.add(op, &operands, path)
    }

    /// A causal convolution, continued from the batch of frames before.
    fn causal(
        &mut self,
        path: &str,
        x: NodeId,
        channels: usize,
        residual: Option<NodeId>,
    ) -> Result<NodeId, ModelError> {
        let path = format!("{path}.conv");
        let [kt, kh, kw] = CAUSAL;
        let stored = [channels, self.builder.width(x), kt, kh, kw];
        let mut operands = self.conv_operands(&path, x, &stored, CAUSAL)?;
        let mut op = conv(channels, CAUSAL);
        let cache = match self.seen.get(&path).copied() {
            None => None,
            Some(seen) => Some(self.cache(&path, seen)?),
        };
        if let Some(cache) = cache {
            op.cache = Presence::Present;
            operands.push(cache);
        }
        if let Some(residual) = residual {
            op.residual = Presence::Present;
            operands.push(residual);
        }
        let y = self.builder.add(Op::Conv3d(op), &operands, &path)?;
        self.seen.insert(path, Seen { x, cache });
        Ok(y)
    }

    fn cache(&mut self, path: &str, seen: Seen) -> Result<NodeId, ModelError> {
        let operands: Vec<NodeId> = std::iter::once(seen.x).chain(seen.cache).collect();
        let op = Op::ConvCache(ConvCache {
            keep: CAUSAL[0] - 1,
            cache: match seen.cache {
                Some(_) => Presence::Present,
                None => Presence::Absent,
            },
        });
        self.builder.add(op, &operands, path)
    }

    /// `x`, weight and bias of the convolution at `path`.
    fn conv_operands(
        &mut self,
        path: &str,
        x: NodeId,
        stored: &[usize],
        [kt, kh, kw]: [usize; 3],
    ) -> Result<Vec<NodeId>, ModelError> {
        let channels = stored[0];
        let dims = vec![
            Dim::new("o", channels),
            Dim::new("i", self.builder.width(x)),
            Dim::new("kt", kt),
            Dim::new("kh", kh),
            Dim::new("kw", kw),
        ];
        let sources = vec![source(format!("{path}.weight"), stored)];
        let weight = self.builder.weight(sources, dims, WeightLayout::Conv3d)?;
        let bias = self.builder.vector(&[path], "bias", channels)?;
        Ok(vec![x, weight, bias])
    }

    /// A convolution of one pixel.
    fn pointwise(&mut self, path: &str, x: NodeId, channels: usize) -> Result<NodeId, ModelError> {
        let stored = [channels, self.builder.width(x), 1, 1, 1];
        let out = Dim::new("c", channels);
        self.builder
            .linear_stored_as(path, &[path], &stored, x, out, Presence::Present)
    }
}

/// A convolution with bias, and nothing else yet.
fn conv(channels: usize, kernel: [usize; 3]) -> Conv3d {
    Conv3d {
        out: Dim::new("c", channels),
        kernel,
        bias: Presence::Present,
        cache: Presence::Absent,
        residual: Presence::Absent,
    }
}

/// First frame and number of frames of every batch; the first takes the remainder.
fn frame_batches(frames: usize) -> Vec<(usize, usize)> {
    let batches = (frames / FRAME_BATCH).max(1);
    let first = frames - (batches - 1) * FRAME_BATCH;
    (0..batches)
        .map(|i| match i {
            0 => (0, first),
            _ => (first + (i - 1) * FRAME_BATCH, FRAME_BATCH),
        })
        .collect()
}

/// `[b, f, y, x, c]` as callers hold it: `[b, f, c, y, x]`.
fn frames_first(dims: &[Dim]) -> Vec<Dim> {
    [0, 1, 4, 2, 3].map(|i| dims[i].clone()).to_vec()
}
