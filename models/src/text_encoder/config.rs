//! `config.json` of a T5 encoder.
//!
//! Config files of transformers carry fields of training, generation and bookkeeping; those are
//! listed here and ignored. Refused by name: every other unknown field, T5 v1.0 (`relu`), other
//! gates, decoders, and other model types.

use crate::ModelError;
use crate::config::ConfigFile;

/// Fields that do not change what the encoder computes.
const IGNORED: [&str; 40] = [
    "add_cross_attention",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "dropout_rate",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "n_positions",
    "no_repeat_ngram_size",
    "num_beams",
    "num_decoder_layers",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "return_dict",
    "scale_decoder_outputs",
    "sep_token_id",
    "task_specific_params",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
];

/// The fields of a T5 v1.1 encoder; defaults are those of `T5Config`.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEncoderConfig {
    /// Channels.
    pub d_model: usize,
    /// Channels per head.
    pub d_kv: usize,
    /// Channels inside the feed-forward.
    pub d_ff: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Heads.
    pub num_heads: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Buckets of relative positions.
    pub relative_attention_num_buckets: usize,
    /// Distance from which all positions share a bucket.
    pub relative_attention_max_distance: usize,
    /// Added to the mean square.
    pub layer_norm_epsilon: f64,
}

impl TextEncoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Unknown fields, wrong types, or a model that is not served.
    pub fn from_config(mut file: ConfigFile) -> Result<Self, ModelError> {
        check_kind(&mut file)?;
        file.skip(&IGNORED);
        let f = &mut file;
        let config = Self {
            d_model: size(f, "d_model", 512)?,
            d_kv: size(f, "d_kv", 64)?,
            d_ff: size(f, "d_ff", 2048)?,
            num_layers: size(f, "num_layers", 6)?,
            num_heads: size(f, "num_heads", 8)?,
            vocab_size: size(f, "vocab_size", 32128)?,
            relative_attention_num_buckets: f.take("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: f.take("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: f.take("layer_norm_epsilon", 1e-6)?,
        };
        config.check_buckets(f)?;
        file.finish_as("T5Config of transformers 5.23")?;
        Ok(config)
    }

    /// Half of the buckets serve each direction, half of those exact distances.
    fn check_buckets(&self, file: &ConfigFile) -> Result<(), ModelError> {
        let (buckets, distance) = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        );
        if buckets == 0 || !buckets.is_multiple_of(4) {
            let key = "relative_attention_num_buckets";
            return Err(file.unsupported(key, buckets, "multiples of 4"));
        }
        if distance <= buckets / 4 {
            let served = format!("more than a quarter of the {buckets} buckets");
            return Err(file.unsupported("relative_attention_max_distance", distance, &served));
        }
        Ok(())
    }
}

fn size(file: &mut ConfigFile, key: &str, default: usize) -> Result<usize, ModelError> {
    match file.take(key, default)? {
        0 => Err(file.unsupported(key, 0, "at least 1")),
        size => Ok(size),
    }
}

/// Checks that the file describes an encoder with gated GELU.
fn check_kind(file: &mut ConfigFile) -> Result<(), ModelError> {
    let text = [
        ("model_type", "t5", "t5"),
        ("feed_forward_proj", "relu", "gated-gelu"),
        // Derived from the one before; files need not hold it.
        ("dense_act_fn", "gelu_new", "gelu_new"),
    ];
    for (key, default, served) in text {
        let value: String = file.take(key, default.to_owned())?;
        if value != served {
            return Err(file.unsupported(key, value, served));
        }
    }
    for (key, served) in [("is_gated_act", true), ("is_decoder", false)] {
        if file.take(key, served)? != served {
            return Err(file.unsupported(key, !served, &served.to_string()));
        }
    }
    Ok(())
}
