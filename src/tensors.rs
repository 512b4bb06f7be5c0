//! Tensors of the command line: safetensors in, safetensors out, and noise.

use crate::Error;
use std::collections::BTreeMap;
use std::path::Path;
use terrace_kernels::cpu::noise_fill;
use terrace_plan::DType;
use terrace_runtime::{HostTensor, TensorData, read_tensors, write_tensors};

/// All tensors of a file.
///
/// # Errors
/// The file cannot be read, or holds an element type without a host form.
pub fn read(path: &Path) -> Result<BTreeMap<String, HostTensor>, Error> {
    Ok(read_tensors(path)?)
}

/// The tensor `latents [b, f, c, h, w]` of a file.
///
/// # Errors
/// As for [`read`], or the file has no such tensor.
pub fn read_latents(path: impl AsRef<Path>) -> Result<HostTensor, Error> {
    let path = path.as_ref();
    let mut tensors = read(path)?;
    let Some(latents) = tensors.remove("latents") else {
        return Err(Error::NoTensor {
            file: path.to_owned(),
            tensor: "latents",
            shape: "[b,f,c,h,w]",
            found: tensors.into_keys().collect::<Vec<_>>().join(", "),
        });
    };
    as_f32(latents)
}

/// Writes one tensor under a name, replacing the file as a whole.
///
/// # Errors
/// The file cannot be written; nothing is left behind then.
pub fn write(path: &Path, name: &str, tensor: &HostTensor) -> Result<(), Error> {
    let tensors = BTreeMap::from([(name.to_owned(), tensor.clone())]);
    Ok(write_tensors(path, &tensors)?)
}

/// Refuses a path that cannot be written, before anything long begins.
///
/// # Errors
/// The path is a folder, or its folder does not exist or is not writable.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    terrace_plan::check_writable(path).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// A tensor of normal noise.
///
/// # Errors
/// There is no memory for it.
pub fn noise(shape: Vec<usize>) -> Result<HostTensor, Error> {
    let mut tensor = HostTensor::zeros(shape, DType::F32)?;
    noise_fill(0, 0, 0, tensor.as_f32_mut()?)?;
    Ok(tensor)
}

/// Integers, such as time steps, as numbers.
pub(crate) fn as_f32(tensor: HostTensor) -> Result<HostTensor, Error> {
    let (shape, data) = tensor.into_parts();
    let data = match data {
        TensorData::F32(data) => data,
        TensorData::U32(data) => data.into_iter().map(|n| n as f32).collect(),
    };
    Ok(HostTensor::f32(shape, data)?)
}
