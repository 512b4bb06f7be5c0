//! The decoder of `AutoencoderKLCogVideoX` as a graph.
//!
//! Latent frames are decoded two at a time, the first batch taking the remainder, as the reference
//! does: group norms see one batch of frames, and every causal convolution keeps the last frames of
//! its input for the next batch. The batches are unrolled into one graph that shares its weights.
//! Everything is channels-last inside. Not served: tiling.
//!
//! Source: `autoencoder_kl_cogvideox.py` of diffusers 0.42.

mod config;
mod decoder;

pub use config::VaeConfig;
pub use decoder::{DecodeShape, decoder};
