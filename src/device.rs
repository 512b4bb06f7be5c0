//! Devices: where the ranks of a pipeline run, as command lines and programs name it.
//!
//! A device is a name until a [`crate::Runner`] opens it, so every build knows all names. Ranks share
//! the device: any number of them runs on one processor, adapter or GPU; several GPUs take them in turn.
//!
//! Refused: names of other forms, a GPU that is named twice. What a build or a machine lacks is refused when it is opened.

use crate::Error;
use std::fmt;
use std::str::FromStr;

/// Where ranks run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor of this machine.
    #[default]
    Cpu,
    /// A GPU through Vulkan, Metal or DX12.
    Wgpu {
        /// Its number in the list of `terrace devices`.
        adapter: usize,
    },
    /// NVIDIA GPUs through CUDA.
    Cuda {
        /// Their numbers in the list of `terrace devices`; rank `r` works on number `r mod n` of `n`.
        gpus: Vec<usize>,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu { adapter } => write!(f, "wgpu:{adapter}"),
            Self::Cuda { gpus } => {
                let gpus: Vec<String> = gpus.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", gpus.join(","))
            }
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `cpu`, `wgpu`, `wgpu:N`, `cuda` or `cuda:N,..`; adapter 0 is the one that looks fastest.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::NoDevice {
            found: text.to_owned(),
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "wgpu" => Ok(Self::Wgpu { adapter: 0 }),
            None if text == "cuda" => Ok(Self::Cuda { gpus: vec![0] }),
            Some(("wgpu", adapter)) => Ok(Self::Wgpu {
                adapter: adapter.parse().map_err(|_| unknown())?,
            }),
            Some(("cuda", gpus)) => {
                let gpus = gpus.split(',').map(str::parse).collect::<Result<_, _>>();
                let gpus: Vec<usize> = gpus.map_err(|_| unknown())?;
                let twice = (1..gpus.len()).any(|at| gpus[..at].contains(&gpus[at]));
                if twice {
                    Err(unknown())
                } else {
                    Ok(Self::Cuda { gpus })
                }
            }
            None | Some(_) => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, device, shown) in [
            ("cpu", Device::Cpu, "cpu"),
            ("wgpu", Device::Wgpu { adapter: 0 }, "wgpu:0"),
            ("wgpu:3", Device::Wgpu { adapter: 3 }, "wgpu:3"),
            ("cuda", Device::Cuda { gpus: vec![0] }, "cuda:0"),
            ("cuda:2,0", Device::Cuda { gpus: vec![2, 0] }, "cuda:2,0"),
        ] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), shown);
        }
    }

    #[test]
    fn other_names_are_refused_with_those_that_exist() {
        for text in [
            "", "gpu", "cpu:0", "wgpu:", "wgpu:-1", "wgpu:0:1", "WGPU", "cuda:", "cuda:0,0",
            "cuda:a",
        ] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            let expected = format!("there is no device `{text}`; devices are cpu, wgpu, wgpu:N, ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
