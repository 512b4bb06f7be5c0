//! The queue of an NVIDIA GPU for CubeCL kernels: compiled by NVRTC, launched on a stream.
//!
//! Invariants: a kernel is compiled once per process and device, and once per machine where the cache
//! folder can be written; a prepared call holds all that its launch passes, so launching neither
//! allocates nor decides. Refused: operands behind their memory, kernels that do not compile.

use super::cubin_cache::{CubinCache, CubinKey};
use super::device::Device;
use super::driver_call;
use super::fault::CudaFault;
use super::memory::DeviceAddress;
use super::nvrtc::Nvrtc;
use super::source::Source;
use super::stream::Stream;
use crate::cube::{Call, Device as Target, Queue};
use crate::{KernelError, check};
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::prelude::{KernelId, KernelMetadata};
use cudarc::driver::{CudaFunction, result, sys};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared memory of a block that needs no permission.
const SHARED: usize = 48 << 10;
/// Blocks along each dimension of a grid at most.
const GRID: [u32; 3] = [i32::MAX as u32, u16::MAX as u32, u16::MAX as u32];

/// Memory of a device that operands lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaBuffer {
    /// First byte.
    pub address: DeviceAddress,
    /// Number of bytes.
    pub bytes: usize,
}

/// The kernels of one device, compiled when they are first asked for.
pub struct CudaKernels {
    device: Device,
    target: Target<CudaRuntime>,
    nvrtc: Nvrtc,
    cache: CubinCache,
    /// Looked up, never walked through.
    loaded: Mutex<HashMap<KernelId, Arc<Loaded>>>,
}

/// A kernel on the device.
struct Loaded {
    function: CudaFunction,
    block: [u32; 3],
    shared: u32,
}

impl std::fmt::Debug for CudaKernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaKernels").finish_non_exhaustive()
    }
}

impl CudaKernels {
    /// The kernels of `device`, with the machine code that `cache` holds.
    ///
    /// # Errors
    /// When NVRTC or its headers are absent, or CubeCL does not know the device.
    pub fn open(device: &Device, cache: CubinCache) -> Result<Self, CudaFault> {
        let nvrtc = Nvrtc::open()?;
        let ordinal = device.ordinal();
        // CubeCL's client only says what the device is; it queues nothing and allocates nothing.
        let client = catch_unwind(|| CudaRuntime::client(&CudaDevice::new(ordinal)));
        let client = client.map_err(|_| CudaFault::Call {
            library: super::Library::Driver,
            call: "asking for the properties of the device",
            reason: "CubeCL panicked".to_owned(),
        })?;
        Ok(Self {
            device: device.clone(),
            target: Target::new(client, format!("CUDA device {ordinal}")),
            nvrtc,
            cache,
            loaded: Mutex::default(),
        })
    }

    /// What kernels must know of the device.
    pub const fn target(&self) -> &Target<CudaRuntime> {
        &self.target
    }

    fn load<B>(&self, call: &Call<B>) -> Result<Arc<Loaded>, CudaFault> {
        let id = call.kernel().id();
        // Whole insertions alone change the map, so a panic elsewhere leaves it sound.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = loaded.get(&id) {
            return Ok(Arc::clone(kernel));
        }
        let kernel = Arc::new(self.compile(call)?);
        loaded.insert(id, Arc::clone(&kernel));
        Ok(kernel)
    }

    fn compile<B>(&self, call: &Call<B>) -> Result<Loaded, CudaFault> {
        let source = Source::of(call.name(), call.kernel(), self.device.capability())?;
        let architecture = self.device.architecture();
        let version = self.nvrtc.version().to_string();
        let key = CubinKey::new(&source.text, &[&architecture, &version]);
        if let Some(code) = self.cache.get(key)
            && let Ok(kernel) = self.place(&source, code)
        {
            return Ok(kernel);
        }
        let cubin = self
            .nvrtc
            .compile(call.name(), &source.text, &architecture, &[])?;
        self.cache.put(key, &cubin.code);
        self.place(&source, cubin.code)
    }

    /// Brings machine code to the device.
    fn place(&self, source: &Source, code: Vec<u8>) -> Result<Loaded, CudaFault> {
        let module = self.device.context().load_module(Ptx::from_binary(code));
        let module = module.map_err(|error| driver_call("cuModuleLoadData", error))?;
        let function = module.load_function(&source.entry);
        let function = function.map_err(|error| driver_call("cuModuleGetFunction", error))?;
        if source.shared > SHARED {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(source.shared).unwrap_or(i32::MAX);
            function
                .set_attribute(most, bytes)
                .map_err(|error| driver_call("cuFuncSetAttribute", error))?;
        }
        Ok(Loaded {
            function,
            block: source.block,
            shared: u32::try_from(source.shared).unwrap_or(u32::MAX),
        })
    }
}

/// A stream that takes CubeCL kernels.
#[derive(Clone, Debug)]
pub struct CudaQueue {
    kernels: Arc<CudaKernels>,
    stream: Stream,
}

/// A call with its addresses.
pub struct CudaLaunch {
    kernel: Arc<Loaded>,
    grid: [u32; 3],
    addresses: Vec<u64>,
    info: Vec<u64>,
}

impl std::fmt::Debug for CudaLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaLaunch").finish_non_exhaustive()
    }
}

impl CudaQueue {
    /// A queue that launches `kernels` on `stream` of the same device.
    pub const fn new(kernels: Arc<CudaKernels>, stream: Stream) -> Self {
        Self { kernels, stream }
    }

    /// The stream.
    pub const fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Queue for CudaQueue {
    type Runtime = CudaRuntime;
    type Buffer = CudaBuffer;
    type Launch = CudaLaunch;

    fn device(&self) -> &Target<CudaRuntime> {
        self.kernels.target()
    }

    fn prepare(&self, call: &Call<CudaBuffer>) -> Result<CudaLaunch, KernelError> {
        let mut addresses = Vec::with_capacity(call.operands().len());
        for operand in call.operands() {
            let size = operand.element.bytes();
            let (start, end) = (operand.offset * size, (operand.offset + operand.len) * size);
            if end > operand.buffer.bytes {
                return Err(KernelError::Length {
                    kernel: call.name(),
                    operand: "buffer, in bytes",
                    expected: end,
                    found: operand.buffer.bytes,
                });
            }
            addresses.push(operand.buffer.address.plus(start).0);
        }
        let grid = call.grid();
        if grid.iter().zip(GRID).any(|(side, most)| *side > most) {
            let (expected, found) = (format!("at most {GRID:?} blocks"), format!("{grid:?}"));
            return Err(check::argument(call.name(), "grid", expected, found));
        }
        // Every operand is bound where it begins.
        let info = call.info(&vec![0; addresses.len()])?;
        Ok(CudaLaunch {
            kernel: self.kernels.load(call)?,
            grid,
            addresses,
            info: info.data,
        })
    }

    unsafe fn launch(&self, launch: &CudaLaunch) -> Result<(), KernelError> {
        self.stream.device().bind()?;
        let pointers = launch.addresses.iter().map(|a| (&raw const *a).cast_mut());
        let mut parameters: Vec<*mut c_void> = pointers.map(<*mut u64>::cast).collect();
        parameters.push(launch.info.as_ptr().cast_mut().cast());
        let [x, y, z] = launch.kernel.block;
        // SAFETY: the parameters are those of the kernel's text: one address per array, then the block
        // of lengths and numbers by value; the driver copies them before it returns. The builder of the
        // call has checked that all indices lie inside the operands, `prepare` that those lie inside
        // their buffers; the caller vouches for the rest.
        let launched = unsafe {
            result::launch_kernel(
                launch.kernel.function.cu_function(),
                launch.grid.into(),
                (x, y, z),
                launch.kernel.shared,
                self.stream.raw(),
                &mut parameters,
            )
        };
        Ok(launched.map_err(|error| driver_call("cuLaunchKernel", error))?)
    }

    fn synchronise(&self) -> Result<(), KernelError> {
        Ok(self.stream.synchronize()?)
    }
}
