//! The config of `CogVideoXTransformer3DModel`.
//!
//! Every field of the reference class (diffusers 0.42) is read, with its default. Refused by name:
//! unknown keys, activations without a kernel, and combinations for which the reference model
//! itself has no meaning, so that a config that was read can be lowered at every legal size.

use crate::ModelError;
use crate::config::ConfigFile;
use std::path::Path;
use terrace_plan::Activation;

/// Bound of every size in a config; keeps all products within 64 bits.
const LARGEST: usize = 1 << 20;

/// Channels that a head or a width must be a multiple of, so that the columns of its three axes
/// (a quarter, and twice three eighths) are even.
const POSITION_UNIT: usize = 16;

/// A checked transformer config; field names are those of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformerConfig {
    /// Heads of attention.
    pub num_attention_heads: usize,
    /// Channels per head.
    pub attention_head_dim: usize,
    /// Channels of `hidden_states`: latents, and what an image adds to them.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether cosines come before sines in the embedding of time steps.
    pub flip_sin_to_cos: bool,
    /// `downscale_freq_shift` of the embedding of time steps.
    pub freq_shift: f64,
    /// Width of the time embedding.
    pub time_embed_dim: usize,
    /// Width of the `ofs` embedding; equals `time_embed_dim` where there is one.
    pub ofs_embed_dim: Option<usize>,
    /// Width of the text encoder's result.
    pub text_embed_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Whether the projections of queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Latent columns of the native size.
    pub sample_width: usize,
    /// Latent rows of the native size.
    pub sample_height: usize,
    /// Frames (not latent frames) of the native size.
    pub sample_frames: usize,
    /// Latent rows and columns of a patch.
    pub patch_size: usize,
    /// Latent frames of a patch; absent: patches are flat and embedded by a 2-D convolution.
    pub patch_size_t: Option<usize>,
    /// Frames per latent frame.
    pub temporal_compression_ratio: usize,
    /// Text rows of the native size.
    pub max_text_seq_length: usize,
    /// Function inside the feed-forward part.
    pub activation_fn: Activation,
    /// Function inside the time embedding.
    pub timestep_activation_fn: Activation,
    /// Whether norms over the width have weight and bias.
    pub norm_elementwise_affine: bool,
    /// Added to the variance by norms over the width.
    pub norm_eps: f64,
    /// Divisor of rows and columns in sin-cos positions.
    pub spatial_interpolation_scale: f64,
    /// Divisor of frames in sin-cos positions.
    pub temporal_interpolation_scale: f64,
    /// Rotary positions in attention instead of sin-cos positions that are added.
    pub use_rotary_positional_embeddings: bool,
    /// Stored positions that are added besides.
    pub use_learned_positional_embeddings: bool,
    /// Whether the 2-D convolution has a bias; the linear of `patch_size_t` always has one.
    pub patch_bias: bool,
}

impl TransformerConfig {
    /// The class whose config this is.
    pub const CLASS: &'static str = "CogVideoXTransformer3DModel";

    /// Reads `config.json` of a transformer folder.
    ///
    /// # Errors
    /// The file cannot be read or holds what is not served.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::from_config(ConfigFile::read(path)?)
    }

    /// The config in a parsed file.
    ///
    /// # Errors
    /// Another class, unknown keys, wrong types, or values that are not served.
    pub fn from_config(mut file: ConfigFile) -> Result<Self, ModelError> {
        file.class(&[Self::CLASS])?;
        let f = &mut file;
        // Dropout does nothing outside training.
        let _: f64 = f.take("dropout", 0.0)?;
        let config = Self {
            num_attention_heads: size(f, "num_attention_heads", 30)?,
            attention_head_dim: size(f, "attention_head_dim", 64)?,
            in_channels: size(f, "in_channels", 16)?,
            out_channels: size(f, "out_channels", 16)?,
            flip_sin_to_cos: f.take("flip_sin_to_cos", true)?,
            freq_shift: f.take("freq_shift", 0.0)?,
            time_embed_dim: size(f, "time_embed_dim", 512)?,
            // The reference tests this size for truth, so zero means none.
            ofs_embed_dim: optional_size(f, "ofs_embed_dim")?.filter(|&d| d > 0),
            text_embed_dim: size(f, "text_embed_dim", 4096)?,
            num_layers: size(f, "num_layers", 30)?,
            attention_bias: f.take("attention_bias", true)?,
            sample_width: size(f, "sample_width", 90)?,
            sample_height: size(f, "sample_height", 60)?,
            sample_frames: size(f, "sample_frames", 49)?,
            patch_size: size(f, "patch_size", 2)?,
            patch_size_t: optional_size(f, "patch_size_t")?,
            temporal_compression_ratio: size(f, "temporal_compression_ratio", 4)?,
            max_text_seq_length: size(f, "max_text_seq_length", 226)?,
            activation_fn: feed_forward_activation(f)?,
            timestep_activation_fn: timestep_activation(f)?,
            norm_elementwise_affine: f.take("norm_elementwise_affine", true)?,
            norm_eps: f.take("norm_eps", 1e-5)?,
            spatial_interpolation_scale: f.take("spatial_interpolation_scale", 1.875)?,
            temporal_interpolation_scale: f.take("temporal_interpolation_scale", 1.0)?,
            use_rotary_positional_embeddings: f.take("use_rotary_positional_embeddings", false)?,
            use_learned_positional_embeddings: f
                .take("use_learned_positional_embeddings", false)?,
            patch_bias: f.take("patch_bias", true)?,
        };
        config.check_sizes(f)?;
        config.check_numbers(f)?;
        config.check_positions(f)?;
        file.finish()?;
        Ok(config)
    }

    /// Channels of a token: heads times channels per head.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Latent frames of a patch.
    pub fn patch_frames(&self) -> usize {
        self.patch_size_t.unwrap_or(1)
    }

    /// Latent elements of a patch, per channel.
    pub(super) fn patch_elements(&self) -> usize {
        self.patch_frames() * self.patch_size * self.patch_size
    }

    /// Whether positions are added to the joint sequence before the first block.
    pub(super) fn adds_positions(&self) -> bool {
        !self.use_rotary_positional_embeddings || self.use_learned_positional_embeddings
    }

    fn check_sizes(&self, file: &ConfigFile) -> Result<(), ModelError> {
        let bound = format!("products of sizes up to {LARGEST}");
        if self.width() > LARGEST {
            return Err(file.unsupported("attention_head_dim", self.attention_head_dim, &bound));
        }
        // Bounded one by one before they are multiplied.
        if self.patch_size > 256 || self.patch_frames() > 256 {
            return Err(file.unsupported("patch_size", self.patch_size, "patches of up to 256"));
        }
        let channels = self.in_channels.max(self.out_channels);
        if self.patch_elements() * channels > LARGEST {
            return Err(file.unsupported("patch_size", self.patch_size, &bound));
        }
        if let Some(ofs) = self.ofs_embed_dim
            && ofs != self.time_embed_dim
        {
            let supported = format!("null or time_embed_dim {}", self.time_embed_dim);
            return Err(file.unsupported("ofs_embed_dim", ofs, &supported));
        }
        Ok(())
    }

    fn check_numbers(&self, file: &ConfigFile) -> Result<(), ModelError> {
        for (key, value) in [
            (
                "spatial_interpolation_scale",
                self.spatial_interpolation_scale,
            ),
            (
                "temporal_interpolation_scale",
                self.temporal_interpolation_scale,
            ),
        ] {
            if value <= 0.0 {
                return Err(file.unsupported(key, value, "positive numbers"));
            }
        }
        if self.norm_eps < 0.0 {
            return Err(file.unsupported("norm_eps", self.norm_eps, "zero or a positive number"));
        }
        let narrowest = self.ofs_embed_dim.unwrap_or(usize::MAX).min(self.width());
        if self.freq_shift >= (narrowest / 2) as f64 {
            let supported = format!("numbers below {}", narrowest / 2);
            return Err(file.unsupported("freq_shift", self.freq_shift, &supported));
        }
        Ok(())
    }

    fn check_positions(&self, file: &ConfigFile) -> Result<(), ModelError> {
        let (rotary, learned) = (
            self.use_rotary_positional_embeddings,
            self.use_learned_positional_embeddings,
        );
        if learned && !rotary {
            let key = "use_learned_positional_embeddings";
            let supported = "false, unless use_rotary_positional_embeddings is true";
            return Err(file.unsupported(key, true, supported));
        }
        if self.adds_positions() && self.patch_frames() != 1 {
            let supported = "null where sin-cos or learned positions are added";
            return Err(file.unsupported("patch_size_t", self.patch_frames(), supported));
        }
        let sin_cos = self.adds_positions() && !self.width().is_multiple_of(POSITION_UNIT);
        if sin_cos || (rotary && !self.attention_head_dim.is_multiple_of(POSITION_UNIT)) {
            let supported =
                format!("multiples of {POSITION_UNIT}, of which positions take 1/4, 3/8 and 3/8");
            return Err(file.unsupported(
                "attention_head_dim",
                self.attention_head_dim,
                &supported,
            ));
        }
        Ok(())
    }
}

fn size(file: &mut ConfigFile, key: &str, default: usize) -> Result<usize, ModelError> {
    let value = file.take(key, default)?;
    if value == 0 || value > LARGEST {
        let supported = format!("1 to {LARGEST}");
        return Err(file.unsupported(key, value, &supported));
    }
    Ok(value)
}

fn optional_size(file: &mut ConfigFile, key: &str) -> Result<Option<usize>, ModelError> {
    let value: Option<usize> = file.take(key, None)?;
    match value {
        Some(size) if size > LARGEST || (size == 0 && key != "ofs_embed_dim") => {
            let supported = format!("null or 1 to {LARGEST}");
            Err(file.unsupported(key, size, &supported))
        }
        value => Ok(value),
    }
}

/// `FeedForward` of the reference: those of its functions that keep the width.
fn feed_forward_activation(file: &mut ConfigFile) -> Result<Activation, ModelError> {
    const KEY: &str = "activation_fn";
    let name = file.take(KEY, String::from("gelu-approximate"))?;
    match name.as_str() {
        "gelu-approximate" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        "linear-silu" => Ok(Activation::Silu),
        _ => Err(file.unsupported(KEY, name, "gelu-approximate, gelu, linear-silu")),
    }
}

/// `get_activation` of the reference, which does not look at case.
fn timestep_activation(file: &mut ConfigFile) -> Result<Activation, ModelError> {
    const KEY: &str = "timestep_activation_fn";
    let name = file.take(KEY, String::from("silu"))?;
    match name.to_lowercase().as_str() {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        _ => Err(file.unsupported(KEY, name, "silu, swish, gelu")),
    }
}
