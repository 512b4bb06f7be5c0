//! Fabrics by name: how the ranks of a generation reach each other.
//!
//! Refused: NCCL for ranks that are not on GPUs of NVIDIA.

use crate::{Device, Error};
use std::fmt;

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fabric {
    /// All are threads of this process.
    Local,
    /// Each is a process; data goes through memory of the hosts and TCP.
    Tcp,
    /// Each is a process with a GPU of its own; data goes by NCCL.
    Nccl,
}

impl Fabric {
    /// The one for ranks that are processes.
    pub const fn between_processes(device: &Device) -> Self {
        match device {
            Device::Cpu | Device::Wgpu { .. } => Self::Tcp,
            Device::Cuda { .. } => Self::Nccl,
        }
    }

    /// Makes sure that ranks on a device can use it.
    ///
    /// # Errors
    /// NCCL for anything but GPUs of NVIDIA.
    pub fn check(self, device: &Device) -> Result<(), Error> {
        match (self, device) {
            (Self::Nccl, Device::Cpu | Device::Wgpu { .. }) => Err(Error::FabricDevice {
                fabric: self,
                device: device.clone(),
            }),
            (Self::Nccl, Device::Cuda { .. }) | (Self::Local | Self::Tcp, _) => Ok(()),
        }
    }
}

impl fmt::Display for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Tcp => "tcp",
            Self::Nccl => "nccl",
        })
    }
}
