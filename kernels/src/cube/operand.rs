//! Operands: where the elements of a kernel's argument lie and of which type they are.
//!
//! Invariants: offsets and lengths count elements; a buffer begins at a multiple of 16 bytes, so
//! whether elements may be read in fours follows from offsets and sizes alone. Refused: operands
//! that end behind the last index of 32 bits.

use std::fmt;

use cubecl::ir::{ElemType, FloatKind, StorageType, UIntKind};

use crate::{KernelError, check};

/// Element type of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Unsigned 32-bit integers.
    U32,
}

impl Element {
    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
        }
    }

    pub(super) fn storage(self) -> StorageType {
        StorageType::Scalar(match self {
            Self::F32 => ElemType::Float(FloatKind::F32),
            Self::F16 => ElemType::Float(FloatKind::F16),
            Self::Bf16 => ElemType::Float(FloatKind::BF16),
            Self::U32 => ElemType::UInt(UIntKind::U32),
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A region of a buffer.
#[derive(Debug, Clone)]
pub struct Operand<B> {
    /// The buffer, of the kind that the queue knows.
    pub buffer: B,
    /// Elements of this type before the region.
    pub offset: usize,
    /// Elements of the region.
    pub len: usize,
    /// Element type.
    pub element: Element,
}

impl<B> Operand<B> {
    /// Refuses an operand that does not have exactly `expected` elements.
    pub(super) fn length(
        &self,
        kernel: &'static str,
        operand: &'static str,
        expected: usize,
    ) -> Result<(), KernelError> {
        check::length(kernel, operand, expected, self.len)
    }

    /// Refuses an operand of another element type.
    pub(super) fn is(
        &self,
        kernel: &'static str,
        operand: &'static str,
        expected: Element,
    ) -> Result<(), KernelError> {
        if self.element == expected {
            return Ok(());
        }
        let found = self.element.name();
        Err(check::argument(kernel, operand, expected.name(), found))
    }

    /// The element type, refused unless it is a floating-point one.
    pub(super) fn float(
        &self,
        kernel: &'static str,
        operand: &'static str,
    ) -> Result<Element, KernelError> {
        match self.element {
            Element::F32 | Element::F16 | Element::Bf16 => Ok(self.element),
            Element::U32 => Err(check::argument(kernel, operand, "f32, f16 or bf16", "u32")),
        }
    }
}

/// Elements that a kernel reads at once: 4 where every one of `numbers` (widths, strides, offsets)
/// is a multiple of 4, else 1.
pub(super) fn width(numbers: impl IntoIterator<Item = usize>) -> usize {
    if numbers.into_iter().all(|number| number % 4 == 0) {
        4
    } else {
        1
    }
}
