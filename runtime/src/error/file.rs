//! What can be wrong with files of tensors: checkpoints, their indices, tensors of callers, results.

use std::path::PathBuf;

/// Why a file cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file ends before its last tensor.
    #[error(
        "{file} is truncated: its header promises {expected} bytes, it has {found}; download it \
         again"
    )]
    Truncated {
        /// The file.
        file: String,
        /// Length that the header promises, as far as it can be read.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// A file is not a legal safetensors file.
    #[error("{file} is not a legal safetensors file: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint folder does not exist.
    #[error("there is no checkpoint at {path}: expected a folder or a safetensors file", path = .path.display())]
    MissingFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder holds no weights.
    #[error(
        "{folder} holds no weights: expected `{expected}` or one of them with `.index.json`, {}",
        there(.found),
        folder = .folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// File names that are looked for.
        expected: String,
        /// Weight files that are there under other names.
        found: Vec<String>,
    },
    /// An index is not JSON with a `weight_map`.
    #[error("{index} is not an index of shards: {source}", index = .index.display())]
    MalformedIndex {
        /// The index.
        index: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An index names a file elsewhere.
    #[error("{index} names `{file}`, expected a file in its own folder", index = .index.display())]
    IndexLeavesFolder {
        /// The index.
        index: PathBuf,
        /// The name.
        file: String,
    },
    /// A shard is missing.
    #[error(
        "{index} puts {tensors} tensors into `{file}`, but there is no such file; download it",
        index = .index.display()
    )]
    IndexNamesMissingFile {
        /// The index.
        index: PathBuf,
        /// Name of the shard.
        file: String,
        /// Tensors that it would hold.
        tensors: usize,
    },
    /// A shard lacks a tensor of the index.
    #[error(
        "{index} puts tensor `{tensor}` into `{file}`, but it is not there; index and shards are \
         of different checkpoints",
        index = .index.display()
    )]
    IndexNamesMissingTensor {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        file: String,
    },
    /// A shard holds a tensor that the index does not list.
    #[error(
        "tensor `{tensor}` of {checkpoint} is in {file}, but the index does not list it there; \
         download the index again"
    )]
    IndexLacksTensor {
        /// The checkpoint.
        checkpoint: String,
        /// The tensor.
        tensor: String,
        /// The shard that holds it.
        file: String,
    },
    /// A tensor that the plan needs is missing.
    #[error("{checkpoint} has no tensor `{tensor}` among its {count}{}", similar(.close.as_deref()))]
    MissingTensor {
        /// The checkpoint.
        checkpoint: String,
        /// The tensor.
        tensor: String,
        /// A tensor with a similar name.
        close: Option<String>,
        /// Tensors of the checkpoint.
        count: usize,
    },
    /// A tensor has another element type.
    #[error("tensor `{tensor}` of {file} is {found}, expected {expected}")]
    StoredDType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Types that can be read.
        expected: &'static str,
        /// Type as stored.
        found: String,
    },
    /// A tensor has another shape.
    #[error(
        "tensor `{tensor}` of {file} has shape {found:?}, expected {expected:?}; the plan was \
         compiled for another checkpoint"
    )]
    StoredShape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Shape that the plan expects.
        expected: Vec<usize>,
        /// Shape as stored.
        found: Vec<usize>,
    },
    /// An integer does not fit 32 bits.
    #[error("tensor `{tensor}` of {file} holds {found}, expected 0 to 4294967295")]
    IntegerRange {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The integer.
        found: i64,
    },
}

fn there(names: &[String]) -> String {
    if names.is_empty() {
        return "found no weight file".to_owned();
    }
    format!("found `{}`", names.join("`, `"))
}

fn similar(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}
