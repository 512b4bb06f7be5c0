//! One device buffer that holds all operands of a test.
//!
//! Regions begin at odd places on demand; every element outside the regions that a test names as
//! written must survive the launch, and written regions are poisoned before it.

use std::sync::OnceLock;

use half::{bf16, f16};
use terrace_kernels::KernelError;
use terrace_kernels::cube::{Call, Device, Element, Operand, Queue};

pub use crate::device::{Buffer, FLOATS};
use crate::device::{Memory, TestQueue, open};

/// The queue that all tests share.
pub fn queue() -> &'static TestQueue {
    static QUEUE: OnceLock<TestQueue> = OnceLock::new();
    QUEUE.get_or_init(open)
}

/// A region of the arena.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    offset: usize,
    len: usize,
    element: Element,
}

/// Operands that are being collected.
pub struct Arena {
    bytes: Vec<u8>,
    skew: usize,
}

impl Arena {
    /// An arena whose regions begin `skew` elements behind a multiple of 64 bytes.
    pub fn new(skew: usize) -> Self {
        let bytes = Vec::new();
        Self { bytes, skew }
    }

    /// A region with these values, rounded to `element`.
    pub fn put(&mut self, element: Element, values: &[f32]) -> Region {
        let region = self.reserve(element, values.len());
        let size = element.bytes();
        let target = self.bytes[region.offset * size..].chunks_exact_mut(size);
        for (out, &value) in target.zip(values) {
            match element {
                Element::F32 => out.copy_from_slice(&value.to_le_bytes()),
                Element::F16 => out.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                Element::Bf16 => out.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                Element::U32 => panic!("{element} values are words"),
            }
        }
        region
    }

    /// A region with these words.
    pub fn words(&mut self, words: &[u32]) -> Region {
        let region = self.reserve(Element::U32, words.len());
        let target = self.bytes[region.offset * 4..].chunks_exact_mut(4);
        for (out, word) in target.zip(words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        region
    }

    /// A region that a kernel is to write.
    pub fn poison(&mut self, element: Element, len: usize) -> Region {
        self.reserve(element, len)
    }

    fn reserve(&mut self, element: Element, len: usize) -> Region {
        let size = element.bytes();
        let begin = self.bytes.len().next_multiple_of(64) + self.skew * size;
        // NaN in every type: whoever reads it by mistake spreads it.
        self.bytes.resize(begin + len * size + 32, 0xff);
        Region {
            offset: begin / size,
            len,
            element,
        }
    }

    /// Brings the arena to the device.
    pub fn upload(mut self) -> Loaded {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(4), 0xff);
        let memory = Memory::holding(queue(), &self.bytes);
        let bytes = self.bytes;
        Loaded { bytes, memory }
    }
}

/// An arena on the device.
pub struct Loaded {
    bytes: Vec<u8>,
    memory: Memory,
}

impl Loaded {
    pub fn device(&self) -> &Device<<TestQueue as Queue>::Runtime> {
        queue().device()
    }

    /// The operand of a region.
    pub fn at(&self, region: Region) -> Operand<Buffer> {
        Operand {
            buffer: self.memory.buffer(),
            offset: region.offset,
            len: region.len,
            element: region.element,
        }
    }

    /// Runs the calls, checks that only `written` changed, and returns its values, words as the f32 of
    /// their bits.
    pub fn run(&self, calls: Result<Vec<Call<Buffer>>, KernelError>, written: Region) -> Vec<f32> {
        self.run_with(calls, None, written)
    }

    /// As [`Loaded::run`], where the calls may leave anything in `scratch`, which is another region
    /// than `written`.
    pub fn run_with(
        &self,
        calls: Result<Vec<Call<Buffer>>, KernelError>,
        scratch: Option<Region>,
        written: Region,
    ) -> Vec<f32> {
        let queue = queue();
        for call in calls.unwrap() {
            let launch = queue.prepare(&call).unwrap();
            // SAFETY: tests give regions that overlap only where the call allows it.
            unsafe { queue.launch(&launch).unwrap() };
        }
        let mut bytes = self.memory.read(queue);
        if let Some(scratch) = scratch {
            let size = scratch.element.bytes();
            let range = scratch.offset * size..(scratch.offset + scratch.len) * size;
            bytes[range.clone()].copy_from_slice(&self.bytes[range]);
        }
        let size = written.element.bytes();
        let range = written.offset * size..(written.offset + written.len) * size;
        assert!(
            bytes[..range.start] == self.bytes[..range.start],
            "written in front"
        );
        assert!(
            bytes[range.end..] == self.bytes[range.end..],
            "written behind"
        );
        floats(written.element, &bytes[range])
    }
}

fn floats(element: Element, bytes: &[u8]) -> Vec<f32> {
    let chunks = bytes.chunks_exact(element.bytes());
    match element {
        Element::F32 => chunks
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        Element::F16 => chunks
            .map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
        Element::Bf16 => chunks
            .map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
        Element::U32 => chunks
            .map(|b| f32::from_bits(u32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
    }
}

/// The values as a device holds them.
pub fn rounded(element: Element, values: &[f32]) -> Vec<f32> {
    match element {
        Element::F16 => values.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
        Element::Bf16 => {
            let narrow = values.iter().map(|&v| bf16::from_f32(v).to_f32());
            narrow.collect()
        }
        Element::F32 | Element::U32 => values.to_vec(),
    }
}

/// Asserts that every element differs by at most `tolerance * max(1, |expected|)`, or in 16 bits by what
/// their rounding adds.
pub fn close(element: Element, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let rounding = match element {
        Element::F16 => 1e-3,
        Element::Bf16 => 8e-3,
        Element::F32 | Element::U32 => 0.0,
    };
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let most = (tolerance + rounding) * e.abs().max(1.0);
        // Written so that a NaN fails.
        assert!(
            (f - e).abs() <= most,
            "element {i}: found {f}, expected {e}"
        );
    }
}
