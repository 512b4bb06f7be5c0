//! The GPU, and numbers in its memory.

use half::{bf16, f16};
use std::sync::OnceLock;
use terrace_kernels::cuda::{
    Blas, Device, DeviceMemory, Float, Priority, ProductKind, ProductOperands,
};

pub const FLOATS: [Float; 3] = [Float::F32, Float::F16, Float::Bf16];

/// The GPU that all tests share.
pub fn gpu() -> &'static Device {
    static GPU: OnceLock<Device> = OnceLock::new();
    GPU.get_or_init(|| {
        let name = std::env::var("TERRACE_TEST_DEVICE").unwrap_or_default();
        let number = match name.split_once(':') {
            Some(("cuda", number)) => number.parse().ok(),
            None if name == "cuda" => Some(0),
            None | Some(_) => None,
        };
        Device::open(number.expect("TERRACE_TEST_DEVICE is cuda or cuda:N")).unwrap()
    })
}

/// Computes a product of cublasLt.
///
/// # Safety
/// All operands are allocated until it returns, and nobody else uses them.
pub unsafe fn multiply(kind: ProductKind, rows: usize, operands: ProductOperands) {
    let stream = gpu().stream(Priority::Normal).unwrap();
    let blas = Blas::open(gpu()).unwrap();
    let product = blas.prepare(kind, rows, operands).unwrap();
    // SAFETY: the caller's promise; the queue is waited for.
    unsafe { product.run(&stream) }.unwrap();
    stream.synchronize().unwrap();
}

/// Memory that holds the numbers in a type.
pub fn put(float: Float, values: &[f32]) -> DeviceMemory {
    let bytes: Vec<u8> = match float {
        Float::F32 => values.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Float::F16 => {
            let halves = values.iter().map(|&x| f16::from_f32(x).to_ne_bytes());
            halves.flatten().collect()
        }
        Float::Bf16 => {
            let halves = values.iter().map(|&x| bf16::from_f32(x).to_ne_bytes());
            halves.flatten().collect()
        }
    };
    let mut memory = gpu().allocate("a test", bytes.len()).unwrap();
    memory.fill(&bytes).unwrap();
    memory
}

/// Memory for `len` numbers, all of whose bits are set: no number.
pub fn poison(float: Float, len: usize) -> DeviceMemory {
    let bytes = vec![0xff; len * float.bytes()];
    let mut memory = gpu().allocate("a test", bytes.len()).unwrap();
    memory.fill(&bytes).unwrap();
    memory
}

/// The numbers in the memory.
pub fn get(float: Float, memory: &DeviceMemory) -> Vec<f32> {
    let bytes = memory.read().unwrap();
    let halves = bytes.as_chunks::<2>().0.iter();
    match float {
        Float::F32 => {
            let words = bytes.as_chunks::<4>().0.iter();
            words.map(|&b| f32::from_ne_bytes(b)).collect()
        }
        Float::F16 => halves.map(|&b| f16::from_ne_bytes(b).to_f32()).collect(),
        Float::Bf16 => halves.map(|&b| bf16::from_ne_bytes(b).to_f32()).collect(),
    }
}

/// The numbers as the type holds them.
pub fn rounded(float: Float, values: &[f32]) -> Vec<f32> {
    let round = |&x: &f32| match float {
        Float::F32 => x,
        Float::F16 => f16::from_f32(x).to_f32(),
        Float::Bf16 => bf16::from_f32(x).to_f32(),
    };
    values.iter().map(round).collect()
}

/// Asserts that all numbers differ by at most what rounding to the type and sums of f32 make.
pub fn close(float: Float, what: &str, found: &[f32], expected: &[f32]) {
    let most = match float {
        Float::F32 => 1e-5,
        Float::F16 => 2e-3,
        Float::Bf16 => 1.2e-2,
    };
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (&f, &e)) in found.iter().zip(expected).enumerate() {
        // Written so that a NaN fails.
        let near = (f - e).abs() <= most * e.abs().max(1.0);
        assert!(
            near,
            "{what}, {float}, element {index}: found {f}, expected {e}"
        );
    }
}
