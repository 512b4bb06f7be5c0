//! What a device lacks of what is asked of it: the device itself, memory, element types.
//!
//! Every fault says what was asked for, what there is, and what to do.

use terrace_plan::{DType, Rank, Region};

/// Why a device cannot do what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFault {
    /// There is no adapter of this number.
    #[error("there is no adapter wgpu:{adapter}; {}, or use --device cpu", choices(.found))]
    NoAdapter {
        /// Number asked for.
        adapter: usize,
        /// Names of all adapters, in order.
        found: Vec<String>,
    },
    /// A region is larger than what kernels can reach at once.
    #[error(
        "rank {rank}: its {} has {bytes} bytes, but kernels on {device} reach {limit} bytes of a \
         buffer at most; use more ranks, a smaller video, or --device cpu",
        .region.name()
    )]
    RegionSize {
        /// The rank.
        rank: Rank,
        /// The region.
        region: Region,
        /// Its size.
        bytes: usize,
        /// Bytes of the largest buffer.
        limit: u64,
        /// Name of the device.
        device: String,
    },
    /// A weight is larger than what kernels can reach at once.
    #[error(
        "weight `{weight}` has {bytes} bytes, but kernels on {device} reach {limit} bytes of a buffer \
         at most; use a narrower --dtype, or --device cpu"
    )]
    WeightSize {
        /// Name of its first tensor.
        weight: String,
        /// Its size.
        bytes: usize,
        /// Bytes of the largest buffer.
        limit: u64,
        /// Name of the device.
        device: String,
    },
    /// The device cannot store elements of a type.
    #[error(
        "{what} is {dtype}, but {device} has {} only; use another --dtype, or --device cpu",
        names(.has)
    )]
    ElementType {
        /// What has the type.
        what: String,
        /// The type.
        dtype: DType,
        /// Name of the device.
        device: String,
        /// Types that it has.
        has: Vec<DType>,
    },
    /// A region has no memory at this address.
    #[error("no memory of {device} has address {address}; this is a bug, please report it")]
    Unmapped {
        /// The address.
        address: usize,
        /// Name of the device.
        device: String,
    },
}

fn names(types: &[DType]) -> String {
    let names: Vec<&str> = types.iter().map(|dtype| dtype.name()).collect();
    names.join(" and ")
}

fn choices(found: &[String]) -> String {
    if found.is_empty() {
        return "none was found: install a driver for Vulkan, Metal or DX12 (the software one of Debian \
                is the package mesa-vulkan-drivers)"
            .to_owned();
    }
    let named = found.iter().enumerate();
    let named: Vec<String> = named.map(|(i, name)| format!("wgpu:{i} {name}")).collect();
    format!("use {}", named.join(" or "))
}
