//! Adapters: the devices that Vulkan, Metal and DX12 offer on this machine, in one order.
//!
//! Invariants: the same machine lists the same adapters in the same order, hardware before software and
//! discrete before integrated; an adapter is opened once in a process. Refused: adapters whose driver
//! makes no device.

use std::sync::{Mutex, OnceLock, PoisonError};

use cubecl::future::block_on;
use cubecl::wgpu::WgpuSetup;
use wgpu::{Backends, DeviceDescriptor, DeviceType, Features, Instance, InstanceDescriptor};

use super::operand::Element;
use super::wgpu::WgpuQueue;
use crate::KernelError;

/// Adapters that are open, by their place in the list.
static OPEN: Mutex<Vec<(usize, WgpuQueue)>> = Mutex::new(Vec::new());

/// A device that can be opened.
#[derive(Debug, Clone)]
pub struct Adapter {
    index: usize,
    instance: Instance,
    adapter: wgpu::Adapter,
}

/// All adapters, the one that looks fastest first; looked for once in a process.
pub fn adapters() -> &'static [Adapter] {
    static FOUND: OnceLock<Vec<Adapter>> = OnceLock::new();
    FOUND.get_or_init(find)
}

fn find() -> Vec<Adapter> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = Instance::new(InstanceDescriptor {
        backends,
        ..InstanceDescriptor::new_without_display_handle()
    });
    let mut found = block_on(instance.enumerate_adapters(backends));
    found.sort_by_key(|adapter| order(adapter.get_info().device_type));
    let numbered = found.into_iter().enumerate();
    numbered
        .map(|(index, adapter)| Adapter {
            index,
            instance: instance.clone(),
            adapter,
        })
        .collect()
}

impl Adapter {
    /// What the driver calls it, and the interface through which it is reached.
    #[must_use]
    pub fn name(&self) -> String {
        let info = self.adapter.get_info();
        format!("{} ({})", info.name, info.backend)
    }

    /// What kind of device it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.adapter.get_info().device_type {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Cpu => "software",
            DeviceType::Other => "unknown kind",
        }
    }

    /// Name and version of the driver, as far as it tells.
    #[must_use]
    pub fn driver(&self) -> String {
        let info = self.adapter.get_info();
        let told = [info.driver, info.driver_info];
        let told: Vec<&str> = told.iter().map(|text| text.trim()).collect();
        told.join(" ").trim().to_owned()
    }

    /// Floating-point types that kernels can store.
    #[must_use]
    pub fn elements(&self) -> Vec<Element> {
        let half = self.adapter.features().contains(Features::SHADER_F16);
        match half {
            true => vec![Element::F32, Element::F16],
            false => vec![Element::F32],
        }
    }

    /// Bytes that one operand of a kernel, and one allocation, may have.
    #[must_use]
    pub fn largest_buffer(&self) -> u64 {
        let limits = self.adapter.limits();
        limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size)
    }

    /// The queue of the adapter, which is opened if it is not.
    ///
    /// # Errors
    /// [`KernelError::Device`] when its driver makes no device.
    pub fn open(&self) -> Result<WgpuQueue, KernelError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, queue)) = open.iter().find(|(index, _)| *index == self.index) {
            return Ok(queue.clone());
        }
        let request = self.adapter.request_device(&DeviceDescriptor {
            required_features: self
                .adapter
                .features()
                .difference(Features::MAPPABLE_PRIMARY_BUFFERS)
                .difference(Features::all_experimental_mask()),
            required_limits: self.adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..DeviceDescriptor::default()
        });
        let (device, queue) = block_on(request).map_err(|error| KernelError::Device {
            device: self.name(),
            reason: error.to_string(),
        })?;
        let queue = WgpuQueue::start(WgpuSetup {
            instance: self.instance.clone(),
            adapter: self.adapter.clone(),
            device,
            queue,
            backend: self.adapter.get_info().backend,
        });
        open.push((self.index, queue.clone()));
        Ok(queue)
    }
}

/// Fast kinds of devices come first.
const fn order(kind: DeviceType) -> usize {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}
