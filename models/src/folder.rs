//! Where the components of a checkpoint lie: a diffusers folder, parts of one, or the same files
//! embedded in the program.
//!
//! A folder is a pipeline (`model_index.json`), a few component folders without an index, or one
//! component itself (`config.json` directly inside). Only text files are read here; of weights the
//! place is told. Refused by name: other pipelines and classes, and components that are not there.

use crate::ModelError;
use crate::config::ConfigFile;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The index of a pipeline folder.
const INDEX: &str = "model_index.json";

/// A component of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The video transformer.
    Transformer,
    /// The autoencoder of frames.
    Vae,
    /// The T5 encoder.
    TextEncoder,
    /// Its tokenizer.
    Tokenizer,
    /// The sampler.
    Scheduler,
}

/// Kind of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// `CogVideoXPipeline`.
    TextToVideo,
    /// `CogVideoXImageToVideoPipeline`.
    ImageToVideo,
    /// `CogVideoXVideoToVideoPipeline`.
    VideoToVideo,
}

/// A model as files.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    root: Root,
    content: Content,
}

/// One component as files.
#[derive(Clone, Debug)]
pub struct ComponentFolder<'a> {
    root: &'a Root,
    /// Path inside the root, empty or ending in a slash.
    prefix: String,
}

/// Where the weights of a component lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightFiles {
    /// A folder on disk.
    Folder(PathBuf),
    /// Safetensors files in the program, by name.
    Embedded(Vec<(String, &'static [u8])>),
}

#[derive(Clone, Debug)]
enum Root {
    Disk(PathBuf),
    Embedded(BTreeMap<String, &'static [u8]>),
}

#[derive(Clone, Debug)]
enum Content {
    /// The components that the index lists, each with its class.
    Pipeline(Pipeline, BTreeMap<Component, String>),
    /// Component folders side by side.
    Components,
    /// The folder is a component.
    One(Component),
}

impl Component {
    /// Every component.
    pub const ALL: [Self; 5] = [
        Self::Transformer,
        Self::Vae,
        Self::TextEncoder,
        Self::Tokenizer,
        Self::Scheduler,
    ];

    /// Name of its folder and of its key in the index.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transformer => "transformer",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::Tokenizer => "tokenizer",
            Self::Scheduler => "scheduler",
        }
    }

    /// Classes that are served.
    pub const fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Transformer => &["CogVideoXTransformer3DModel"],
            Self::Vae => &["AutoencoderKLCogVideoX"],
            Self::TextEncoder => &["T5EncoderModel"],
            Self::Tokenizer => &["T5Tokenizer", "T5TokenizerFast"],
            Self::Scheduler => &["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"],
        }
    }

    /// Files of which one must be there.
    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Transformer | Self::Vae | Self::TextEncoder => &["config.json"],
            Self::Tokenizer => &["tokenizer.json", "spiece.model"],
            Self::Scheduler => &["scheduler_config.json"],
        }
    }
}

impl Pipeline {
    const ALL: [Self; 3] = [Self::TextToVideo, Self::ImageToVideo, Self::VideoToVideo];

    /// Name of its class.
    pub const fn class(self) -> &'static str {
        match self {
            Self::TextToVideo => "CogVideoXPipeline",
            Self::ImageToVideo => "CogVideoXImageToVideoPipeline",
            Self::VideoToVideo => "CogVideoXVideoToVideoPipeline",
        }
    }
}

impl ModelFolder {
    /// Opens a folder on disk.
    ///
    /// # Errors
    /// There is no model in it, or its pipeline is not known.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        Self::new(Root::Disk(path.into()))
    }

    /// Opens files that are part of the program, by path inside the folder.
    ///
    /// # Errors
    /// As for [`ModelFolder::open`].
    pub fn embedded<'n>(
        files: impl IntoIterator<Item = (&'n str, &'static [u8])>,
    ) -> Result<Self, ModelError> {
        let files = files.into_iter().map(|(name, data)| (name.into(), data));
        Self::new(Root::Embedded(files.collect()))
    }

    /// The pipeline that the index names, when there is an index.
    pub fn pipeline(&self) -> Option<Pipeline> {
        match &self.content {
            Content::Pipeline(pipeline, _) => Some(*pipeline),
            Content::Components | Content::One(_) => None,
        }
    }

    /// Checks that videos can be generated from text alone.
    ///
    /// # Errors
    /// The index names another pipeline.
    pub fn check_text_to_video(&self) -> Result<(), ModelError> {
        match self.pipeline() {
            None | Some(Pipeline::TextToVideo) => Ok(()),
            Some(other @ (Pipeline::ImageToVideo | Pipeline::VideoToVideo)) => {
                Err(ModelError::PipelineNotServed {
                    file: self.root.show(INDEX),
                    class: other.class(),
                    served: Pipeline::TextToVideo.class(),
                })
            }
        }
    }

    /// A component of the model.
    ///
    /// # Errors
    /// It is not there, or its class is not served.
    pub fn component(&self, component: Component) -> Result<ComponentFolder<'_>, ModelError> {
        let prefix = match &self.content {
            Content::One(only) if *only == component => String::new(),
            Content::One(_) | Content::Components | Content::Pipeline(..) => {
                format!("{}/", component.name())
            }
        };
        let found = component
            .files()
            .iter()
            .any(|file| self.root.has(&format!("{prefix}{file}")));
        if !found {
            let files = component.files().iter();
            let files: Vec<String> = files.map(|file| format!("{prefix}{file}")).collect();
            return Err(ModelError::NoComponent {
                folder: self.root.name(),
                component: component.name(),
                expected: files.join(" or "),
            });
        }
        self.check_class(component)?;
        Ok(ComponentFolder {
            root: &self.root,
            prefix,
        })
    }

    fn new(root: Root) -> Result<Self, ModelError> {
        let content = if root.has(INDEX) {
            read_index(&root)?
        } else if let Some(component) = root.component()? {
            Content::One(component)
        } else if Component::ALL.iter().any(|c| {
            let has = |file: &&str| root.has(&format!("{}/{file}", c.name()));
            c.files().iter().any(has)
        }) {
            Content::Components
        } else {
            return Err(ModelError::NotAModel {
                folder: root.name(),
            });
        };
        Ok(Self { root, content })
    }

    /// Checks the class that the index names.
    fn check_class(&self, component: Component) -> Result<(), ModelError> {
        let Content::Pipeline(_, classes) = &self.content else {
            return Ok(());
        };
        match classes.get(&component) {
            Some(class) if component.classes().contains(&class.as_str()) => Ok(()),
            other => Err(ModelError::Class {
                file: format!("{}: {}", self.root.show(INDEX), component.name()),
                expected: component.classes().join(" or "),
                found: other.map_or_else(|| "none".into(), String::clone),
            }),
        }
    }
}

impl ComponentFolder<'_> {
    /// Whether a file is there.
    pub fn has(&self, file: &str) -> bool {
        self.root.has(&self.inside(file))
    }

    /// The name of a file in messages.
    pub fn show(&self, file: &str) -> String {
        self.root.show(&self.inside(file))
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, ModelError> {
        self.root.read(&self.inside(file))
    }

    /// A JSON file with the keys of a config.
    ///
    /// # Errors
    /// It cannot be read or is not a JSON object.
    pub fn config(&self, file: &str) -> Result<ConfigFile, ModelError> {
        ConfigFile::parse(&self.show(file), &self.text(file)?)
    }

    /// The text of a file.
    ///
    /// # Errors
    /// It cannot be read or is not UTF-8.
    pub fn text(&self, file: &str) -> Result<String, ModelError> {
        self.root.text(&self.inside(file))
    }

    /// Where the weights lie.
    pub fn weights(&self) -> WeightFiles {
        match self.root {
            Root::Disk(path) => WeightFiles::Folder(path.join(&self.prefix)),
            Root::Embedded(files) => WeightFiles::Embedded(
                files
                    .iter()
                    .filter_map(|(name, data)| Some((name.strip_prefix(&self.prefix)?, *data)))
                    .filter(|(name, _)| name.ends_with(".safetensors") && !name.contains('/'))
                    .map(|(name, data)| (name.to_owned(), data))
                    .collect(),
            ),
        }
    }

    fn inside(&self, file: &str) -> String {
        format!("{}{file}", self.prefix)
    }
}

impl Root {
    fn name(&self) -> String {
        match self {
            Self::Disk(path) => path.display().to_string(),
            Self::Embedded(_) => "the embedded model".into(),
        }
    }

    fn show(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    fn path(&self, file: &str) -> PathBuf {
        match self {
            Self::Disk(path) => path.join(file),
            Self::Embedded(_) => Path::new("<embedded>").join(file),
        }
    }

    fn has(&self, file: &str) -> bool {
        match self {
            Self::Disk(path) => path.join(file).is_file(),
            Self::Embedded(files) => files.contains_key(file),
        }
    }

    fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, ModelError> {
        let data = match self {
            Self::Disk(path) => std::fs::read(path.join(file)).map(Cow::Owned),
            Self::Embedded(files) => files
                .get(file)
                .map(|data| Cow::Borrowed(*data))
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
        };
        data.map_err(|source| ModelError::Read {
            file: self.path(file),
            source,
        })
    }

    fn text(&self, file: &str) -> Result<String, ModelError> {
        String::from_utf8(self.read(file)?.into_owned()).map_err(|e| ModelError::Read {
            file: self.path(file),
            source: io::Error::new(io::ErrorKind::InvalidData, e),
        })
    }

    /// The component that the root itself is.
    fn component(&self) -> Result<Option<Component>, ModelError> {
        if !self.has("config.json") {
            let has = |c: &Component| c.files().iter().any(|file| self.has(file));
            return Ok(Component::ALL.into_iter().find(has));
        }
        let file = "config.json";
        let mut config = ConfigFile::parse(&self.show(file), &self.text(file)?)?;
        let kind: Option<String> = config.take_optional("model_type")?;
        if kind.is_some() {
            // Configs of transformers name no class; which T5 it is, its own reader checks.
            return Ok(Some(Component::TextEncoder));
        }
        let models = [Component::Transformer, Component::Vae];
        let class = config.class(&models.map(|c| c.classes()).concat())?;
        Ok(models.into_iter().find(|c| c.classes().contains(&class)))
    }
}

fn read_index(root: &Root) -> Result<Content, ModelError> {
    let mut index = ConfigFile::parse(&root.show(INDEX), &root.text(INDEX)?)?;
    let named = index.class(&Pipeline::ALL.map(Pipeline::class))?;
    let named = Pipeline::ALL.into_iter().find(|p| p.class() == named);
    let pipeline = named.unwrap_or(Pipeline::TextToVideo);
    let mut classes = BTreeMap::new();
    for component in Component::ALL {
        let entry: Option<Vec<Option<String>>> = index.take_optional(component.name())?;
        if let Some(class) = entry.and_then(|names| names.into_iter().nth(1)).flatten() {
            classes.insert(component, class);
        }
    }
    index.finish()?;
    Ok(Content::Pipeline(pipeline, classes))
}
