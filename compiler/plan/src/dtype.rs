//! Element types of buffers, ports and tensors on disk.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Element type of a buffer, a port or a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Unsigned 32-bit integers: token ids and generator keys.
    U32,
    /// Signed 8-bit integers with a scale per row: weights of matrix products only.
    I8,
    /// OCP FP8 E4M3 (448 at most, no infinities) with a scale per row: weights of matrix products only.
    F8E4M3,
}

impl DType {
    /// Size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 | Self::F8E4M3 => 1,
        }
    }

    /// Whether the elements are floating numbers by themselves, without a scale.
    pub const fn is_floating(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::U32 | Self::I8 | Self::F8E4M3 => false,
        }
    }

    /// The lower-case name that text forms and files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
            Self::I8 => "i8",
            Self::F8E4M3 => "f8e4m3",
        }
    }

    /// The type with this lower-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::F32,
            Self::F16,
            Self::Bf16,
            Self::U32,
            Self::I8,
            Self::F8E4M3,
        ];
        all.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
