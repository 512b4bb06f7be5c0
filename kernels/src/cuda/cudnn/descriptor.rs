//! Descriptors of cuDNN's graph interface: made, given attributes, finalised, destroyed.

use super::failed;
use crate::cuda::fault::CudaFault;
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnDataType_t,
};
use std::ffi::c_void;

/// A descriptor; [`Descriptor::finish`] has been called before another one refers to it.
#[derive(Debug)]
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: a finalised descriptor is plain memory of the library that nobody changes any more.
unsafe impl Send for Descriptor {}
// SAFETY: as for `Send`.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    pub(super) fn new(kind: Kind) -> Result<Self, CudaFault> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: callers hold a handle of the library; the pointer is valid.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut raw) };
        failed("cudnnBackendCreateDescriptor", status)?;
        Ok(Self(raw))
    }

    /// Sets an attribute to values whose type is `of`.
    pub(super) fn set<T>(self, name: Name, of: Type, values: &[T]) -> Result<Self, CudaFault> {
        // SAFETY: the descriptor is alive; the library copies `values.len()` values of the type that
        // the callers below pair with `T`.
        let status = unsafe {
            sys::cudnnBackendSetAttribute(
                self.0,
                name,
                of,
                values.len() as i64,
                values.as_ptr().cast::<c_void>(),
            )
        };
        failed("cudnnBackendSetAttribute", status)?;
        Ok(self)
    }

    pub(super) fn integers(self, name: Name, values: &[i64]) -> Result<Self, CudaFault> {
        self.set(name, Type::CUDNN_TYPE_INT64, values)
    }

    pub(super) fn flag(self, name: Name) -> Result<Self, CudaFault> {
        self.set(name, Type::CUDNN_TYPE_BOOLEAN, &[true])
    }

    pub(super) fn data_type(self, name: Name, value: cudnnDataType_t) -> Result<Self, CudaFault> {
        self.set(name, Type::CUDNN_TYPE_DATA_TYPE, &[value])
    }

    pub(super) fn float(self, name: Name, value: f32) -> Result<Self, CudaFault> {
        self.set(name, Type::CUDNN_TYPE_FLOAT, &[value])
    }

    /// Refers to other descriptors, which must outlive this one.
    pub(super) fn refer(self, name: Name, others: &[&Self]) -> Result<Self, CudaFault> {
        let raw: Vec<_> = others.iter().map(|other| other.0).collect();
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)
    }

    /// Refers to another descriptor where there is one.
    pub(super) fn refer_maybe(self, name: Name, other: Option<&Self>) -> Result<Self, CudaFault> {
        match other {
            Some(other) => self.refer(name, &[other]),
            None => Ok(self),
        }
    }

    pub(super) fn finish(self) -> Result<Self, CudaFault> {
        // SAFETY: the descriptor is alive.
        let status = unsafe { sys::cudnnBackendFinalize(self.0) };
        failed("cudnnBackendFinalize", status)?;
        Ok(self)
    }

    /// The one integer that an attribute of a finalised descriptor holds.
    pub(super) fn integer(&self, name: Name) -> Result<i64, CudaFault> {
        let (mut count, mut value) = (0i64, 0i64);
        // SAFETY: the descriptor is alive; there is room for one value.
        let status = unsafe {
            sys::cudnnBackendGetAttribute(
                self.0,
                name,
                Type::CUDNN_TYPE_INT64,
                1,
                &raw mut count,
                (&raw mut value).cast(),
            )
        };
        failed("cudnnBackendGetAttribute", status)?;
        Ok(value)
    }

    /// Fills `into`, descriptors that are not finalised, with those that an attribute holds; returns
    /// how many there are.
    pub(super) fn descriptors(&self, name: Name, into: &[Self]) -> Result<usize, CudaFault> {
        let mut raw: Vec<_> = into.iter().map(|descriptor| descriptor.0).collect();
        let mut count = 0i64;
        // SAFETY: all descriptors are alive; there is room for as many as are asked for.
        let status = unsafe {
            sys::cudnnBackendGetAttribute(
                self.0,
                name,
                Type::CUDNN_TYPE_BACKEND_DESCRIPTOR,
                raw.len() as i64,
                &raw mut count,
                raw.as_mut_ptr().cast(),
            )
        };
        failed("cudnnBackendGetAttribute", status)?;
        Ok(usize::try_from(count).unwrap_or(0).min(into.len()))
    }

    pub(super) const fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// A tensor of an operation.
pub(super) struct Tensor<'a> {
    /// Its name in the operation and for its address.
    pub(super) id: i64,
    pub(super) element: cudnnDataType_t,
    pub(super) sizes: &'a [i64],
    pub(super) strides: &'a [i64],
    pub(super) place: Place,
}

/// Where the elements of a tensor are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the device, at an address that is given when the plan runs.
    Device,
    /// On the host: one number.
    Host,
    /// Nowhere: they pass from one operation to the next.
    Passing,
}

impl Tensor<'_> {
    pub(super) fn describe(&self) -> Result<Descriptor, CudaFault> {
        let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
            .data_type(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, self.element)?
            .integers(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, self.sizes)?
            .integers(Name::CUDNN_ATTR_TENSOR_STRIDES, self.strides)?
            .integers(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[self.id])?
            .integers(
                Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT,
                &[super::ALIGNMENT as i64],
            )?;
        match self.place {
            Place::Device => tensor,
            Place::Host => tensor.flag(Name::CUDNN_ATTR_TENSOR_IS_BY_VALUE)?,
            Place::Passing => tensor.flag(Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL)?,
        }
        .finish()
    }
}
