//! A checkpoint: its configs, tokenizer, scheduler and weights.
//!
//! Everything is read when it is asked for, so a folder that holds one component, or configs
//! without weights, is a model as far as it goes.

use crate::Error;
use include_dir::{Dir, File, include_dir};
use serde_json::Value;
use std::path::Path;
use terrace_models::folder::{Component, ModelFolder, WeightFiles};
use terrace_models::scheduler::{Scheduler, SchedulerKind};
use terrace_models::size::{VaeRatios, VideoSize};
use terrace_models::tokenizer::Tokenizer;
use terrace_models::transformer::TransformerConfig;
use terrace_models::vae::VaeConfig;
use terrace_runtime::Checkpoint;

/// The small checkpoint that ships with the program.
static DEMO: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/models/demo");

/// Configs of published checkpoints, without weights.
static CONFIGS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/models/configs");

/// Pixels per latent row of every CogVideoX VAE, for folders that hold no VAE.
const SPATIAL_RATIO: usize = 8;

const CONFIG: &str = "config.json";
const SCHEDULER_CONFIG: &str = "scheduler_config.json";

/// A CogVideoX checkpoint.
#[derive(Clone, Debug)]
pub struct Model {
    folder: ModelFolder,
}

impl Model {
    /// Opens a folder in the diffusers layout, or the folder of one component.
    ///
    /// # Errors
    /// There is no model in it, or its pipeline is not known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self {
            folder: ModelFolder::open(path.as_ref())?,
        })
    }

    /// The small checkpoint that ships with the program.
    ///
    /// # Errors
    /// As for [`Model::open`].
    pub fn demo() -> Result<Self, Error> {
        let mut files = Vec::new();
        list(&DEMO, &mut files);
        Ok(Self {
            folder: ModelFolder::embedded(files)?,
        })
    }

    /// The transformer and VAE of a published checkpoint by name, such as `2b`: their configs, no weights.
    ///
    /// # Errors
    /// There is no such checkpoint.
    pub fn preset(name: &str) -> Result<Self, Error> {
        let config = |path: String| CONFIGS.get_file(path).map(File::contents);
        let transformer = config(format!("transformer-{name}.json"));
        let (Some(transformer), Some(vae)) = (transformer, config("vae.json".into())) else {
            return Err(Error::NoPreset {
                preset: name.to_owned(),
                presets: presets().join(", "),
            });
        };
        let files = [
            ("transformer/config.json", transformer),
            ("vae/config.json", vae),
        ];
        Ok(Self {
            folder: ModelFolder::embedded(files)?,
        })
    }

    /// Checks that videos can be generated from text alone.
    ///
    /// # Errors
    /// The checkpoint is made for another pipeline.
    pub fn check_text_to_video(&self) -> Result<(), Error> {
        Ok(self.folder.check_text_to_video()?)
    }

    /// Config of the transformer.
    ///
    /// # Errors
    /// It is not there or not served.
    pub fn transformer(&self) -> Result<TransformerConfig, Error> {
        let folder = self.folder.component(Component::Transformer)?;
        Ok(TransformerConfig::from_config(folder.config(CONFIG)?)?)
    }

    /// Config of the VAE.
    ///
    /// # Errors
    /// It is not there or not served.
    pub fn vae(&self) -> Result<VaeConfig, Error> {
        let folder = self.folder.component(Component::Vae)?;
        Ok(VaeConfig::from_config(folder.config(CONFIG)?)?)
    }

    /// The text of a component's config.
    ///
    /// # Errors
    /// It is not there or not JSON.
    pub fn config(&self, component: Component) -> Result<Value, Error> {
        let folder = self.folder.component(component)?;
        let text = folder.text(CONFIG)?;
        serde_json::from_str(&text).map_err(|source| {
            let file = folder.show(CONFIG);
            terrace_models::ModelError::Json { file, source }.into()
        })
    }

    /// The weights of a component, mapped into memory.
    ///
    /// # Errors
    /// They are not there, truncated or malformed.
    pub fn weights(&self, component: Component) -> Result<Checkpoint, Error> {
        Ok(match self.folder.component(component)?.weights() {
            WeightFiles::Folder(path) => Checkpoint::open(path)?,
            WeightFiles::Embedded(files) => {
                let parts: Vec<(&str, &'static [u8])> = files
                    .iter()
                    .map(|(name, data)| (name.as_str(), *data))
                    .collect();
                Checkpoint::from_bytes(&parts)?
            }
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// It is not there or not served.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        Ok(Tokenizer::open(
            &self.folder.component(Component::Tokenizer)?,
        )?)
    }

    /// The scheduler; `kind` replaces the rule that the checkpoint names and keeps its fields.
    ///
    /// # Errors
    /// It is not there or not served.
    pub fn scheduler(&self, kind: Option<SchedulerKind>) -> Result<Scheduler, Error> {
        let folder = self.folder.component(Component::Scheduler)?;
        let text = folder.text(SCHEDULER_CONFIG)?;
        Ok(Scheduler::from_json(
            &folder.show(SCHEDULER_CONFIG),
            &text,
            kind,
        )?)
    }

    /// The rule that the checkpoint names; DDIM for folders that hold no scheduler.
    ///
    /// # Errors
    /// Its config is not served.
    pub fn scheduler_kind(&self) -> Result<SchedulerKind, Error> {
        if self.folder.component(Component::Scheduler).is_err() {
            return Ok(SchedulerKind::Ddim);
        }
        Ok(self.scheduler(None)?.kind())
    }

    /// How much smaller latents are than frames; those of every CogVideoX for folders that hold no
    /// VAE.
    ///
    /// # Errors
    /// A config is not served.
    pub fn ratios(&self) -> Result<VaeRatios, Error> {
        if self.folder.component(Component::Vae).is_err() {
            return Ok(VaeRatios {
                space: SPATIAL_RATIO,
                time: self.transformer()?.temporal_compression_ratio,
            });
        }
        let vae = self.vae()?;
        Ok(VaeRatios {
            space: vae.spatial_ratio(),
            time: vae.temporal_ratio(),
        })
    }

    /// The size that the checkpoint is made for.
    ///
    /// # Errors
    /// A config is not served.
    pub fn native_size(&self) -> Result<VideoSize, Error> {
        Ok(VideoSize::native(&self.transformer()?, self.ratios()?))
    }
}

/// Names that [`Model::preset`] knows.
fn presets() -> Vec<&'static str> {
    let paths = CONFIGS.files().filter_map(|file| file.path().to_str());
    paths
        .filter_map(|path| path.strip_prefix("transformer-")?.strip_suffix(".json"))
        .collect()
}

fn list(dir: &Dir<'static>, files: &mut Vec<(&'static str, &'static [u8])>) {
    for file in dir.files() {
        if let Some(path) = file.path().to_str() {
            files.push((path, file.contents()));
        }
    }
    for dir in dir.dirs() {
        list(dir, files);
    }
}
