//! The device of the suite: an adapter of wgpu, or, in builds without wgpu, the GPU of NVIDIA's that
//! `TERRACE_TEST_DEVICE` names (`cuda` or `cuda:N`).

#[cfg(not(feature = "wgpu"))]
pub use nvidia::{Buffer, FLOATS, Memory, TestQueue, open};
#[cfg(feature = "wgpu")]
pub use portable::{Buffer, FLOATS, Memory, TestQueue, open};

#[cfg(feature = "wgpu")]
mod portable {
    use cubecl::server::Handle;
    use terrace_kernels::cube::{Element, WgpuQueue, adapters};

    /// Element types that every test runs with.
    pub const FLOATS: [Element; 2] = [Element::F32, Element::F16];

    pub type TestQueue = WgpuQueue;
    pub type Buffer = Handle;

    pub fn open() -> TestQueue {
        adapters()[0].open().unwrap()
    }

    /// One buffer of the device.
    pub struct Memory(Handle);

    impl Memory {
        pub fn holding(queue: &TestQueue, bytes: &[u8]) -> Self {
            Self(queue.upload(bytes).unwrap())
        }

        pub fn buffer(&self) -> Buffer {
            self.0.clone()
        }

        /// The bytes after all launches so far.
        pub fn read(&self, queue: &TestQueue) -> Vec<u8> {
            queue.download(self.buffer()).unwrap()
        }
    }
}

#[cfg(not(feature = "wgpu"))]
mod nvidia {
    use std::sync::Arc;
    use terrace_kernels::cube::{Element, Queue};
    use terrace_kernels::cuda::{
        CubinCache, CudaBuffer, CudaKernels, CudaQueue, Device, DeviceMemory, Priority,
    };

    /// Element types that every test runs with.
    pub const FLOATS: [Element; 3] = [Element::F32, Element::F16, Element::Bf16];

    pub type TestQueue = CudaQueue;
    pub type Buffer = CudaBuffer;

    pub fn open() -> TestQueue {
        let name = std::env::var("TERRACE_TEST_DEVICE").unwrap_or_default();
        let number = match name.split_once(':') {
            None if name == "cuda" => Some(0),
            Some(("cuda", number)) => number.parse().ok(),
            None | Some(_) => None,
        };
        let number =
            number.expect("TERRACE_TEST_DEVICE is cuda or cuda:N, and there is such a GPU");
        let device = Device::open(number).unwrap();
        let kernels = CudaKernels::open(&device, CubinCache::of_user()).unwrap();
        CudaQueue::new(Arc::new(kernels), device.stream(Priority::Normal).unwrap())
    }

    /// One allocation of the device. It is never given back: operands are numbers, and a test may keep
    /// one longer than its arena.
    pub struct Memory(&'static DeviceMemory);

    impl Memory {
        pub fn holding(queue: &TestQueue, bytes: &[u8]) -> Self {
            let device = queue.stream().device();
            let mut memory = device.allocate("a test", bytes.len()).unwrap();
            memory.fill(bytes).unwrap();
            Self(Box::leak(Box::new(memory)))
        }

        pub fn buffer(&self) -> Buffer {
            CudaBuffer {
                address: self.0.address(),
                bytes: self.0.bytes(),
            }
        }

        /// The bytes after all launches so far.
        pub fn read(&self, queue: &TestQueue) -> Vec<u8> {
            queue.synchronise().unwrap();
            self.0.read().unwrap()
        }
    }
}
