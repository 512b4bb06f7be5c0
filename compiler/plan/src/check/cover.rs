//! Proof that no element of a tensor is written twice.
//!
//! Every element is marked off, in runs as long as the boxes allow. The work of one check is
//! bounded, because a few numbers of an untrusted plan may describe any number of elements: tensors
//! above [`EXACT_ELEMENTS`], and what comes after [`Cover::WORK`] words, are taken as proved. The
//! callers know that each box writes distinct places and compare the number of elements.

use crate::{BoxCopy, StridedBox};

/// Tensors up to this size are proved element by element.
const EXACT_ELEMENTS: usize = 1 << 28;

/// A legal region that is written.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    extents: &'a [usize],
    offset: usize,
    strides: &'a [usize],
}

impl<'a> Written<'a> {
    pub(super) fn by(copy: &'a BoxCopy) -> Self {
        Self {
            extents: &copy.extents,
            offset: copy.dst_offset,
            strides: &copy.dst_strides,
        }
    }

    pub(super) fn region(region: &'a StridedBox) -> Self {
        Self {
            extents: &region.extents,
            offset: region.offset,
            strides: &region.strides,
        }
    }
}

/// The marks of one tensor after the other, and the work left.
pub(super) struct Cover {
    left: usize,
    marks: Vec<u64>,
}

impl Cover {
    /// Words of marks that one check looks at.
    const WORK: usize = 1 << 27;

    pub(super) const fn new() -> Self {
        Self {
            left: Self::WORK,
            marks: Vec::new(),
        }
    }

    /// The first element found that is written twice. All regions are legal and end within `len`
    /// elements.
    pub(super) fn twice<'a>(
        &mut self,
        len: usize,
        regions: impl Iterator<Item = Written<'a>>,
    ) -> Option<usize> {
        let words = len.div_ceil(64);
        if len > EXACT_ELEMENTS || words > self.left {
            return None;
        }
        self.left -= words;
        self.marks.clear();
        self.marks.resize(words, 0);
        regions
            .filter(|region| !region.extents.contains(&0))
            .find_map(|region| self.mark(region))
    }

    fn mark(&mut self, region: Written<'_>) -> Option<usize> {
        let (run, outer) = runs(region);
        let mut at = vec![0usize; outer.len()];
        let mut place = region.offset;
        loop {
            self.left = self.left.checked_sub(run / 64 + 1)?;
            if let Some(element) = mark_run(&mut self.marks, place, run) {
                return Some(element);
            }
            let mut dim = 0;
            loop {
                let &(stride, extent) = outer.get(dim)?;
                at[dim] += 1;
                if at[dim] < extent {
                    place += stride;
                    break;
                }
                place -= stride * (extent - 1);
                at[dim] = 0;
                dim += 1;
            }
        }
    }
}

/// Elements side by side, and the other dimensions as `(stride, extent)`, innermost first.
fn runs(region: Written<'_>) -> (usize, Vec<(usize, usize)>) {
    let dims = region.strides.iter().zip(region.extents);
    let mut dims: Vec<(usize, usize)> = dims
        .filter(|(_, extent)| **extent > 1)
        .map(|(&stride, &extent)| (stride, extent))
        .collect();
    dims.sort_unstable();
    let mut run = 1;
    let mut inner = 0;
    for &(stride, extent) in &dims {
        if stride != run {
            break;
        }
        run *= extent;
        inner += 1;
    }
    dims.drain(..inner);
    (run, dims)
}

/// Marks `len` places from `start`; the first one that was marked before.
fn mark_run(marks: &mut [u64], start: usize, len: usize) -> Option<usize> {
    let (mut at, end) = (start, start + len);
    while at < end {
        let (word, bit) = (at / 64, at % 64);
        let count = (64 - bit).min(end - at);
        let mask = (u64::MAX >> (64 - count)) << bit;
        let before = marks[word] & mask;
        if before != 0 {
            return Some(word * 64 + before.trailing_zeros() as usize);
        }
        marks[word] |= mask;
        at += count;
    }
    None
}
