//! CogVideoX checkpoints: strict configs, and the lowering of every model part to the IR.
//!
//! Nothing here sees a device or a tensor: a config and a size become a
//! [`Graph`](terrace_compiler::ir::Graph) that names the tensors of the checkpoint. A
//! [folder](folder::ModelFolder) says where the parts of a checkpoint lie, the [scheduler] gives the
//! numbers of every denoising step, the [tokenizer] the ids of a prompt, and [size] tells which videos a
//! checkpoint can make.
//!
//! ```
//! use terrace_models::config::ConfigFile;
//! use terrace_models::size::{VaeRatios, VideoSize};
//! use terrace_models::transformer::{Guidance, Solver, StepShape, TransformerConfig, denoise_step};
//!
//! let text = r#"{"_class_name": "CogVideoXTransformer3DModel", "num_layers": 2}"#;
//! let config = TransformerConfig::from_config(ConfigFile::parse("config.json", text)?)?;
//! let ratios = VaeRatios { space: 8, time: 4 };
//! let latents = VideoSize { frames: 49, height: 480, width: 720 }.latents(&config, ratios)?;
//! assert_eq!((latents.frames, latents.height, latents.width), (13, 60, 90));
//!
//! let graph = denoise_step(&config, &StepShape {
//!     frames: latents.frames,
//!     height: latents.height,
//!     width: latents.width,
//!     text: 226,
//!     guidance: Guidance::ClassifierFree,
//!     solver: Solver::Ddim,
//! })?;
//! assert_eq!(graph.name(), "denoise-step");
//!
//! // What is not legal says what is.
//! let error = VideoSize { frames: 50, height: 480, width: 720 }.latents(&config, ratios);
//! assert!(error.unwrap_err().to_string().ends_with("nearest: 49 or 57"));
//! # Ok::<(), terrace_models::ModelError>(())
//! ```

mod builder;
pub mod config;
mod error;
pub mod folder;
pub mod scheduler;
pub mod size;
pub mod text_encoder;
pub mod tokenizer;
pub mod transformer;
pub mod vae;

pub use error::ModelError;
