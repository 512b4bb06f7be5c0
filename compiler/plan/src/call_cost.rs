//! The arithmetic of kernel calls: floating point operations, a multiply-add counting as two.
//!
//! Matrix products, attention and convolutions alone are counted: everything else is a small part
//! of a model's work and bound by memory. Sizes come from untrusted plans, so results saturate.

use crate::{AttentionShape, ConvShape, KernelCall};

impl KernelCall {
    /// Floating point operations of the call: `2 rows k n` of a linear, `4 batch heads q kv d` of
    /// an attention (scores and weighted values), `2 batch t h w cout cin kt kh kw` of a
    /// convolution, zero of every other kernel. Saturates.
    pub fn flops(&self) -> u64 {
        match self {
            Self::Linear { rows, k, n, .. } => saturating(&[2, *rows, *k, *n]),
            Self::Attention { shape, .. } | Self::AttentionStep { shape, .. } => attention(shape),
            Self::Conv3d { shape, .. } => convolution(shape),
            Self::NormModulate { .. } | Self::GateAdd { .. } | Self::QkNormRope { .. } => 0,
            Self::AttentionFinish { .. } | Self::Activate { .. } | Self::GatedGelu { .. } => 0,
            Self::Cast { .. } => 0,
            Self::Embedding { .. } | Self::RelativeBias { .. } | Self::Join { .. } => 0,
            Self::TimestepEmbedding { .. } | Self::PositionTable { .. } => 0,
            Self::ConvCache { .. } | Self::GroupNorm { .. } | Self::Upsample { .. } => 0,
            Self::Denoise { .. } | Self::Advance { .. } | Self::Noise { .. } => 0,
        }
    }
}

fn attention(shape: &AttentionShape) -> u64 {
    let AttentionShape {
        batch,
        heads,
        q_rows,
        kv_rows,
        head_dim,
        ..
    } = *shape;
    saturating(&[4, batch, heads, q_rows, kv_rows, head_dim])
}

fn convolution(shape: &ConvShape) -> u64 {
    let ConvShape {
        batch,
        grid: [t, h, w],
        cin,
        cout,
        kernel: [kt, kh, kw],
    } = *shape;
    saturating(&[2, batch, t, h, w, cout, cin, kt, kh, kw])
}

fn saturating(sizes: &[usize]) -> u64 {
    crate::geometry::product(sizes).map_or(u64::MAX, |n| n as u64)
}
