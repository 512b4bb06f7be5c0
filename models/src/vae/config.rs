//! `config.json` of the VAE.
//!
//! Fields of the encoder and of tiling are ignored. So is `norm_eps`, which the decoder's norms do
//! not read. Refused by name: other block types and activations, latents with a mean, deviation or
//! shift, and unknown fields.

use crate::ModelError;
use crate::config::ConfigFile;
use terrace_compiler::ops::Presence;

/// Fields that the decoder does not read. `mid_block_add_attention` and `sample_size` are of the
/// class's first version, which wrote them into configs and never used them.
const IGNORED: [&str; 10] = [
    "down_block_types",
    "force_upcast",
    "in_channels",
    "invert_scale_latents",
    "mid_block_add_attention",
    "norm_eps",
    "sample_height",
    "sample_size",
    "sample_width",
    "use_quant_conv",
];

/// The fields that the decoder reads; defaults are those of the reference class.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of a frame.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of the blocks, as the encoder passes them.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per block; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Blocks that double frames: the logarithm of `temporal_compression_ratio`.
    pub temporal_levels: usize,
    /// What the decoder's latents are multiplied with in the diffusion model.
    pub scaling_factor: f64,
    /// Whether a convolution precedes the decoder.
    pub post_quant_conv: Presence,
}

impl VaeConfig {
    /// The class whose config this is.
    pub const CLASS: &'static str = "AutoencoderKLCogVideoX";

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Another class, unknown fields, wrong types, or values that are not served.
    pub fn from_config(mut file: ConfigFile) -> Result<Self, ModelError> {
        file.class(&[Self::CLASS])?;
        file.skip(&IGNORED);
        let f = &mut file;
        check_fixed(f)?;
        let block_out_channels = f.take("block_out_channels", vec![128, 256, 256, 512])?;
        check_blocks(f, &block_out_channels)?;
        let config = Self {
            out_channels: f.take("out_channels", 3)?,
            latent_channels: f.take("latent_channels", 16)?,
            block_out_channels,
            layers_per_block: f.take("layers_per_block", 3)?,
            norm_num_groups: f.take("norm_num_groups", 32)?,
            temporal_levels: temporal_levels(f)?,
            scaling_factor: f.take("scaling_factor", 1.15258426)?,
            post_quant_conv: match f.take("use_post_quant_conv", false)? {
                false => Presence::Absent,
                true => Presence::Present,
            },
        };
        config.check(f)?;
        file.finish()?;
        Ok(config)
    }

    /// Pixels per latent pixel in height and width.
    pub fn spatial_ratio(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Frames per latent frame after the first.
    pub fn temporal_ratio(&self) -> usize {
        1 << self.temporal_levels
    }

    /// Turns latents as the diffusion model leaves them into latents as the decoder takes them.
    pub fn unscale(&self, latents: &mut [f32]) {
        let factor = (1.0 / self.scaling_factor) as f32;
        for value in latents {
            *value *= factor;
        }
    }

    fn check(&self, file: &ConfigFile) -> Result<(), ModelError> {
        let sizes = [
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ];
        for (key, size) in sizes {
            if size == 0 {
                return Err(file.unsupported(key, 0, "at least 1"));
            }
        }
        let groups = self.norm_num_groups;
        let blocks = &self.block_out_channels;
        if blocks.iter().any(|&c| c == 0 || !c.is_multiple_of(groups)) {
            let served = format!("multiples of the {groups} groups of the norms");
            return Err(file.unsupported("block_out_channels", blocks.clone(), &served));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            let served = "finite numbers other than 0";
            return Err(file.unsupported("scaling_factor", self.scaling_factor, served));
        }
        let (out, latent) = (self.out_channels, self.latent_channels);
        if self.post_quant_conv == Presence::Present && out != latent {
            // The reference sizes this convolution by the frames but feeds it latents.
            let served = format!("false, or true where out_channels is {latent}");
            return Err(file.unsupported("use_post_quant_conv", true, &served));
        }
        Ok(())
    }
}

/// Fields that have one value in every checkpoint.
fn check_fixed(file: &mut ConfigFile) -> Result<(), ModelError> {
    let activation: String = file.take("act_fn", "silu".to_owned())?;
    // The reference knows one function by two names.
    if !["silu", "swish"].contains(&activation.as_str()) {
        return Err(file.unsupported("act_fn", activation, "silu"));
    }
    for key in ["latents_mean", "latents_std"] {
        let value: Option<Vec<f64>> = file.take(key, None)?;
        if let Some(value) = value {
            return Err(file.unsupported(key, value, "null"));
        }
    }
    let shift: Option<f64> = file.take("shift_factor", None)?;
    match shift {
        Some(shift) => Err(file.unsupported("shift_factor", shift, "null")),
        None => Ok(()),
    }
}

fn check_blocks(file: &mut ConfigFile, channels: &[usize]) -> Result<(), ModelError> {
    const SERVED: &str = "CogVideoXUpBlock3D";
    let blocks = channels.len();
    if blocks == 0 || blocks > 16 {
        let served = "1 to 16 blocks";
        return Err(file.unsupported("block_out_channels", channels.to_vec(), served));
    }
    let types = file.take("up_block_types", vec![SERVED.to_owned(); 4])?;
    if types.len() != blocks || types.iter().any(|t| t != SERVED) {
        let served = format!("{blocks} times {SERVED}");
        return Err(file.unsupported("up_block_types", types, &served));
    }
    Ok(())
}

/// The reference takes the logarithm's whole part.
fn temporal_levels(file: &mut ConfigFile) -> Result<usize, ModelError> {
    let ratio: f64 = file.take("temporal_compression_ratio", 4.0)?;
    if ratio.is_finite() && ratio >= 1.0 {
        return Ok(ratio.log2() as usize);
    }
    Err(file.unsupported("temporal_compression_ratio", ratio, "at least 1"))
}
