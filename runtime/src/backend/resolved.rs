//! Operands and weights of one kernel call, found and checked once, whatever the backend.
//!
//! The regions are those that the plan's checker derives from the call, so both agree.
//!
//! Invariants: an operand lies inside its buffer and has the element type that the kernel reads; a
//! result overlaps no other operand of the call, except an input that it may equal exactly; a weight
//! has the layout that the kernel reads. Refused: anything else, when the session is created.

use crate::backend::View;
use crate::{ResolveFault, RuntimeError};
use std::sync::Arc;
use terrace_plan::{
    Buffer, BufferId, DType, Elements, KernelCall, OperandUse, Rank, WeightLayout, WeightUse,
};

/// A weight that knows its layout.
pub(crate) trait Layout {
    /// Layout of the elements.
    fn layout(&self) -> WeightLayout;
}

/// The operands of one kernel call by their names.
pub(crate) struct Resolved<'a, W> {
    kernel: &'static str,
    operands: Vec<(OperandUse, View)>,
    weights: Vec<(WeightUse, &'a Arc<W>)>,
}

impl<'a, W: Layout> Resolved<'a, W> {
    /// Finds what `call` names among the buffers that `view` knows and the weights of the plan.
    /// The kernels take activations of the types `activations`.
    pub(crate) fn new(
        activations: &[DType],
        view: impl Fn(BufferId) -> Option<View>,
        weights: &'a [Arc<W>],
        call: &KernelCall,
    ) -> Result<Self, RuntimeError> {
        let kernel = call.name();
        let uses = call
            .operands()
            .map_err(|source| ResolveFault::Call { kernel, source })?;
        let operands = uses
            .into_iter()
            .map(|operand| {
                let view = locate(kernel, activations, view(operand.buffer), &operand)?;
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
        let resolved = Self {
            kernel,
            operands,
            weights,
        };
        resolved.check_overlaps()?;
        Ok(resolved)
    }

    pub(crate) const fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// Where an operand lies.
    pub(crate) fn view(&self, name: &'static str) -> Result<View, RuntimeError> {
        self.maybe(name).ok_or_else(|| self.missing(name))
    }

    /// Where an operand lies, where the call has it.
    pub(crate) fn maybe(&self, name: &'static str) -> Option<View> {
        let found = self
            .operands
            .iter()
            .find(|(operand, _)| operand.name == name);
        found.map(|(_, view)| *view)
    }

    /// A weight, where the call has it.
    pub(crate) fn weight(&self, name: &'static str) -> Option<&'a Arc<W>> {
        self.weights
            .iter()
            .find(|(weight, _)| weight.name == name)
            .map(|&(_, loaded)| loaded)
    }

    /// Whether the operand is the result `y` itself.
    pub(crate) fn is_result(&self, name: &'static str) -> Result<bool, RuntimeError> {
        let (operand, result) = (self.view(name)?, self.view("y")?);
        Ok(operand == result && !result.is_empty())
    }

    pub(crate) fn missing(&self, operand: &'static str) -> RuntimeError {
        let kernel = self.kernel;
        ResolveFault::NoOperand { kernel, operand }.into()
    }

    /// The error for a call that reached the kernels of another family.
    pub(crate) fn other_family(&self) -> RuntimeError {
        let kernel = self.kernel;
        ResolveFault::OtherFamily { kernel }.into()
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

/// The view of a buffer in a region of `bytes` bytes that begins at `base`.
///
/// # Safety
/// As for [`View::new`], for all views that lie in the region.
pub(crate) unsafe fn view_in(
    base: usize,
    bytes: usize,
    rank: Rank,
    id: BufferId,
    buffer: &Buffer,
) -> Result<View, RuntimeError> {
    let end = buffer
        .bytes()
        .and_then(|bytes| bytes.checked_add(buffer.offset))
        .filter(|&end| end <= bytes);
    if end.is_none() || !buffer.offset.is_multiple_of(Buffer::ALIGNMENT) {
        return Err(ResolveFault::BufferOutOfRange {
            rank,
            buffer: id,
            offset: buffer.offset,
            len: buffer.len,
            dtype: buffer.dtype,
            region_bytes: bytes,
        }
        .into());
    }
    // SAFETY: the range lies in the region and is aligned; the caller promises the rest.
    Ok(unsafe { View::new(base + buffer.offset, buffer.len, buffer.dtype) })
}

fn locate(
    kernel: &'static str,
    activations: &[DType],
    buffer: Option<View>,
    operand: &OperandUse,
) -> Result<View, RuntimeError> {
    let misfit = || ResolveFault::OperandMisfit {
        kernel,
        operand: operand.name,
        buffer: operand.buffer,
        end: operand.end,
        len: buffer.map_or(0, |view| view.len()),
    };
    let view = buffer.ok_or_else(misfit)?;
    check_type(kernel, activations, view.dtype(), operand)?;
    if operand.offset > operand.end || operand.end > view.len() {
        return Err(misfit().into());
    }
    let address = view.address() + operand.offset * view.dtype().bytes();
    // SAFETY: a part of a view, with the same promises.
    Ok(unsafe { View::new(address, operand.end - operand.offset, view.dtype()) })
}

fn check_type(
    kernel: &'static str,
    activations: &[DType],
    found: DType,
    operand: &OperandUse,
) -> Result<(), ResolveFault> {
    let takes = match operand.dtype {
        Elements::F32 => &[DType::F32],
        Elements::U32 => &[DType::U32],
        Elements::Activation | Elements::Floating => activations,
    };
    if takes.contains(&found) {
        return Ok(());
    }
    let names: Vec<_> = takes.iter().map(|dtype| dtype.name()).collect();
    Err(ResolveFault::OperandType {
        kernel,
        operand: operand.name,
        expected: names.join(" or "),
        found,
    })
}

fn fitting<'a, W: Layout>(
    kernel: &'static str,
    weights: &'a [Arc<W>],
    weight: &WeightUse,
) -> Result<&'a Arc<W>, RuntimeError> {
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

const fn overlap(x: &View, y: &View) -> bool {
    // Regions without elements overlap nothing, wherever they lie.
    x.address() < y.address() + y.len() * y.dtype().bytes()
        && y.address() < x.address() + x.len() * x.dtype().bytes()
        && !x.is_empty()
        && !y.is_empty()
}
