//! Operands of a prepared kernel call: addresses checked once, slices made for each run.
//!
//! Invariant: operands were checked by [`Resolved`]; a result that equals an input exactly is what
//! [`Binder::maybe_in_place`] tells apart, so no two slices of one launch overlap.

use super::memory::CpuMemory;
use crate::backend::View;
use crate::backend::resolved::Resolved;
use crate::{LoadedWeight, RuntimeError};
use std::marker::PhantomData;
use std::sync::Arc;
use terrace_kernels::cpu::{Input as KernelInput, PackedConv3d, PackedLinear};
use terrace_plan::{DType, KernelCall};

/// The right to touch the operands of one launch.
pub(super) struct Access(());

impl Access {
    /// # Safety
    /// While the value lives, the memory of the prepared call is allocated, nobody else writes its
    /// operands or reads its results, and every result is taken at most once at a time.
    pub(super) const unsafe fn new() -> Self {
        Self(())
    }
}

/// Elements that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct In<T> {
    address: usize,
    len: usize,
    element: PhantomData<T>,
}

/// Elements that a kernel writes, or changes in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    address: usize,
    len: usize,
}

impl<T> In<T> {
    pub(super) const fn get<'a>(&self, _: &'a Access) -> &'a [T] {
        // SAFETY: `Resolved` checked range, type and that no result of the call overlaps; `Access`
        // stands for allocated memory that nobody writes meanwhile.
        unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance(self.address), self.len)
        }
    }
}

impl Out {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    #[expect(
        clippy::mut_from_ref,
        reason = "`Access` stands for the exclusive right"
    )]
    pub(super) const fn get<'a>(&self, _: &'a Access) -> &'a mut [f32] {
        // SAFETY: `Resolved` checked range, type and that no other operand of the call overlaps;
        // `Access` stands for allocated memory that nobody else touches, and each kernel takes a
        // result once.
        unsafe {
            std::slice::from_raw_parts_mut(
                std::ptr::with_exposed_provenance_mut(self.address),
                self.len,
            )
        }
    }
}

/// A weight in plain layout.
#[derive(Clone, Debug)]
pub(super) struct Plain(Arc<LoadedWeight>);

impl Plain {
    pub(super) fn get(&self) -> &[f32] {
        match &*self.0 {
            LoadedWeight::Plain(data) => data,
            // An empty weight has a length that every kernel refuses; `Binder` admits none.
            LoadedWeight::Linear(_) | LoadedWeight::Conv3d(_) => &[],
        }
    }
}

/// Elements that are computed or loaded.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Buffer(In<f32>),
    Weight(Plain),
}

impl Source {
    pub(super) fn get<'a>(&'a self, access: &'a Access) -> &'a [f32] {
        match self {
            Self::Buffer(slot) => slot.get(access),
            Self::Weight(weight) => weight.get(),
        }
    }
}

/// An input that may be the result itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// Another region than the result.
    Apart(In<f32>),
    /// The result's own region.
    InPlace,
}

impl Input {
    pub(super) const fn get<'a>(&self, access: &'a Access) -> KernelInput<'a> {
        match self {
            Self::Apart(x) => KernelInput::Apart(x.get(access)),
            Self::InPlace => KernelInput::InPlace,
        }
    }
}

/// The operands of one kernel call by their names, as the kernels take them.
pub(super) struct Binder<'a> {
    resolved: Resolved<'a, LoadedWeight>,
}

impl<'a> Binder<'a> {
    pub(super) fn new(
        memory: &'a Arc<CpuMemory>,
        weights: &'a [Arc<LoadedWeight>],
        call: &KernelCall,
    ) -> Result<Self, RuntimeError> {
        let view = |buffer| memory.view(buffer);
        let resolved = Resolved::new(&[DType::F32], view, weights, call)?;
        Ok(Self { resolved })
    }

    pub(super) const fn kernel(&self) -> &'static str {
        self.resolved.kernel()
    }

    /// An operand that is read.
    pub(super) fn input(&self, name: &'static str) -> Result<In<f32>, RuntimeError> {
        self.resolved.view(name).map(input)
    }

    /// An operand of integers that is read.
    pub(super) fn integers(&self, name: &'static str) -> Result<In<u32>, RuntimeError> {
        self.resolved.view(name).map(input)
    }

    /// An operand that is read where the call has it.
    pub(super) fn maybe(&self, name: &'static str) -> Option<In<f32>> {
        self.resolved.maybe(name).map(input)
    }

    /// An operand that is written.
    pub(super) fn output(&self, name: &'static str) -> Result<Out, RuntimeError> {
        let view = self.resolved.view(name)?;
        Ok(Out {
            address: view.address(),
            len: view.len(),
        })
    }

    /// An operand that is read and may be the result `y` itself.
    pub(super) fn maybe_in_place(&self, name: &'static str) -> Result<Input, RuntimeError> {
        if self.resolved.is_result(name)? {
            return Ok(Input::InPlace);
        }
        self.input(name).map(Input::Apart)
    }

    /// A weight in plain layout where the call has it.
    pub(super) fn plain(&self, name: &'static str) -> Option<Plain> {
        self.resolved
            .weight(name)
            .map(|weight| Plain(Arc::clone(weight)))
    }

    /// An operand that is computed or loaded, where the call has it.
    pub(super) fn source(&self, name: &'static str) -> Option<Source> {
        let buffer = self.maybe(name).map(Source::Buffer);
        buffer.or_else(|| self.plain(name).map(Source::Weight))
    }

    /// A packed matrix.
    pub(super) fn linear(&self, name: &'static str) -> Result<Arc<PackedLinear>, RuntimeError> {
        match self.resolved.weight(name).map(|weight| &**weight) {
            Some(LoadedWeight::Linear(packed)) => Ok(Arc::clone(packed)),
            Some(LoadedWeight::Plain(_) | LoadedWeight::Conv3d(_)) | None => {
                Err(self.missing(name))
            }
        }
    }

    /// A packed convolution.
    pub(super) fn conv3d(&self, name: &'static str) -> Result<Arc<PackedConv3d>, RuntimeError> {
        match self.resolved.weight(name).map(|weight| &**weight) {
            Some(LoadedWeight::Conv3d(packed)) => Ok(Arc::clone(packed)),
            Some(LoadedWeight::Plain(_) | LoadedWeight::Linear(_)) | None => {
                Err(self.missing(name))
            }
        }
    }

    pub(super) fn missing(&self, operand: &'static str) -> RuntimeError {
        self.resolved.missing(operand)
    }

    /// The error for a call that reached the kernels of another family.
    pub(super) fn other_family(&self) -> RuntimeError {
        self.resolved.other_family()
    }
}

const fn input<T>(view: View) -> In<T> {
    In {
        address: view.address(),
        len: view.len(),
        element: PhantomData,
    }
}
