//! What a kernel call touches: the vocabulary of operand and weight uses, and its errors.
//!
//! Sizes come from untrusted plans, so every product and sum is checked.

use crate::{BufferId, CallError, DType, Heads, Mods, Slot, WeightId, WeightLayout};

/// What a kernel does to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read alone.
    Read,
    /// Written without being read.
    Write,
    /// Read and written.
    ReadWrite,
}

impl Access {
    /// Whether the operand's values before the call matter.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether the operand's values change.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// Element types that a kernel takes for an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// f32, whatever the activations are.
    F32,
    /// u32.
    U32,
    /// The floating type of the call's activations.
    Activation,
    /// Any floating type.
    Floating,
}

impl Elements {
    /// Whether a buffer of this type can be the operand.
    pub const fn admits(self, dtype: DType) -> bool {
        match self {
            Self::F32 => matches!(dtype, DType::F32),
            Self::U32 => matches!(dtype, DType::U32),
            Self::Activation | Self::Floating => dtype.is_floating(),
        }
    }

    /// What is admitted, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::U32 => "u32",
            Self::Activation | Self::Floating => "a floating type",
        }
    }
}

/// A region of a buffer that a kernel call touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperandUse {
    /// Name of the operand in the call, e.g. `x`.
    pub name: &'static str,
    /// The buffer.
    pub buffer: BufferId,
    /// First element of the region.
    pub offset: usize,
    /// One past the last element of the region; equals `offset` when nothing is touched.
    pub end: usize,
    /// Elements touched: `end - offset` for dense operands, fewer for strided ones.
    pub elements: usize,
    /// Element types that the kernel takes.
    pub dtype: Elements,
    /// What the kernel does to it.
    pub access: Access,
    /// Operands whose region this one may equal exactly; it may overlap no other.
    pub may_equal: &'static [&'static str],
}

/// A weight that a kernel call reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightUse {
    /// Name of the operand in the call, e.g. `bias`.
    pub name: &'static str,
    /// The weight.
    pub weight: WeightId,
    /// Shape that the kernel expects of the part that the rank holds.
    pub shape: Vec<usize>,
    /// Layout that the kernel expects.
    pub layout: WeightLayout,
}

/// Collects the operands of one call; all arithmetic is checked.
#[derive(Default)]
pub(crate) struct Uses {
    pub(crate) list: Vec<OperandUse>,
}

impl Uses {
    pub(crate) fn read(
        &mut self,
        name: &'static str,
        slot: Slot,
        sizes: &[usize],
    ) -> Result<(), CallError> {
        self.dense(name, slot, sizes, Elements::Activation, Access::Read, &[])
    }

    pub(crate) fn read_f32(
        &mut self,
        name: &'static str,
        slot: Slot,
        sizes: &[usize],
    ) -> Result<(), CallError> {
        self.dense(name, slot, sizes, Elements::F32, Access::Read, &[])
    }

    pub(crate) fn write(
        &mut self,
        name: &'static str,
        slot: Slot,
        sizes: &[usize],
        may_equal: &'static [&'static str],
    ) -> Result<(), CallError> {
        self.dense(
            name,
            slot,
            sizes,
            Elements::Activation,
            Access::Write,
            may_equal,
        )
    }

    pub(crate) fn write_f32(
        &mut self,
        name: &'static str,
        slot: Slot,
        sizes: &[usize],
    ) -> Result<(), CallError> {
        self.dense(name, slot, sizes, Elements::F32, Access::Write, &[])
    }

    pub(crate) fn dense(
        &mut self,
        name: &'static str,
        slot: Slot,
        sizes: &[usize],
        dtype: Elements,
        access: Access,
        may_equal: &'static [&'static str],
    ) -> Result<(), CallError> {
        let elements = product(name, sizes)?;
        self.list.push(OperandUse {
            name,
            buffer: slot.buffer,
            offset: slot.offset,
            end: add(name, slot.offset, elements)?,
            elements,
            dtype,
            access,
            may_equal,
        });
        Ok(())
    }

    /// `sizes`: `[batch, rows, heads, head_dim]`.
    pub(crate) fn heads(
        &mut self,
        name: &'static str,
        view: &Heads,
        sizes: [usize; 4],
        access: Access,
    ) -> Result<(), CallError> {
        let elements = product(name, &sizes)?;
        let strides = [view.batch_stride, view.row_stride, view.head_stride, 1];
        let end = crate::geometry::region_end(&sizes, view.slot.offset, &strides)
            .ok_or(CallError::Overflow { operand: name })?;
        if access.writes() && !crate::geometry::distinct(&sizes, &strides) {
            return Err(CallError::Strides { operand: name });
        }
        self.list.push(OperandUse {
            name,
            buffer: view.slot.buffer,
            offset: view.slot.offset,
            end: end.max(view.slot.offset),
            elements,
            dtype: Elements::Activation,
            access,
            may_equal: &[],
        });
        Ok(())
    }

    /// `vectors`: offsets of the vectors of `width` that are read for every batch item.
    pub(crate) fn mods(
        &mut self,
        mods: &Mods,
        batch: usize,
        width: usize,
        vectors: impl Iterator<Item = usize>,
    ) -> Result<(), CallError> {
        const NAME: &str = "mods";
        let overflow = CallError::Overflow { operand: NAME };
        let last = vectors.max();
        let (elements, span) = match (last, batch.checked_sub(1)) {
            (Some(last), Some(items)) => {
                let vector = add(NAME, last, width)?;
                let before = items.checked_mul(mods.stride).ok_or(overflow)?;
                let span = add(NAME, before, vector)?;
                (span, span)
            }
            (None, _) | (_, None) => (0, 0),
        };
        self.list.push(OperandUse {
            name: NAME,
            buffer: mods.slot.buffer,
            offset: mods.slot.offset,
            end: add(NAME, mods.slot.offset, span)?,
            elements,
            dtype: Elements::Activation,
            access: Access::Read,
            may_equal: &[],
        });
        Ok(())
    }
}

pub(crate) fn product(operand: &'static str, sizes: &[usize]) -> Result<usize, CallError> {
    crate::geometry::product(sizes).ok_or(CallError::Overflow { operand })
}

pub(crate) fn add(operand: &'static str, a: usize, b: usize) -> Result<usize, CallError> {
    a.checked_add(b).ok_or(CallError::Overflow { operand })
}

pub(crate) fn at_least_one(sizes: &[(&'static str, usize)]) -> Result<(), CallError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((size, _)) => Err(CallError::Zero { size }),
        None => Ok(()),
    }
}

pub(crate) fn finite(name: &'static str, value: f64) -> Result<(), CallError> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(CallError::NotFinite { name, found: value })
    }
}

/// Epsilons keep a variance away from zero, so they are finite and not negative.
pub(crate) fn epsilon(value: f64) -> Result<(), CallError> {
    finite("eps", value)?;
    if value < 0.0 {
        return Err(CallError::Negative {
            name: "eps",
            found: value,
        });
    }
    Ok(())
}

pub(crate) fn segment_rows(
    rows: impl Iterator<Item = usize>,
    batch: usize,
    expected: usize,
) -> Result<(), CallError> {
    let overflow = CallError::Overflow {
        operand: "segments",
    };
    let mut sum = 0usize;
    for n in rows {
        sum = add("segments", sum, n)?;
    }
    let found = sum.checked_mul(batch).ok_or(overflow)?;
    if found == expected {
        Ok(())
    } else {
        Err(CallError::SegmentRows { expected, found })
    }
}
