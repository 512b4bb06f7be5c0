//! Reading and writing host tensors as safetensors files.
//!
//! Invariants: a file is written beside its destination and renamed, so that a failure leaves no
//! partial file; the bytes depend on names and tensors alone. Refused: element types without a host
//! form, integers that do not fit 32 bits.

use crate::weights::{StoredDType, TensorEntry, parse, to_f32};
use crate::{FileFault, HostTensor, RuntimeError, TensorData};
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads all tensors of the safetensors file at `path`.
///
/// Floating types of 16, 32 and 64 bits become f32; integers of 32 and 64 bits become u32.
///
/// # Errors
/// Names the file, and the tensor whose type or value has no host form.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, HostTensor>, RuntimeError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| FileFault::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = path.display().to_string();
    let mut tensors = BTreeMap::new();
    for entry in parse(&file, &bytes)? {
        let tensor = decode(&file, &entry, &bytes[entry.range.clone()])?;
        tensors.insert(entry.name, tensor);
    }
    Ok(tensors)
}

/// Writes `tensors` to the safetensors file at `path`, replacing it as a whole.
///
/// # Errors
/// When the folder of `path` does not exist or cannot be written; no file is left behind then.
pub fn write_tensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, HostTensor>,
) -> Result<(), RuntimeError> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.data() {
                TensorData::F32(_) => StoredDType::F32,
                TensorData::U32(_) => StoredDType::U32,
            };
            TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes()).map(|view| (name, view))
        })
        .collect::<Result<Vec<_>, _>>();
    let bytes = views
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|error| FileFault::Malformed {
            file: path.as_ref().display().to_string(),
            reason: error.to_string(),
        })?;
    write_file(path.as_ref(), &bytes)
}

/// Writes a file as a whole.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    terrace_plan::write_whole(path, bytes).map_err(|source| {
        let path = path.to_owned();
        FileFault::Write { path, source }.into()
    })
}

fn decode(file: &str, entry: &TensorEntry, bytes: &[u8]) -> Result<HostTensor, RuntimeError> {
    let shape = entry.shape.clone();
    if let Some(data) = to_f32(entry.dtype, bytes) {
        return HostTensor::f32(shape, data);
    }
    let ids: Option<Vec<i64>> = match entry.dtype {
        StoredDType::I64 => Some(words::<8>(bytes).map(i64::from_le_bytes).collect()),
        StoredDType::I32 => Some(
            words::<4>(bytes)
                .map(|b| i64::from(i32::from_le_bytes(b)))
                .collect(),
        ),
        StoredDType::U32 => Some(
            words::<4>(bytes)
                .map(|b| i64::from(u32::from_le_bytes(b)))
                .collect(),
        ),
        _ => None,
    };
    let Some(ids) = ids else {
        return Err(FileFault::StoredDType {
            file: file.to_owned(),
            tensor: entry.name.clone(),
            expected: "f32, f64, f16, bf16, i64, i32 or u32",
            found: format!("{:?}", entry.dtype).to_lowercase(),
        }
        .into());
    };
    let data = ids
        .into_iter()
        .map(|id| {
            u32::try_from(id).map_err(|_| FileFault::IntegerRange {
                file: file.to_owned(),
                tensor: entry.name.clone(),
                found: id,
            })
        })
        .collect::<Result<Vec<u32>, _>>()?;
    HostTensor::u32(shape, data)
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}
