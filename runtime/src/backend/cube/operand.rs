//! Operands of a call as the kernels for GPUs take them.
//!
//! Invariant: operands were checked by [`Resolved`]; kernels may read and write one region where the
//! call allows it, so nothing is copied for work in place.

use super::CubeWeight;
use crate::RuntimeError;
use crate::backend::View;
use crate::backend::resolved::Resolved;
use std::sync::Arc;
use terrace_kernels::cube::{Element, Operand, Queue};
use terrace_plan::{BufferId, DType, KernelCall};

/// Buffers of the queue that takes the calls of some memory.
pub(crate) type Buffer<P> = <<P as Places>::Queue as Queue>::Buffer;

/// Memory of a rank, and what a launch may add to it.
pub(crate) trait Places {
    /// What takes the calls.
    type Queue: Queue;

    /// The view of a buffer of the rank.
    fn view(&self, buffer: BufferId) -> Option<View>;

    /// Where a view lies.
    ///
    /// # Errors
    /// When no memory is there.
    fn operand(&self, view: View) -> Result<Operand<Buffer<Self>>, RuntimeError>;

    /// Memory of `len` f32 elements that lasts as long as the launch.
    ///
    /// # Errors
    /// When the device has no such memory.
    fn scratch(&self, len: usize) -> Result<Operand<Buffer<Self>>, RuntimeError>;

    /// Constants that last as long as the launch, elements of a type of four bytes.
    ///
    /// # Errors
    /// When the device has no such memory.
    fn constants(
        &self,
        element: Element,
        bytes: &[u8],
    ) -> Result<Operand<Buffer<Self>>, RuntimeError>;
}

/// The operands of one kernel call by their names.
pub(crate) struct Binder<'a, P: Places> {
    places: &'a P,
    resolved: Resolved<'a, CubeWeight<Buffer<P>>>,
}

impl<'a, P: Places> Binder<'a, P> {
    /// `activations`: the floating types that the device stores.
    pub(crate) fn new(
        activations: &[DType],
        places: &'a P,
        weights: &'a [Arc<CubeWeight<Buffer<P>>>],
        call: &KernelCall,
    ) -> Result<Self, RuntimeError> {
        let resolved = Resolved::new(activations, |buffer| places.view(buffer), weights, call)?;
        Ok(Self { places, resolved })
    }

    /// An operand in a buffer.
    pub(super) fn operand(&self, name: &'static str) -> Result<Operand<Buffer<P>>, RuntimeError> {
        self.places.operand(self.resolved.view(name)?)
    }

    /// An operand in a buffer, where the call has it.
    pub(super) fn maybe(
        &self,
        name: &'static str,
    ) -> Result<Option<Operand<Buffer<P>>>, RuntimeError> {
        let view = self.resolved.maybe(name);
        view.map(|view| self.places.operand(view)).transpose()
    }

    /// A weight, where the call has it.
    pub(super) fn loaded(&self, name: &'static str) -> Option<Operand<Buffer<P>>> {
        let weight = self.resolved.weight(name);
        weight.map(|weight| weight.operand.clone())
    }

    /// A weight.
    pub(super) fn weight(&self, name: &'static str) -> Result<Operand<Buffer<P>>, RuntimeError> {
        self.loaded(name).ok_or_else(|| self.resolved.missing(name))
    }

    /// An operand that is computed or loaded, where the call has it.
    pub(super) fn source(
        &self,
        name: &'static str,
    ) -> Result<Option<Operand<Buffer<P>>>, RuntimeError> {
        let computed = self.maybe(name)?;
        Ok(computed.or_else(|| self.loaded(name)))
    }

    /// Memory of `len` f32 elements for one launch.
    pub(super) fn scratch(&self, len: usize) -> Result<Operand<Buffer<P>>, RuntimeError> {
        self.places.scratch(len)
    }

    /// Numbers that a kernel reads.
    pub(super) fn floats(&self, numbers: &[f32]) -> Result<Operand<Buffer<P>>, RuntimeError> {
        let bytes = bytemuck::cast_slice(numbers);
        self.places.constants(Element::F32, bytes)
    }

    /// Indices that a kernel reads.
    pub(super) fn indices(&self, indices: &[u32]) -> Result<Operand<Buffer<P>>, RuntimeError> {
        let bytes = bytemuck::cast_slice(indices);
        self.places.constants(Element::U32, bytes)
    }

    /// The error for a call that reached the kernels of another family.
    pub(super) fn other_family(&self) -> RuntimeError {
        self.resolved.other_family()
    }
}

/// The element type as kernels call it, if they have it.
pub(crate) const fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::F16 => Some(Element::F16),
        DType::Bf16 => Some(Element::Bf16),
        DType::U32 => Some(Element::U32),
        DType::I8 | DType::F8E4M3 => None,
    }
}
