//! Weights on the GPUs of a backend.
//!
//! Invariants: every GPU has a copy of its own, whatever the number of ranks on it. Products keep the
//! type that the plan gives their weights, all others are f32; a 16-bit convolution lies in memory both
//! as cuDNN reads it and as the kernel for f32 activations does; FP8 lies as codes with scales apart. Vectors are narrowed for a library
//! when the first call asks for it.

use super::fp8::Codes;
use super::gpu::Gpu;
use super::memory::at;
use super::route::float;
use crate::backend::cube::{CubeWeight, element, pack};
use crate::backend::resolved::Layout;
use crate::weights::{Joined, elements};
use crate::{Checkpoint, DeviceFault, ResolveFault, RuntimeError};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use terrace_kernels::cube::Element;
use terrace_kernels::cuda::{CudaBuffer, DeviceAddress, DeviceMemory, Float};
use terrace_plan::{DType, Weight, WeightLayout};

/// A weight on all GPUs.
#[derive(Debug)]
pub struct CudaWeight {
    layout: WeightLayout,
    dtype: DType,
    /// In the order of the backend's GPUs.
    copies: Vec<Copy>,
}

/// A weight on one GPU.
#[derive(Debug)]
pub(super) struct Copy {
    cube: Arc<CubeWeight<CudaBuffer>>,
    /// A convolution as cuDNN reads it: `[cout, kt, kh, kw, cin]`.
    taps: Option<DeviceMemory>,
    /// Those of the rows of a weight in FP8: f32 `[n]`.
    scales: Option<DeviceMemory>,
    narrow: Mutex<BTreeMap<Float, DeviceMemory>>,
    memory: DeviceMemory,
}

impl Layout for CudaWeight {
    fn layout(&self) -> WeightLayout {
        self.layout
    }
}

impl CudaWeight {
    pub(super) fn load(
        gpus: &[Arc<Gpu>],
        checkpoint: &Checkpoint,
        weight: &Weight,
    ) -> Result<Self, RuntimeError> {
        let dtype = weight.dtype;
        let copies = match weight.layout {
            WeightLayout::Linear if dtype == DType::F8E4M3 => quantized(gpus, checkpoint, weight),
            WeightLayout::Plain if weight.boxes.is_empty() => {
                streamed(gpus, checkpoint, weight, DType::F32)
            }
            WeightLayout::Linear if weight.boxes.is_empty() => {
                streamed(gpus, checkpoint, weight, dtype)
            }
            WeightLayout::Plain | WeightLayout::Linear | WeightLayout::Conv3d => {
                let products = element(dtype).ok_or_else(|| lacking(gpus, weight))?;
                packed(gpus, checkpoint, weight, products)
            }
        };
        Ok(Self {
            layout: weight.layout,
            dtype,
            copies: copies?,
        })
    }

    /// Element type of products with the weight.
    pub(super) const fn dtype(&self) -> DType {
        self.dtype
    }

    /// The weight on the GPU of this number.
    ///
    /// # Errors
    /// When the backend has no such GPU.
    pub(super) fn on(&self, gpu: usize) -> Result<&Copy, RuntimeError> {
        let found = self.copies.len();
        let copy = self.copies.get(gpu);
        copy.ok_or_else(|| ResolveFault::NoCopy { gpu, found }.into())
    }
}

impl Copy {
    fn new(
        weight: &Weight,
        memory: DeviceMemory,
        element: Element,
        taps: Option<DeviceMemory>,
    ) -> Self {
        let operand = at(memory.address(), memory.bytes() / element.bytes(), element);
        let layout = weight.layout;
        Self {
            cube: Arc::new(CubeWeight { operand, layout }),
            taps,
            scales: None,
            narrow: Mutex::default(),
            memory,
        }
    }

    /// The weight as the kernels of `terrace-kernels` read it.
    pub(super) const fn cube(&self) -> &Arc<CubeWeight<CudaBuffer>> {
        &self.cube
    }

    /// The elements as they lie.
    pub(super) const fn address(&self) -> DeviceAddress {
        self.memory.address()
    }

    /// A convolution as cuDNN reads it, if it has 16 bits.
    pub(super) fn taps(&self) -> Option<DeviceAddress> {
        self.taps.as_ref().map(DeviceMemory::address)
    }

    /// The scales of a weight in FP8.
    pub(super) fn scales(&self) -> Option<DeviceAddress> {
        self.scales.as_ref().map(DeviceMemory::address)
    }

    /// A vector of f32 in another type.
    ///
    /// # Errors
    /// When the device fails or its memory runs out.
    pub(super) fn vector(&self, float: Float) -> Result<DeviceAddress, RuntimeError> {
        if float == Float::F32 {
            return Ok(self.address());
        }
        // Whole insertions alone change the map, so a panic elsewhere leaves it sound.
        let mut narrow = self.narrow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = narrow.get(&float) {
            return Ok(memory.address());
        }
        let wide = self.memory.read()?;
        let numbers = wide
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f32::from_ne_bytes(b));
        let bytes = narrowed(float, numbers);
        let mut memory = self.memory.device().allocate("a bias", bytes.len())?;
        memory.fill(&bytes)?;
        let address = memory.address();
        narrow.insert(float, memory);
        Ok(address)
    }
}

/// A weight that lies on the device as it is stored, but for its type: it goes there piece by piece.
fn streamed(
    gpus: &[Arc<Gpu>],
    checkpoint: &Checkpoint,
    weight: &Weight,
    dtype: DType,
) -> Result<Vec<Copy>, RuntimeError> {
    let joined = Joined::new(checkpoint, weight)?;
    let (what, size) = (describe(weight), dtype.bytes());
    let element = element(dtype).ok_or_else(|| lacking(gpus, weight))?;
    let copies = gpus.iter().map(|gpu| {
        let make = |range: Range<usize>, piece: &mut [u8]| {
            Ok(joined.write(range.start / size, dtype, piece)?)
        };
        let memory = gpu.filled(&what, joined.len() * size, make)?;
        Ok(Copy::new(weight, memory, element, None))
    });
    copies.collect()
}

/// A weight that becomes codes of FP8, four to a word.
fn quantized(
    gpus: &[Arc<Gpu>],
    checkpoint: &Checkpoint,
    weight: &Weight,
) -> Result<Vec<Copy>, RuntimeError> {
    let Codes { codes, scales } = Codes::of(weight, &elements(checkpoint, weight)?)?;
    let what = describe(weight);
    let copies = gpus.iter().map(|gpu| {
        let memory = filled(gpu, &what, &codes)?;
        Ok(Copy {
            scales: Some(filled(gpu, &what, &scales)?),
            ..Copy::new(weight, memory, Element::U32, None)
        })
    });
    copies.collect()
}

/// A weight that is cut or packed by the host first.
fn packed(
    gpus: &[Arc<Gpu>],
    checkpoint: &Checkpoint,
    weight: &Weight,
    products: Element,
) -> Result<Vec<Copy>, RuntimeError> {
    let data = elements(checkpoint, weight)?;
    let (element, bytes) = pack(weight, products, &data)?;
    let taps = taps(weight, &data);
    let what = describe(weight);
    let copies = gpus.iter().map(|gpu| {
        let memory = filled(gpu, &what, &bytes)?;
        let taps = taps.as_ref().map(|taps| filled(gpu, &what, taps));
        Ok(Copy::new(weight, memory, element, taps.transpose()?))
    });
    copies.collect()
}

/// The error for a weight of a type that has no kernels.
fn lacking(gpus: &[Arc<Gpu>], weight: &Weight) -> DeviceFault {
    let number = gpus.first().map_or(0, |gpu| gpu.device().ordinal());
    DeviceFault::ElementType {
        what: describe(weight),
        dtype: weight.dtype,
        device: format!("CUDA device {number}"),
        has: vec![DType::F32, DType::F16, DType::Bf16],
    }
}

fn describe(weight: &Weight) -> String {
    let name = weight.sources.first().map_or("", |source| &source.name);
    format!("weight `{name}`")
}

fn filled(gpu: &Gpu, what: &str, bytes: &[u8]) -> Result<DeviceMemory, RuntimeError> {
    gpu.filled(what, bytes.len(), |range, piece| {
        piece.copy_from_slice(&bytes[range]);
        Ok(())
    })
}

/// The bytes of a 16-bit convolution `[cout, cin, kt, kh, kw]` with its channels last.
fn taps(weight: &Weight, data: &[f32]) -> Option<Vec<u8>> {
    let (WeightLayout::Conv3d, [_, cin, kt, kh, kw]) = (weight.layout, weight.shape.get(..5)?)
    else {
        return None;
    };
    let float = float(weight.dtype).filter(|&float| float != Float::F32)?;
    let taps = kt * kh * kw;
    if taps * cin == 0 {
        return None;
    }
    let rows = data.chunks_exact(taps * cin);
    let numbers = rows.flat_map(|row| {
        (0..taps).flat_map(move |tap| (0..*cin).map(move |channel| row[channel * taps + tap]))
    });
    Some(narrowed(float, numbers))
}

/// The numbers as the device stores them, rounded to nearest.
fn narrowed(float: Float, numbers: impl Iterator<Item = f32>) -> Vec<u8> {
    match float {
        Float::F32 => numbers.flat_map(f32::to_ne_bytes).collect(),
        Float::F16 => numbers
            .flat_map(|x| f16::from_f32(x).to_ne_bytes())
            .collect(),
        Float::Bf16 => numbers
            .flat_map(|x| bf16::from_f32(x).to_ne_bytes())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{narrowed, taps};
    use terrace_kernels::cuda::Float;
    use terrace_plan::{DType, Weight, WeightLayout};

    #[test]
    fn taps_have_their_channels_last() {
        let mut weight = Weight {
            sources: Vec::new(),
            dtype: DType::F16,
            shape: vec![2, 3, 1, 1, 2],
            layout: WeightLayout::Conv3d,
            boxes: Vec::new(),
            len: 12,
        };
        let data: Vec<f32> = (0..12u8).map(f32::from).collect();
        let order = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11u8];
        let expected = narrowed(Float::F16, order.into_iter().map(f32::from));
        assert_eq!(taps(&weight, &data), Some(expected));
        weight.dtype = DType::F32;
        assert_eq!(taps(&weight, &data), None);
    }
}
