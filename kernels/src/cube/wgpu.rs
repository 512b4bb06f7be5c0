//! The queue of a Vulkan, Metal or DX12 device, through CubeCL's WebGPU client.
//!
//! Invariants: all queues of a device share one CubeCL stream, so launches of several threads run in the
//! order in which they were made. What CubeCL only logs, and what the driver reports later, is kept and
//! returned by the next synchronisation. Refused: operands behind their buffer, bindings larger than
//! the device allows, kernels that do not compile or share too much memory.

use std::collections::HashSet;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use cubecl::CubeTask;
use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use cubecl::stream_id::StreamId;
use cubecl::wgpu::{
    AutoCompiler, AutoRepresentation, RuntimeOptions, WgpuRuntime, WgpuSetup, WgslCompiler,
    init_device,
};

use super::call::{Call, Kernel};
use super::device::Device;
use super::queue::Queue;
use crate::{KernelError, check};

/// Steps in bytes at which every device can bind a buffer.
const BINDING: u64 = 256;

/// The stream of all queues.
const STREAM: StreamId = StreamId {
    value: u64::MAX / 2,
};

/// A queue of a device; clones share it.
#[derive(Clone)]
pub struct WgpuQueue(Arc<Shared>);

struct Shared {
    client: ComputeClient<WgpuRuntime>,
    device: Device<WgpuRuntime>,
    faults: Faults,
    compiled: Mutex<HashSet<KernelId>>,
}

/// Errors that no call returned.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Vec<String>>>);

/// A call with its addresses.
pub struct WgpuLaunch {
    kernel: Kernel,
    grid: [u32; 3],
    handles: Vec<Handle>,
    info: Vec<u64>,
}

impl WgpuQueue {
    /// The queue of a device that has just been opened.
    pub(super) fn start(setup: WgpuSetup) -> Self {
        let faults = Faults::default();
        setup
            .device
            .on_uncaptured_error(Arc::new(faults.recorder()));
        let lost = faults.clone();
        setup
            .device
            .set_device_lost_callback(move |_, reason| lost.record(reason));
        let info = setup.adapter.get_info();
        let device = init_device(setup, RuntimeOptions::default());
        let mut client = WgpuRuntime::client(&device);
        // SAFETY: the stream only groups work; every queue of this process uses the same one.
        unsafe { client.set_stream(STREAM) };
        Self(Arc::new(Shared {
            device: Device::new(client.clone(), format!("{} ({})", info.name, info.backend)),
            client,
            faults,
            compiled: Mutex::default(),
        }))
    }

    /// The client that owns the memory.
    pub fn client(&self) -> &ComputeClient<WgpuRuntime> {
        &self.0.client
    }

    /// Memory of `bytes` bytes with any content.
    ///
    /// # Errors
    /// [`KernelError::Device`] when the device cannot bind as much at once.
    pub fn empty(&self, bytes: usize) -> Result<Handle, KernelError> {
        self.fits(bytes as u64)?;
        Ok(self.0.client.empty(bytes))
    }

    /// Memory that holds `bytes`.
    ///
    /// # Errors
    /// As for [`WgpuQueue::empty`].
    pub fn upload(&self, bytes: &[u8]) -> Result<Handle, KernelError> {
        self.fits(bytes.len() as u64)?;
        Ok(self.0.client.create_from_slice(bytes))
    }

    /// The bytes of `handle` after all launches so far.
    ///
    /// # Errors
    /// As for [`Queue::synchronise`].
    pub fn download(&self, handle: Handle) -> Result<Vec<u8>, KernelError> {
        self.synchronise()?;
        let read = || self.0.client.read_one(handle).map(|bytes| bytes.to_vec());
        self.guard(read)
    }

    fn fits(&self, bytes: u64) -> Result<(), KernelError> {
        let most = self.0.client.properties().memory.max_page_size;
        if bytes <= most {
            return Ok(());
        }
        Err(self.failed(format!(
            "a buffer of {bytes} bytes is wanted, and it binds {most} at most"
        )))
    }

    fn failed(&self, reason: String) -> KernelError {
        KernelError::Device {
            device: self.0.device.name().to_owned(),
            reason,
        }
    }

    /// Turns errors and panics of the client into errors.
    fn guard<T, E: Display>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, KernelError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(first_lines(&error.to_string()))),
            Err(panic) => Err(self.failed(text(panic.as_ref()))),
        }
    }

    /// Lowers a kernel once, so that what CubeCL cannot express fails here and not on its thread.
    fn compile(&self, name: &'static str, kernel: &Kernel) -> Result<(), KernelError> {
        let mut compiled = self
            .0
            .compiled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let id = kernel.id();
        if compiled.contains(&id) {
            return Ok(());
        }
        let task = KernelTask::<AutoCompiler, Kernel>::new(kernel.clone());
        let lower = || {
            task.compile(
                &mut AutoCompiler::Wgsl(WgslCompiler::default()),
                &Default::default(),
                ExecutionMode::Unchecked,
                kernel.address_type(),
            )
        };
        let reason = match catch_unwind(AssertUnwindSafe(lower)) {
            Ok(Ok(lowered)) => match self.too_much_shared(lowered.repr.as_ref()) {
                None => {
                    compiled.insert(id);
                    return Ok(());
                }
                Some(reason) => reason,
            },
            Ok(Err(error)) => error.to_string(),
            Err(panic) => text(panic.as_ref()),
        };
        Err(KernelError::Compile {
            kernel: name,
            device: self.0.device.name().to_owned(),
            reason: first_lines(&reason),
        })
    }
}

impl WgpuQueue {
    /// Why a cube of this kernel does not fit the device.
    fn too_much_shared(&self, lowered: Option<&AutoRepresentation>) -> Option<String> {
        let most = self.0.client.properties().hardware.max_shared_memory_size;
        let wanted = match lowered? {
            AutoRepresentation::Wgsl(shader) => shader.shared_memory_bytes(),
        };
        (wanted > most).then(|| format!("a cube shares {wanted} bytes, and it has {most}"))
    }
}

impl Queue for WgpuQueue {
    type Runtime = WgpuRuntime;
    type Buffer = Handle;
    type Launch = WgpuLaunch;

    fn device(&self) -> &Device<WgpuRuntime> {
        &self.0.device
    }

    fn prepare(&self, call: &Call<Handle>) -> Result<WgpuLaunch, KernelError> {
        let mut handles = Vec::with_capacity(call.operands().len());
        let mut leads = Vec::with_capacity(call.operands().len());
        for operand in call.operands() {
            let bytes = operand.element.bytes() as u64;
            let (start, size) = (operand.offset as u64 * bytes, operand.buffer.size_in_used());
            let end = start + operand.len as u64 * bytes;
            if end > size {
                let (expected, found) = (end as usize, size as usize);
                return Err(KernelError::Length {
                    kernel: call.name(),
                    operand: "buffer, in bytes",
                    expected,
                    found,
                });
            }
            let bound = start / BINDING * BINDING;
            self.fits(end - bound)?;
            let handle = operand.buffer.clone();
            handles.push(handle.offset_start(bound).offset_end(size - end));
            leads.push(((start - bound) / bytes) as usize);
        }
        let info = call.info(&leads)?;
        self.compile(call.name(), call.kernel())?;
        let count = self.0.client.properties().hardware.max_cube_count;
        let grid = call.grid();
        if grid[0] > count.0 || grid[1] > count.1 || grid[2] > count.2 {
            let expected = format!("at most {count:?} cubes");
            let found = format!("{grid:?}");
            return Err(check::argument(call.name(), "grid", expected, found));
        }
        Ok(WgpuLaunch {
            kernel: call.kernel().clone(),
            grid,
            handles,
            info: info.data,
        })
    }

    unsafe fn launch(&self, launch: &WgpuLaunch) -> Result<(), KernelError> {
        let [x, y, z] = launch.grid;
        let bindings = launch.handles.iter().map(|h| h.clone().binding()).collect();
        // Kernels take arrays and scalars alone, so nothing of the block is sized at run time.
        let info = MetadataBindingInfo::new(launch.info.clone(), launch.info.len());
        let arguments = KernelArguments::new()
            .with_buffers(bindings)
            .with_info(info);
        let task = KernelTask::<AutoCompiler, Kernel>::new(launch.kernel.clone());
        let send = || {
            // SAFETY: a call is made by the builder of its kernel, which has checked that all indices
            // lie inside the operands; `prepare` has checked that those lie inside their buffers.
            unsafe {
                let count = CubeCount::Static(x, y, z);
                self.0
                    .client
                    .launch_unchecked(Box::new(task), count, arguments);
            }
            Ok::<(), KernelError>(())
        };
        self.guard(send)
    }

    fn synchronise(&self) -> Result<(), KernelError> {
        let waited = self.guard(|| block_on(self.0.client.sync()));
        match self.0.faults.take() {
            Some(reason) => Err(self.failed(reason)),
            None => waited,
        }
    }
}

impl Faults {
    fn record(&self, reason: String) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(reason);
    }

    /// The type of the errors is that of a library that only CubeCL names.
    fn recorder<E: Display>(&self) -> impl Fn(E) + Send + Sync + 'static + use<E> {
        let faults = self.clone();
        move |error| faults.record(error.to_string())
    }

    fn take(&self) -> Option<String> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *faults);
        all.first().map(|first| match all.len() {
            1 => first.clone(),
            more => format!("{first} (the first of {more} errors)"),
        })
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let string = panic.downcast_ref::<String>().map(String::as_str);
    let text = string.or_else(|| panic.downcast_ref::<&str>().copied());
    first_lines(text.unwrap_or("a panic without a message"))
}

/// CubeCL appends backtraces to its messages.
fn first_lines(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let lines: Vec<&str> = lines
        .take_while(|line| !line.starts_with("Backtrace"))
        .collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::{Activate, Element, Function, Operand, adapters};
    use super::*;

    /// A launch that the driver refuses is an error of the next synchronisation, and of that one alone.
    #[test]
    fn what_the_device_refuses_late_is_reported() -> Result<(), KernelError> {
        let queue = adapters()[0].open()?;
        let x = Operand {
            buffer: queue.upload(&[0; 64])?,
            offset: 0,
            len: 16,
            element: Element::F32,
        };
        let (function, y) = (Function::Silu, x.clone());
        let calls = Activate { function, x, y }.calls(queue.device())?;
        let good = queue.prepare(&calls[0])?;
        let mut bad = queue.prepare(&calls[0])?;
        bad.grid[0] = u32::MAX;
        // SAFETY: the operands lie in their buffer, and the kernel leaves units behind them idle.
        unsafe { queue.launch(&bad)? };
        assert!(matches!(
            queue.synchronise(),
            Err(KernelError::Device { .. })
        ));
        // SAFETY: the operands lie in their buffer.
        unsafe { queue.launch(&good)? };
        queue.synchronise()
    }
}
