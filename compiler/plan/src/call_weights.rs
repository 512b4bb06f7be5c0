//! The weights of every kernel call, and the names of kernels.

use crate::{
    Affine, ConvShape, KernelCall, Norm, Operand, QkNorm, WeightId, WeightLayout, WeightUse,
};

impl KernelCall {
    /// The name of the kernel in text forms and plan files.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::NormModulate { .. } => "norm_modulate",
            Self::GateAdd { .. } => "gate_add",
            Self::QkNormRope { .. } => "qk_norm_rope",
            Self::Attention { .. } => "attention",
            Self::AttentionStep { .. } => "attention_step",
            Self::AttentionFinish { .. } => "attention_finish",
            Self::Activate { .. } => "activate",
            Self::Cast { .. } => "cast",
            Self::GatedGelu { .. } => "gated_gelu",
            Self::Embedding { .. } => "embedding",
            Self::RelativeBias { .. } => "relative_bias",
            Self::TimestepEmbedding { .. } => "timestep_embedding",
            Self::PositionTable { .. } => "position_table",
            Self::Join { .. } => "join",
            Self::Conv3d { .. } => "conv3d",
            Self::ConvCache { .. } => "conv_cache",
            Self::GroupNorm { .. } => "group_norm",
            Self::Upsample { .. } => "upsample",
            Self::Denoise { .. } => "denoise",
            Self::Advance { .. } => "advance",
            Self::Noise { .. } => "noise",
        }
    }

    /// Every weight that the call reads. Sizes that overflow saturate;
    /// [`KernelCall::operands`] refuses such calls.
    pub fn weights(&self) -> Vec<WeightUse> {
        let mut uses = Vec::new();
        match self {
            Self::Linear {
                k, n, weight, bias, ..
            } => {
                uses.push(used("weight", *weight, &[*n, *k], WeightLayout::Linear));
                plain(&mut uses, "bias", *bias, &[*n]);
            }
            Self::NormModulate { width, norm, .. } => norm_weights(&mut uses, *norm, *width),
            Self::QkNormRope { head_dim, norm, .. } => {
                if let Some(QkNorm { q, k, .. }) = norm {
                    affine_weights(&mut uses, ["q weight", "q bias"], *q, *head_dim);
                    affine_weights(&mut uses, ["k weight", "k bias"], *k, *head_dim);
                }
            }
            Self::Embedding { .. } | Self::RelativeBias { .. } | Self::Join { .. } => {
                self.table(&mut uses);
            }
            Self::Conv3d {
                shape,
                weight,
                bias,
                ..
            } => {
                conv_weights(&mut uses, *shape, *weight, *bias);
            }
            Self::GroupNorm {
                channels, affine, ..
            } => {
                affine_weights(&mut uses, AFFINE, *affine, *channels);
            }
            Self::GateAdd { .. } | Self::Attention { .. } | Self::AttentionStep { .. } => {}
            Self::AttentionFinish { .. } | Self::Activate { .. } | Self::GatedGelu { .. } => {}
            Self::Cast { .. } => {}
            Self::TimestepEmbedding { .. } | Self::PositionTable { .. } => {}
            Self::ConvCache { .. } | Self::Upsample { .. } | Self::Denoise { .. } => {}
            Self::Advance { .. } | Self::Noise { .. } => {}
        }
        uses
    }

    /// Tables that rows are looked up in, or added from.
    fn table(&self, uses: &mut Vec<WeightUse>) {
        if let Self::Embedding {
            width,
            vocabulary,
            table,
            ..
        } = self
        {
            plain(uses, "table", Some(*table), &[*vocabulary, *width]);
        }
        if let Self::RelativeBias {
            heads,
            buckets,
            table,
            ..
        } = self
        {
            plain(uses, "table", Some(*table), &[*buckets, *heads]);
        }
        if let Self::Join {
            text_rows,
            video_rows,
            width,
            positions: Some(Operand::Weight(weight)),
            ..
        } = self
        {
            let rows = text_rows.saturating_add(*video_rows);
            plain(uses, "positions", Some(*weight), &[rows, *width]);
        }
    }
}

const AFFINE: [&str; 2] = ["weight", "bias"];

fn used(name: &'static str, weight: WeightId, shape: &[usize], layout: WeightLayout) -> WeightUse {
    WeightUse {
        name,
        weight,
        shape: shape.to_vec(),
        layout,
    }
}

fn plain(uses: &mut Vec<WeightUse>, name: &'static str, weight: Option<WeightId>, shape: &[usize]) {
    if let Some(weight) = weight {
        uses.push(used(name, weight, shape, WeightLayout::Plain));
    }
}

fn affine_weights(
    uses: &mut Vec<WeightUse>,
    [weight, bias]: [&'static str; 2],
    affine: Affine,
    width: usize,
) {
    plain(uses, weight, affine.weight, &[width]);
    plain(uses, bias, affine.bias, &[width]);
}

fn norm_weights(uses: &mut Vec<WeightUse>, norm: Norm, width: usize) {
    match norm {
        Norm::None => {}
        Norm::Layer { affine, .. } => affine_weights(uses, AFFINE, affine, width),
        Norm::Rms { weight, .. } => plain(uses, "weight", Some(weight), &[width]),
    }
}

fn conv_weights(
    uses: &mut Vec<WeightUse>,
    shape: ConvShape,
    weight: WeightId,
    bias: Option<WeightId>,
) {
    let ConvShape {
        cin,
        cout,
        kernel: [kt, kh, kw],
        ..
    } = shape;
    let sizes = [cout, cin, kt, kh, kw];
    uses.push(used("weight", weight, &sizes, WeightLayout::Conv3d));
    plain(uses, "bias", bias, &[cout]);
}
