//! Tensors on the host: what callers give to a session and get back.
//!
//! Invariant: a [`HostTensor`] holds exactly as many elements as its shape says; every constructor
//! refuses anything else. Data is dense and row-major.

use crate::RuntimeError;
use terrace_plan::DType;

/// Elements of a [`HostTensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// Single precision.
    F32(Vec<f32>),
    /// Unsigned integers: token ids, generator keys.
    U32(Vec<u32>),
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::U32(data) => data.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::U32(_) => DType::U32,
        }
    }

    /// The elements as bytes in the machine's order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(data) => bytemuck::cast_slice(data),
            Self::U32(data) => bytemuck::cast_slice(data),
        }
    }

    /// The elements as bytes that may be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::F32(data) => bytemuck::cast_slice_mut(data),
            Self::U32(data) => bytemuck::cast_slice_mut(data),
        }
    }
}

/// A dense row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    shape: Vec<usize>,
    data: TensorData,
}

impl HostTensor {
    /// A tensor of `shape` over `data`.
    ///
    /// # Errors
    /// When `data` does not hold the product of `shape` elements.
    pub fn new(shape: Vec<usize>, data: TensorData) -> Result<Self, RuntimeError> {
        let elements = elements(&shape);
        if elements != Some(data.len()) {
            return Err(RuntimeError::TensorLength {
                shape,
                found: data.len(),
            });
        }
        Ok(Self { shape, data })
    }

    /// A single-precision tensor.
    ///
    /// # Errors
    /// As for [`HostTensor::new`].
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self, RuntimeError> {
        Self::new(shape.into(), TensorData::F32(data))
    }

    /// A tensor of unsigned integers.
    ///
    /// # Errors
    /// As for [`HostTensor::new`].
    pub fn u32(shape: impl Into<Vec<usize>>, data: Vec<u32>) -> Result<Self, RuntimeError> {
        Self::new(shape.into(), TensorData::U32(data))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// When there is no memory of this size, or for a type of less than 32 bits, which host tensors do
    /// not have.
    pub fn zeros(shape: impl Into<Vec<usize>>, dtype: DType) -> Result<Self, RuntimeError> {
        let shape = shape.into();
        let data = match dtype {
            DType::F32 => elements(&shape).and_then(zeroed).map(TensorData::F32),
            DType::U32 => elements(&shape).and_then(zeroed).map(TensorData::U32),
            DType::F16 | DType::Bf16 | DType::I8 | DType::F8E4M3 => {
                return Err(RuntimeError::HostDType { dtype });
            }
        };
        match data {
            Some(data) => Self::new(shape, data),
            None => Err(RuntimeError::TensorMemory { shape }),
        }
    }

    /// Sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub const fn data(&self) -> &TensorData {
        &self.data
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements of a single-precision tensor.
    ///
    /// # Errors
    /// When the tensor has another element type.
    pub fn as_f32(&self) -> Result<&[f32], RuntimeError> {
        match &self.data {
            TensorData::F32(data) => Ok(data),
            TensorData::U32(_) => Err(RuntimeError::TensorDType {
                expected: DType::F32,
                found: DType::U32,
            }),
        }
    }

    /// The elements of a single-precision tensor, which may be changed.
    ///
    /// # Errors
    /// When the tensor has another element type.
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32], RuntimeError> {
        match &mut self.data {
            TensorData::F32(data) => Ok(data),
            TensorData::U32(_) => Err(RuntimeError::TensorDType {
                expected: DType::F32,
                found: DType::U32,
            }),
        }
    }

    /// The elements of a tensor of unsigned integers.
    ///
    /// # Errors
    /// When the tensor has another element type.
    pub fn as_u32(&self) -> Result<&[u32], RuntimeError> {
        match &self.data {
            TensorData::U32(data) => Ok(data),
            TensorData::F32(_) => Err(RuntimeError::TensorDType {
                expected: DType::U32,
                found: DType::F32,
            }),
        }
    }

    /// Shape and elements.
    pub fn into_parts(self) -> (Vec<usize>, TensorData) {
        (self.shape, self.data)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// When `shape` has another number of elements.
    pub fn reshape(self, shape: impl Into<Vec<usize>>) -> Result<Self, RuntimeError> {
        Self::new(shape.into(), self.data)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }
}

/// Product of the dimensions, or `None` when it overflows; zero whenever a dimension is zero.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Zeros, or `None` when there is no memory for so many: sizes may come from an untrusted plan.
pub(crate) fn zeroed<T: Clone + Default>(len: usize) -> Option<Vec<T>> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).ok()?;
    data.resize(len, T::default());
    Some(data)
}
