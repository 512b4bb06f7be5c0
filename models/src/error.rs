//! The error of this crate: which file or size was wrong, what was expected and found.

use std::path::PathBuf;
use terrace_compiler::CompileError;
use thiserror::Error;

/// Why a checkpoint or a size is not served.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file of the checkpoint cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A config is not JSON.
    #[error("{file} is not JSON: {source}")]
    Json {
        /// The file.
        file: String,
        /// Where the text breaks off.
        source: serde_json::Error,
    },
    /// A config is JSON but no object.
    #[error("{file}: expected an object of config keys, found {found}")]
    NotAnObject {
        /// The file.
        file: String,
        /// What the file holds.
        found: String,
    },
    /// A config belongs to another class.
    #[error("{file}: expected the config of {expected}, found {found}")]
    Class {
        /// The file.
        file: String,
        /// Classes that are read.
        expected: String,
        /// The class that the file names.
        found: String,
    },
    /// A config has keys that the class does not have.
    #[error("{file}: unknown keys {keys}; {class} has no such fields")]
    UnknownKeys {
        /// The file.
        file: String,
        /// The class and its library.
        class: String,
        /// The keys.
        keys: String,
    },
    /// A key that has no default is not there.
    #[error("{file}: key \"{key}\" is missing; expected {expected}")]
    MissingKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What it holds.
        expected: String,
    },
    /// The value of a key has another type.
    #[error("{file}: key \"{key}\": expected {expected}, found {found}")]
    WrongType {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The type that the key has.
        expected: String,
        /// The value as JSON.
        found: String,
    },
    /// The value of a key is not served.
    #[error("{file}: key \"{key}\": {value} is not supported; supported: {supported}")]
    Unsupported {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The value as JSON.
        value: String,
        /// What is served.
        supported: String,
    },
    /// A size that the model does not take.
    #[error("{what} {found} is not served: expected {expected}")]
    Size {
        /// What has the size.
        what: &'static str,
        /// The size.
        found: usize,
        /// Sizes that are served, the nearest ones named.
        expected: String,
    },
    /// The checkpoint is driven by a pipeline that does not exist yet.
    #[error(
        "the transformer takes {in_channels} channels and predicts {out_channels}: its pipeline is {pipeline}, which is not served yet; a single forward is"
    )]
    MissingPipeline {
        /// Channels that the transformer takes.
        in_channels: usize,
        /// Channels that it predicts.
        out_channels: usize,
        /// Class of the pipeline.
        pipeline: &'static str,
    },
    /// The offset of a scheduler leads beyond its noise table.
    #[error(
        "steps_offset {offset} moves the first of {steps} steps to {timestep}, beyond the last \
         training step {last}; take fewer steps"
    )]
    StepsOffset {
        /// `steps_offset`.
        offset: usize,
        /// Steps asked for.
        steps: usize,
        /// Time step that is not in the table.
        timestep: usize,
        /// Last training step.
        last: usize,
    },
    /// A step of the scheduler divides by zero.
    #[error(
        "{scheduler} cannot step from time step {timestep} with prediction_type {prediction}: the \
         noise table has no signal or no noise there"
    )]
    SingularStep {
        /// Class of the scheduler.
        scheduler: &'static str,
        /// `prediction_type`.
        prediction: &'static str,
        /// The time step.
        timestep: usize,
    },
    /// A path holds no model.
    #[error(
        "{folder}: no model there; expected model_index.json, the config.json of one component, or \
         component folders such as transformer"
    )]
    NotAModel {
        /// The path.
        folder: String,
    },
    /// A folder lacks a component that is needed.
    #[error("{folder} has no {component}; expected {expected}")]
    NoComponent {
        /// The folder.
        folder: String,
        /// Name of the component.
        component: &'static str,
        /// The file that would describe it.
        expected: String,
    },
    /// A checkpoint of a pipeline that is known but not served.
    #[error(
        "{file}: videos are not generated with {class} yet, only with {served}; one forward of its \
         transformer is served"
    )]
    PipelineNotServed {
        /// The file.
        file: String,
        /// The pipeline's class.
        class: &'static str,
        /// The class that is served.
        served: &'static str,
    },
    /// A tokenizer file is damaged or of another kind.
    #[error("{file}: not a T5 tokenizer: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text could not be tokenized.
    #[error("the text cannot be tokenized: {reason}")]
    Text {
        /// Why.
        reason: String,
    },
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] CompileError),
}
