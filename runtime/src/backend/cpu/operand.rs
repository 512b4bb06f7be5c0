//! Operands of a prepared kernel call: addresses checked once, slices made for each run.
//!
//! The regions are those that the plan's checker derives from the call, so both agree.
//!
//! Invariants: an operand lies inside its buffer and has the element type that the kernel reads; a
//! result overlaps no other operand of the call, except an input that it may equal exactly, which
//! [`Binder::maybe_in_place`] tells apart. Refused: anything else, when the session is created.

use super::memory::CpuMemory;
use crate::backend::View;
use crate::{LoadedWeight, ResolveFault, RuntimeError};
use std::marker::PhantomData;
use std::sync::Arc;
use terrace_kernels::cpu::{PackedConv3d, PackedLinear};
use terrace_plan::{KernelCall, OperandUse, WeightUse};

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
        // SAFETY: `Binder` checked range, type and that no result of the call overlaps; `Access`
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
        // SAFETY: `Binder` checked range, type and that no other operand of the call overlaps;
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
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Another region than the result.
    Apart(In<f32>),
    /// The result's own region: the kernel reads a copy of it.
    InPlace(Arc<CpuMemory>),
}

impl Input {
    /// Calls `kernel` with the elements to read and to write.
    pub(super) fn with<R>(
        &self,
        access: &Access,
        y: &Out,
        kernel: impl FnOnce(&[f32], &mut [f32]) -> R,
    ) -> R {
        let y = y.get(access);
        match self {
            Self::Apart(x) => kernel(x.get(access), y),
            Self::InPlace(memory) => {
                let mut scratch = memory.scratch();
                // `Binder` has reserved as many elements as the result has.
                let copy = &mut scratch[..y.len()];
                copy.copy_from_slice(y);
                kernel(copy, y)
            }
        }
    }
}

/// Resolves the operands of one kernel call by their names.
pub(super) struct Binder<'a> {
    kernel: &'static str,
    memory: &'a Arc<CpuMemory>,
    operands: Vec<(OperandUse, View)>,
    weights: Vec<(WeightUse, &'a Arc<LoadedWeight>)>,
}

impl<'a> Binder<'a> {
    pub(super) fn new(
        memory: &'a Arc<CpuMemory>,
        weights: &'a [Arc<LoadedWeight>],
        call: &KernelCall,
    ) -> Result<Self, RuntimeError> {
        let kernel = call.name();
        let uses = call
            .operands()
            .map_err(|source| ResolveFault::Call { kernel, source })?;
        let operands = uses
            .into_iter()
            .map(|operand| {
                let view = locate(kernel, memory, &operand)?;
                Ok((operand, view))
            })
            .collect::<Result<Vec<_>, RuntimeError>>()?;
        let weights = call
            .weights()
            .into_iter()
            .map(|weight| {
                let loaded = fitting(kernel, weights, &weight)?;
                Ok((weight, loaded))
            })
            .collect::<Result<Vec<_>, RuntimeError>>()?;
        let binder = Self {
            kernel,
            memory,
            operands,
            weights,
        };
        binder.check_overlaps()?;
        Ok(binder)
    }

    pub(super) const fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// An operand that is read.
    pub(super) fn input(&self, name: &'static str) -> Result<In<f32>, RuntimeError> {
        self.view(name).map(input)
    }

    /// An operand of integers that is read.
    pub(super) fn integers(&self, name: &'static str) -> Result<In<u32>, RuntimeError> {
        self.view(name).map(input)
    }

    /// An operand that is read where the call has it.
    pub(super) fn maybe(&self, name: &'static str) -> Option<In<f32>> {
        self.find(name).map(|(_, view)| input(view))
    }

    /// An operand that is written.
    pub(super) fn output(&self, name: &'static str) -> Result<Out, RuntimeError> {
        let view = self.view(name)?;
        Ok(Out {
            address: view.address(),
            len: view.len(),
        })
    }

    /// Whether the operand is the result `y` itself.
    pub(super) fn is_result(&self, name: &'static str) -> Result<bool, RuntimeError> {
        let (operand, result) = (self.view(name)?, self.view("y")?);
        Ok(operand == result && !result.is_empty())
    }

    /// An operand that is read and may be the result `y` itself.
    pub(super) fn maybe_in_place(&self, name: &'static str) -> Result<Input, RuntimeError> {
        if !self.is_result(name)? {
            return self.input(name).map(Input::Apart);
        }
        self.memory.reserve_scratch(self.view(name)?.len());
        Ok(Input::InPlace(Arc::clone(self.memory)))
    }

    /// A weight in plain layout where the call has it.
    pub(super) fn plain(&self, name: &'static str) -> Option<Plain> {
        self.loaded(name).map(|weight| Plain(Arc::clone(weight)))
    }

    /// An operand that is computed or loaded, where the call has it.
    pub(super) fn source(&self, name: &'static str) -> Option<Source> {
        let buffer = self.maybe(name).map(Source::Buffer);
        buffer.or_else(|| self.plain(name).map(Source::Weight))
    }

    /// A packed matrix.
    pub(super) fn linear(&self, name: &'static str) -> Result<Arc<PackedLinear>, RuntimeError> {
        match self.loaded(name).map(|weight| &**weight) {
            Some(LoadedWeight::Linear(packed)) => Ok(Arc::clone(packed)),
            Some(LoadedWeight::Plain(_) | LoadedWeight::Conv3d(_)) | None => {
                Err(self.missing(name))
            }
        }
    }

    /// A packed convolution.
    pub(super) fn conv3d(&self, name: &'static str) -> Result<Arc<PackedConv3d>, RuntimeError> {
        match self.loaded(name).map(|weight| &**weight) {
            Some(LoadedWeight::Conv3d(packed)) => Ok(Arc::clone(packed)),
            Some(LoadedWeight::Plain(_) | LoadedWeight::Linear(_)) | None => {
                Err(self.missing(name))
            }
        }
    }

    pub(super) fn missing(&self, operand: &'static str) -> RuntimeError {
        let kernel = self.kernel;
        ResolveFault::NoOperand { kernel, operand }.into()
    }

    /// The error for a call that reached the kernels of another family.
    pub(super) fn other_family(&self) -> RuntimeError {
        let kernel = self.kernel;
        ResolveFault::OtherFamily { kernel }.into()
    }

    fn find(&self, name: &'static str) -> Option<&(OperandUse, View)> {
        self.operands
            .iter()
            .find(|(operand, _)| operand.name == name)
    }

    fn view(&self, name: &'static str) -> Result<&View, RuntimeError> {
        self.find(name)
            .map(|(_, view)| view)
            .ok_or_else(|| self.missing(name))
    }

    fn loaded(&self, name: &'static str) -> Option<&'a Arc<LoadedWeight>> {
        self.weights
            .iter()
            .find(|(weight, _)| weight.name == name)
            .map(|&(_, loaded)| loaded)
    }

    /// Refuses results that overlap other operands in any way but the one that the call allows.
    fn check_overlaps(&self) -> Result<(), RuntimeError> {
        for (i, (a, x)) in self.operands.iter().enumerate() {
            for (b, y) in &self.operands[i + 1..] {
                let shared = overlap(x, y) && (a.access.writes() || b.access.writes());
                let allowed =
                    x == y && (a.may_equal.contains(&b.name) || b.may_equal.contains(&a.name));
                if shared && !allowed {
                    return Err(ResolveFault::OperandsOverlap {
                        kernel: self.kernel,
                        first: a.name,
                        second: b.name,
                    }
                    .into());
                }
            }
        }
        Ok(())
    }
}

fn locate(
    kernel: &'static str,
    memory: &CpuMemory,
    operand: &OperandUse,
) -> Result<View, RuntimeError> {
    let fits = memory.view(operand.buffer).filter(|view| {
        view.dtype() == operand.dtype && operand.offset <= operand.end && operand.end <= view.len()
    });
    let Some(view) = fits else {
        let found = memory.view(operand.buffer);
        return Err(ResolveFault::OperandMisfit {
            kernel,
            operand: operand.name,
            buffer: operand.buffer,
            end: operand.end,
            expected: operand.dtype,
            len: found.map_or(0, |view| view.len()),
            found: found.map_or(operand.dtype, |view| view.dtype()),
        }
        .into());
    };
    let address = view.address() + operand.offset * view.dtype().bytes();
    // SAFETY: a part of a view, with the same promises.
    Ok(unsafe { View::new(address, operand.end - operand.offset, view.dtype()) })
}

fn fitting<'a>(
    kernel: &'static str,
    weights: &'a [Arc<LoadedWeight>],
    weight: &WeightUse,
) -> Result<&'a Arc<LoadedWeight>, RuntimeError> {
    let found = weights.get(weight.weight.0);
    let fits = found.filter(|loaded| loaded.layout() == weight.layout);
    fits.ok_or_else(|| {
        ResolveFault::WeightMisfit {
            kernel,
            operand: weight.name,
            weight: weight.weight,
            expected: weight.layout,
            found: found.map(|loaded| loaded.layout()),
        }
        .into()
    })
}

const fn input<T>(view: &View) -> In<T> {
    In {
        address: view.address(),
        len: view.len(),
        element: PhantomData,
    }
}

const fn overlap(x: &View, y: &View) -> bool {
    // Regions without elements overlap nothing, wherever they lie.
    x.address() < y.address() + y.len() * y.dtype().bytes()
        && y.address() < x.address() + x.len() * x.dtype().bytes()
        && !x.is_empty()
        && !y.is_empty()
}
