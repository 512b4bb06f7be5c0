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
        product(&self.extents)
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

/// Why a box is illegal wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoxFault {
    /// Extents and strides differ in number.
    #[error("{extents} extents, but {strides} strides")]
    Dimensions {
        /// Number of extents.
        extents: usize,
        /// Number of strides.
        strides: usize,
    },
    /// The number of elements or the last element overflows.
    #[error("its size overflows")]
    Overflow,
    /// Two elements are written to one place, or cannot be proved not to be.
    #[error("its strides write elements onto each other")]
    Overlap,
    /// The region read ends after the tensor.
    #[error("reads up to element {end} of {len}")]
    Source {
        /// One past the last element read.
        end: usize,
        /// Elements of the tensor.
        len: usize,
    },
    /// The region written ends after the tensor.
    #[error("writes up to element {end} of {len}")]
    Destination {
        /// One past the last element written.
        end: usize,
        /// Elements of the tensor.
        len: usize,
    },
}

/// What [`check_box`] found out about a legal box.
#[derive(Clone, Copy)]
pub(crate) struct BoxFacts {
    pub(crate) elements: usize,
    pub(crate) src_end: usize,
    pub(crate) dst_end: usize,
}

impl BoxFacts {
    /// Whether the box stays inside a source of `src` and a destination of `dst` elements.
    pub(crate) fn inside(&self, src: usize, dst: usize) -> Result<(), BoxFault> {
        if self.src_end > src {
            return Err(BoxFault::Source {
                end: self.src_end,
                len: src,
            });
        }
        if self.dst_end > dst {
            return Err(BoxFault::Destination {
                end: self.dst_end,
                len: dst,
            });
        }
        Ok(())
    }
}

/// Proves that a copy neither overflows nor writes an element twice.
pub(crate) fn check_box(copy: &BoxCopy) -> Result<BoxFacts, BoxFault> {
    let extents = &copy.extents;
    let (elements, src_end) = check_region(extents, copy.src_offset, &copy.src_strides)?;
    let (_, dst_end) = check_region(extents, copy.dst_offset, &copy.dst_strides)?;
    if !distinct(extents, &copy.dst_strides) {
        return Err(BoxFault::Overlap);
    }
    Ok(BoxFacts {
        elements,
        src_end,
        dst_end,
    })
}

/// Elements and end of a region.
pub(crate) fn check_region(
    extents: &[usize],
    offset: usize,
    strides: &[usize],
) -> Result<(usize, usize), BoxFault> {
    if extents.len() != strides.len() {
        return Err(BoxFault::Dimensions {
            extents: extents.len(),
            strides: strides.len(),
        });
    }
    let elements = product(extents).ok_or(BoxFault::Overflow)?;
    let end = region_end(extents, offset, strides).ok_or(BoxFault::Overflow)?;
    Ok((elements, end))
}

/// The product of sizes, or `None` when it overflows; zero whenever a size is zero.
pub(crate) fn product(sizes: &[usize]) -> Option<usize> {
    if sizes.contains(&0) {
        return Some(0);
    }
    sizes
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))
}

/// Whether strides give every element a place of its own: sorted by stride, each dimension steps
/// over everything that the ones before it reach. Every part of a dense tensor does, however its
/// dimensions are split or ordered.
pub(crate) fn distinct(extents: &[usize], strides: &[usize]) -> bool {
    if extents.contains(&0) {
        return true;
    }
    let mut dims: Vec<(usize, usize)> = strides
        .iter()
        .zip(extents)
        .filter(|(_, extent)| **extent > 1)
        .map(|(&stride, &extent)| (stride, extent))
        .collect();
    dims.sort_unstable();
    let mut reach = 0usize;
    for (stride, extent) in dims {
        if stride <= reach {
            return false;
        }
        let Some(next) = (extent - 1)
            .checked_mul(stride)
            .and_then(|n| n.checked_add(reach))
        else {
            return false;
        };
        reach = next;
    }
    true
}

pub(crate) fn region_end(extents: &[usize], offset: usize, strides: &[usize]) -> Option<usize> {
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
