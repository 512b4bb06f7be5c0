//! Box copies in the form that a step loop runs: checked once, merged into long runs.
//!
//! Invariants of [`Boxes`]: extents and strides agree in number, no box is empty, all sums fit, and
//! every element read lies below `src_end`, every element written below `dst_end`.

use crate::{ResolveFault, RuntimeError};
use terrace_plan::{BoxCopy, StridedBox};

/// A list of strided copies whose bounds are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boxes {
    boxes: Vec<BoxCopy>,
    src_end: usize,
    dst_end: usize,
    elements: usize,
}

impl Boxes {
    /// Checks `boxes` and merges dimensions that are dense on both sides.
    ///
    /// # Errors
    /// When extents and strides differ in number or an offset overflows.
    pub fn new(boxes: &[BoxCopy]) -> Result<Self, RuntimeError> {
        let mut checked = Self::default();
        for copy in boxes {
            checked.push(copy)?;
        }
        Ok(checked)
    }

    /// The copies from the regions `sends` of one buffer to the regions `receives` of another,
    /// element by element in order.
    ///
    /// # Errors
    /// When the lists differ in their number of elements, or as for [`Boxes::new`].
    pub fn matched(sends: &[StridedBox], receives: &[StridedBox]) -> Result<Self, RuntimeError> {
        let same = sends.len() == receives.len()
            && sends
                .iter()
                .zip(receives)
                .all(|(send, receive)| send.extents == receive.extents);
        if same {
            let pairs: Vec<BoxCopy> = sends.iter().zip(receives).map(pair).collect();
            return Self::new(&pairs);
        }
        matched_runs(sends, receives)
    }

    /// The copies that put the elements of regions side by side, in order.
    ///
    /// # Errors
    /// As for [`Boxes::new`].
    pub fn packed(regions: &[StridedBox]) -> Result<Self, RuntimeError> {
        Self::new(&beside(regions, pair))
    }

    /// The copies that put elements, which lie side by side in order, into regions.
    ///
    /// # Errors
    /// As for [`Boxes::new`].
    pub fn unpacked(regions: &[StridedBox]) -> Result<Self, RuntimeError> {
        Self::new(&beside(regions, |(region, line)| pair((line, region))))
    }

    /// The copy of `len` neighbouring elements from the beginning of one buffer to that of another.
    pub fn dense(len: usize) -> Self {
        let copy = BoxCopy {
            extents: vec![len],
            src_offset: 0,
            src_strides: vec![1],
            dst_offset: 0,
            dst_strides: vec![1],
        };
        let boxes = if len == 0 { Vec::new() } else { vec![copy] };
        Self {
            boxes,
            src_end: len,
            dst_end: len,
            elements: len,
        }
    }

    /// The same copy in two parts: the elements read go side by side, in order, and from there to where
    /// they are written.
    ///
    /// # Errors
    /// None for boxes that were checked.
    pub fn halves(&self) -> Result<(Self, Self), RuntimeError> {
        let (mut pack, mut unpack) = (Vec::new(), Vec::new());
        let mut place = 0;
        for copy in &self.boxes {
            let (extents, dense) = (copy.extents.clone(), dense(&copy.extents));
            pack.push(BoxCopy {
                extents: extents.clone(),
                src_offset: copy.src_offset,
                src_strides: copy.src_strides.clone(),
                dst_offset: place,
                dst_strides: dense.clone(),
            });
            unpack.push(BoxCopy {
                extents,
                src_offset: place,
                src_strides: dense,
                dst_offset: copy.dst_offset,
                dst_strides: copy.dst_strides.clone(),
            });
            place += copy.extents.iter().product::<usize>();
        }
        Ok((Self::new(&pack)?, Self::new(&unpack)?))
    }

    /// First element read and first one written, when neighbours are copied to neighbours.
    #[cfg(feature = "cuda")]
    pub(crate) fn run(&self) -> Option<(usize, usize)> {
        let [copy] = &self.boxes[..] else {
            return None;
        };
        let dense = |strides: &[usize]| matches!(strides, [] | [1]);
        let dense = dense(&copy.src_strides) && dense(&copy.dst_strides);
        dense.then_some((copy.src_offset, copy.dst_offset))
    }

    /// One past the last element read.
    pub const fn src_end(&self) -> usize {
        self.src_end
    }

    /// One past the last element written.
    pub const fn dst_end(&self) -> usize {
        self.dst_end
    }

    /// Number of elements copied.
    pub const fn elements(&self) -> usize {
        self.elements
    }

    /// Whether nothing is copied.
    pub const fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// The checked copies; none is empty.
    pub fn iter(&self) -> impl Iterator<Item = &BoxCopy> {
        self.boxes.iter()
    }

    /// Applies the copies to bytes, of which an element has `size`, two or four.
    ///
    /// # Errors
    /// As for [`Boxes::apply`].
    pub(crate) fn apply_bytes(
        &self,
        size: usize,
        src: &[u8],
        dst: &mut [u8],
    ) -> Result<(), RuntimeError> {
        match size {
            2 => self.apply(src.as_chunks::<2>().0, dst.as_chunks_mut::<2>().0),
            _ => self.apply(src.as_chunks::<4>().0, dst.as_chunks_mut::<4>().0),
        }
    }

    /// Applies the copies to slices.
    ///
    /// # Errors
    /// When a slice ends before the boxes do.
    pub fn apply<T: Copy>(&self, src: &[T], dst: &mut [T]) -> Result<(), RuntimeError> {
        self.fits(src.len(), dst.len())?;
        for copy in &self.boxes {
            for_each_run(copy, &mut |run| {
                for i in 0..run.len {
                    dst[run.dst + i * run.dst_stride] = src[run.src + i * run.src_stride];
                }
            });
        }
        Ok(())
    }

    /// Refuses buffers of `src` and `dst` elements that end before the boxes do.
    pub(crate) fn fits(&self, src: usize, dst: usize) -> Result<(), RuntimeError> {
        if self.src_end <= src && self.dst_end <= dst {
            return Ok(());
        }
        Err(ResolveFault::BoxOutOfRange {
            src_end: self.src_end,
            src,
            dst_end: self.dst_end,
            dst,
        }
        .into())
    }

    fn push(&mut self, copy: &BoxCopy) -> Result<(), RuntimeError> {
        let ends = copy.src().end().zip(copy.dst().end());
        let sums = ends
            .zip(copy.elements())
            .and_then(|(ends, elements)| Some((ends, self.elements.checked_add(elements)?)));
        let Some(((src_end, dst_end), elements)) = sums else {
            return Err(ResolveFault::MalformedBox { copy: copy.clone() }.into());
        };
        if elements > self.elements {
            self.elements = elements;
            self.src_end = self.src_end.max(src_end);
            self.dst_end = self.dst_end.max(dst_end);
            self.boxes.push(merged(copy));
        }
        Ok(())
    }
}

/// Elements at equal distances in source and destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) src: usize,
    pub(crate) dst: usize,
    pub(crate) len: usize,
    pub(crate) src_stride: usize,
    pub(crate) dst_stride: usize,
}

/// Calls `visit` for every innermost run of `copy` in order.
pub(crate) fn for_each_run(copy: &BoxCopy, visit: &mut impl FnMut(Run)) {
    walk(copy, 0, copy.src_offset, copy.dst_offset, visit);
}

/// Calls `visit` for the runs of the part of `copy` that lies at `index` of its outermost dimension.
pub(crate) fn for_each_run_at(copy: &BoxCopy, index: usize, visit: &mut impl FnMut(Run)) {
    let src = copy.src_offset + index * copy.src_strides[0];
    let dst = copy.dst_offset + index * copy.dst_strides[0];
    walk(copy, 1, src, dst, visit);
}

fn walk(copy: &BoxCopy, dim: usize, src: usize, dst: usize, visit: &mut impl FnMut(Run)) {
    match copy.extents.len() - dim {
        0 => visit(Run {
            src,
            dst,
            len: 1,
            src_stride: 1,
            dst_stride: 1,
        }),
        1 => visit(Run {
            src,
            dst,
            len: copy.extents[dim],
            src_stride: copy.src_strides[dim],
            dst_stride: copy.dst_strides[dim],
        }),
        2.. => {
            for i in 0..copy.extents[dim] {
                let src = src + i * copy.src_strides[dim];
                let dst = dst + i * copy.dst_strides[dim];
                walk(copy, dim + 1, src, dst, visit);
            }
        }
    }
}

/// The same copy without dimensions of one element and with dense neighbours merged. At most 64
/// dimensions remain, since each doubles a number of elements that fits a word.
fn merged(copy: &BoxCopy) -> BoxCopy {
    let mut out = BoxCopy {
        extents: Vec::new(),
        src_offset: copy.src_offset,
        src_strides: Vec::new(),
        dst_offset: copy.dst_offset,
        dst_strides: Vec::new(),
    };
    for (dim, &extent) in copy.extents.iter().enumerate() {
        let (src, dst) = (copy.src_strides[dim], copy.dst_strides[dim]);
        if extent == 1 {
            continue;
        }
        let outer = out.extents.len().wrapping_sub(1);
        let dense = out.extents.last().is_some_and(|_| {
            Some(out.src_strides[outer]) == src.checked_mul(extent)
                && Some(out.dst_strides[outer]) == dst.checked_mul(extent)
        });
        if dense {
            out.extents[outer] *= extent;
            out.src_strides[outer] = src;
            out.dst_strides[outer] = dst;
        } else {
            out.extents.push(extent);
            out.src_strides.push(src);
            out.dst_strides.push(dst);
        }
    }
    out
}

/// Strides of a dense row-major tensor.
fn dense(extents: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; extents.len()];
    for dim in (1..extents.len()).rev() {
        strides[dim - 1] = strides[dim] * extents[dim];
    }
    strides
}

fn pair((send, receive): (&StridedBox, &StridedBox)) -> BoxCopy {
    BoxCopy {
        extents: send.extents.clone(),
        src_offset: send.offset,
        src_strides: send.strides.clone(),
        dst_offset: receive.offset,
        dst_strides: receive.strides.clone(),
    }
}

/// Copies between regions and lines of elements, one behind the other, as `copy` makes them of a pair.
fn beside(
    regions: &[StridedBox],
    copy: impl Fn((&StridedBox, &StridedBox)) -> BoxCopy,
) -> Vec<BoxCopy> {
    let mut place = 0usize;
    let mut copies = Vec::new();
    for region in regions {
        let line = StridedBox {
            extents: region.extents.clone(),
            offset: place,
            strides: dense(&region.extents),
        };
        copies.push(copy((region, &line)));
        // An overflow is found when the copies are checked.
        place = place.saturating_add(region.elements().unwrap_or(usize::MAX));
    }
    copies
}

/// Boxes cut differently on both sides are matched run by run.
fn matched_runs(sends: &[StridedBox], receives: &[StridedBox]) -> Result<Boxes, RuntimeError> {
    let mut src = line_runs(sends)?.into_iter();
    let mut dst = line_runs(receives)?.into_iter();
    let mut copies = Vec::new();
    let (mut from, mut to) = (src.next(), dst.next());
    while let (Some(a), Some(b)) = (&mut from, &mut to) {
        let len = a.len.min(b.len);
        copies.push(BoxCopy {
            extents: vec![len],
            src_offset: a.src,
            src_strides: vec![a.src_stride],
            dst_offset: b.src,
            dst_strides: vec![b.src_stride],
        });
        from = a.rest(len).or_else(|| src.next());
        to = b.rest(len).or_else(|| dst.next());
    }
    if from.is_some() || to.is_some() {
        return Err(ResolveFault::UnmatchedTransfer {
            sent: count(sends),
            received: count(receives),
        }
        .into());
    }
    Boxes::new(&copies)
}

impl Run {
    fn rest(self, taken: usize) -> Option<Self> {
        (taken < self.len).then(|| Self {
            src: self.src + taken * self.src_stride,
            len: self.len - taken,
            ..self
        })
    }
}

fn line_runs(regions: &[StridedBox]) -> Result<Vec<Run>, RuntimeError> {
    // A region paired with itself is a copy, so that its runs come from the same checks and walk.
    let copies: Vec<BoxCopy> = regions
        .iter()
        .map(|region| pair((region, region)))
        .collect();
    let mut runs = Vec::new();
    for copy in Boxes::new(&copies)?.iter() {
        for_each_run(copy, &mut |run| runs.push(run));
    }
    Ok(runs)
}

fn count(regions: &[StridedBox]) -> usize {
    regions
        .iter()
        .map(|region| region.elements().unwrap_or(usize::MAX))
        .fold(0, usize::saturating_add)
}
