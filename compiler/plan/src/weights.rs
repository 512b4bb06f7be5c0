//! Weights of a plan: stored tensors, how they are joined, laid out and cut; never their bytes.

use crate::{BoxCopy, DType};
use serde::{Deserialize, Serialize};

/// Index into [`crate::Plan::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WeightId(pub usize);

/// One stored tensor of a weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightSource {
    /// Name of the tensor in the checkpoint.
    pub name: String,
    /// Other names under which checkpoints store the same tensor, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Shape as stored.
    pub shape: Vec<usize>,
}

/// How a weight lies in memory once loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// Row-major, as stored.
    Plain,
    /// `[out, in]` packed into the panels of the linear kernel.
    Linear,
    /// `[out, in, kt, kh, kw]` packed into the panels of the convolution kernel.
    Conv3d,
}

impl WeightLayout {
    /// The name used in text forms and plan files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Linear => "linear",
            Self::Conv3d => "conv3d",
        }
    }
}

/// A weight as kernels see it: its sources joined along their first dimension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Stored tensors, joined along dimension 0 in this order.
    pub sources: Vec<WeightSource>,
    /// Element type in memory, after conversion.
    pub dtype: DType,
    /// Shape of the joined tensor: `[n]`, `[n, k]` or `[cout, cin, kt, kh, kw]`. It may regroup
    /// the trailing dimensions of the sources, e.g. a 1x1x1 convolution read as `[n, k]`.
    pub shape: Vec<usize>,
    /// Layout in memory.
    pub layout: WeightLayout,
    /// The part that the rank holds, stored tensor to dense local tensor; empty: all of it.
    /// Only [`WeightLayout::Plain`] weights are cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<BoxCopy>,
    /// Elements that the rank holds.
    pub len: usize,
}
