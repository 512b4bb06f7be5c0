//! Strided boxes: how a part of one tensor maps onto a part of another.
//!
//! All offsets and strides count elements. A stride of zero repeats an element; it is legal on
//! the source of a copy only.

use serde::{Deserialize, Serialize};

/// A strided region of one buffer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StridedBox {
    /// Number of elements along each dimension, outermost first.
    pub extents: Vec<usize>,
    /// First element.
    pub offset: usize,
    /// Distance between neighbours along each dimension.
    pub strides: Vec<usize>,
}

/// A strided region of a source and, element for element, of a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxCopy {
    /// Number of elements along each dimension, outermost first.
    pub extents: Vec<usize>,
    /// First element read.
    pub src_offset: usize,
    /// Strides of the source; zero repeats.
    pub src_strides: Vec<usize>,
    /// First element written.
    pub dst_offset: usize,
    /// Strides of the destination.
    pub dst_strides: Vec<usize>,
}

impl StridedBox {
    /// Number of elements, or `None` when the product overflows.
    pub fn elements(&self) -> Option<usize> {
        self.extents
            .iter()
            .try_fold(1usize, |n, &e| n.checked_mul(e))
    }

    /// One past the last element touched, zero for an empty box; `None` when the arithmetic
    /// overflows or the strides do not match the extents in number.
    pub fn end(&self) -> Option<usize> {
        region_end(&self.extents, self.offset, &self.strides)
    }
}

impl BoxCopy {
    /// Number of elements copied, or `None` when the product overflows.
    pub fn elements(&self) -> Option<usize> {
        self.src().elements()
    }

    /// The region read.
    pub fn src(&self) -> StridedBox {
        StridedBox {
            extents: self.extents.clone(),
            offset: self.src_offset,
            strides: self.src_strides.clone(),
        }
    }

    /// The region written.
    pub fn dst(&self) -> StridedBox {
        StridedBox {
            extents: self.extents.clone(),
            offset: self.dst_offset,
            strides: self.dst_strides.clone(),
        }
    }
}

fn region_end(extents: &[usize], offset: usize, strides: &[usize]) -> Option<usize> {
    if extents.len() != strides.len() {
        return None;
    }
    if extents.contains(&0) {
        return Some(0);
    }
    let mut last = offset;
    for (&extent, &stride) in extents.iter().zip(strides) {
        last = last.checked_add((extent - 1).checked_mul(stride)?)?;
    }
    last.checked_add(1)
}
