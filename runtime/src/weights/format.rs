//! The safetensors container: a header of names, types, shapes and byte ranges, then the bytes.
//!
//! Refuses headers that do not parse, ranges that do not fit their shapes, and files that are
//! shorter or longer than their header says. An entry that passed is in range of its file.

use crate::{FileFault, RuntimeError};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use std::ops::Range;

/// One tensor of a safetensors file.
#[derive(Clone, Debug)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Bytes of the tensor, counted from the beginning of the file.
    pub(crate) range: Range<usize>,
}

/// Reads the header of the safetensors file `bytes`, which errors call `file`.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Vec<TensorEntry>, RuntimeError> {
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| diagnose(file, bytes, &error))?;
    let base = header + 8;
    let mut entries = Vec::new();
    for name in metadata.offset_keys() {
        if let Some(info) = metadata.info(&name) {
            entries.push(TensorEntry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: base + info.data_offsets.0..base + info.data_offsets.1,
                name,
            });
        }
    }
    Ok(entries)
}

fn diagnose(file: &str, bytes: &[u8], error: &SafeTensorError) -> FileFault {
    let file = file.to_owned();
    match (error, expected_len(bytes)) {
        (_, Some(expected)) if expected > bytes.len() as u64 => FileFault::Truncated {
            file,
            expected,
            found: bytes.len() as u64,
        },
        _ => FileFault::Malformed {
            file,
            reason: error.to_string(),
        },
    }
}

/// Length of the file as its own header states it, as far as the header can be read.
fn expected_len(bytes: &[u8]) -> Option<u64> {
    let Some(prefix) = bytes.first_chunk::<8>() else {
        return Some(8);
    };
    let header = u64::from_le_bytes(*prefix);
    // The format limits headers to 100 MB; a larger number is not a length but garbage.
    if header > 100_000_000 {
        return None;
    }
    let stop = header + 8;
    let Some(text) = bytes.get(8..stop as usize) else {
        return Some(stop);
    };
    let header: serde_json::Value = serde_json::from_slice(text).ok()?;
    let ends = header
        .as_object()?
        .values()
        .filter_map(|tensor| tensor.get("data_offsets")?.as_array()?.get(1)?.as_u64());
    stop.checked_add(ends.max().unwrap_or(0))
}
