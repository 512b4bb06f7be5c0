//! plan-memory: places buffers in an arena so that live ranges that overlap in time never overlap
//! in space.
//!
//! Largest first, each at the lowest free offset: for the few buffer sizes of a transformer this
//! reaches the lower bound, the largest sum of buffers alive at once.
//!
//! ```text
//! before  a: 64 bytes, steps 0..2   b: 64 bytes, steps 1..3   c: 64 bytes, steps 3..4
//! after   a @0   b @64   c @0
//! ```

use terrace_plan::Buffer;

/// A buffer to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveRange {
    /// Size in bytes.
    pub bytes: usize,
    /// Position at which it is first written.
    pub first: usize,
    /// Last position at which it is used.
    pub last: usize,
}

/// Offsets of buffers and the size of the region that holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// One offset per buffer, in the order given; multiples of [`Buffer::ALIGNMENT`].
    pub offsets: Vec<usize>,
    /// Bytes of the region.
    pub bytes: usize,
}

/// Places buffers that share one region by live range.
pub fn place(ranges: &[LiveRange]) -> Placement {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(ranges[i].bytes), ranges[i].first, i));
    let mut offsets = vec![0; ranges.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for i in order {
        let offset = lowest_gap(&placed, ranges, &offsets, i);
        offsets[i] = offset;
        bytes = bytes.max(offset + aligned(ranges[i].bytes));
        let at = placed.partition_point(|&p| offsets[p] <= offset);
        placed.insert(at, i);
    }
    Placement { offsets, bytes }
}

/// Places buffers side by side.
pub fn stack(sizes: impl IntoIterator<Item = usize>) -> Placement {
    let mut placement = Placement::default();
    for size in sizes {
        placement.offsets.push(placement.bytes);
        placement.bytes += aligned(size);
    }
    placement
}

/// The lowest offset at which buffer `i` meets no placed buffer; `placed` is sorted by offset.
fn lowest_gap(placed: &[usize], ranges: &[LiveRange], offsets: &[usize], i: usize) -> usize {
    let wanted = aligned(ranges[i].bytes);
    let mut offset = 0;
    for &other in placed {
        let (a, b) = (&ranges[i], &ranges[other]);
        if a.last < b.first || b.last < a.first {
            continue;
        }
        if offset + wanted <= offsets[other] {
            break;
        }
        offset = offset.max(offsets[other] + aligned(b.bytes));
    }
    offset
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(Buffer::ALIGNMENT)
}
