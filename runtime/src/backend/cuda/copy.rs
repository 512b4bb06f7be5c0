//! Strided copies on a device and between host and device.
//!
//! On the device, every box becomes copies of rows at equal distances, which the driver knows. To and
//! from the host only dense ranges cross the bus; the host spreads and collects their elements.
//!
//! Invariant: [`Boxes`] were checked when they were made, and each copy first compares their ends with
//! the views.

use super::lane::Lane;
use crate::backend::View;
use crate::boxes::Boxes;
use crate::{ResolveFault, RuntimeError};
use terrace_kernels::cuda::{ByteRows, DeviceAddress, Stream};
use terrace_plan::BoxCopy;

/// Queues the copies of `boxes`.
///
/// # Safety
/// As for [`crate::Backend::copy`], for what `stream` does.
pub(super) unsafe fn between(
    stream: &Stream,
    src: View,
    dst: View,
    boxes: &Boxes,
) -> Result<(), RuntimeError> {
    boxes.fits(src.len(), dst.len())?;
    if src.dtype() != dst.dtype() {
        return Err(ResolveFault::CopyDType {
            src: src.dtype(),
            dst: dst.dtype(),
        }
        .into());
    }
    for copy in boxes.iter() {
        for_each_rows(copy, src.dtype().bytes(), &mut |at| {
            let (from, to) = (address(src).plus(at.src), address(dst).plus(at.dst));
            // SAFETY: the box lies in the views; the caller rules out other access.
            unsafe { stream.copy_rows(from, to, at.rows) }
        })?;
    }
    Ok(())
}

/// Copies `boxes` from `host` to `dst` and returns when they are there.
///
/// # Safety
/// As for [`crate::Backend::upload`].
pub(super) unsafe fn upload(
    lane: &Lane,
    host: &[u8],
    dst: View,
    boxes: &Boxes,
) -> Result<(), RuntimeError> {
    let size = dst.dtype().bytes();
    boxes.fits(host.len() / size, dst.len())?;
    let bytes = boxes.dst_end() * size;
    let mut staging = lane.staging(bytes)?;
    let stream = lane.stream();
    if boxes.elements() < boxes.dst_end() {
        // What lies between the elements stays as it is.
        // SAFETY: the range lies in the view; the staging memory is held until the stream is waited for.
        unsafe { stream.download(address(dst), staging.memory(), bytes) }?;
        stream.synchronize()?;
    }
    boxes.apply_bytes(size, host, &mut staging.memory_mut().bytes_mut()[..bytes])?;
    // SAFETY: as above, and the caller rules out other access to the view.
    unsafe { stream.upload(staging.memory(), 0..bytes, address(dst)) }?;
    Ok(stream.synchronize()?)
}

/// Copies `boxes` from `src` to `host`.
///
/// # Safety
/// As for [`crate::Backend::download`].
pub(super) unsafe fn download(
    lane: &Lane,
    src: View,
    host: &mut [u8],
    boxes: &Boxes,
) -> Result<(), RuntimeError> {
    let size = src.dtype().bytes();
    boxes.fits(src.len(), host.len() / size)?;
    let bytes = boxes.src_end() * size;
    let staging = lane.staging(bytes)?;
    let stream = lane.stream();
    // SAFETY: the range lies in the view; the staging memory is held until the stream is waited for.
    unsafe { stream.download(address(src), staging.memory(), bytes) }?;
    stream.synchronize()?;
    boxes.apply_bytes(size, &staging.memory().bytes()[..bytes], host)
}

pub(super) const fn address(view: View) -> DeviceAddress {
    DeviceAddress(view.address() as u64)
}

/// Rows of a box and where the first ones begin, in bytes.
struct Rows {
    src: usize,
    dst: usize,
    rows: ByteRows,
}

/// Calls `visit` for copies of rows that are together the box, whose elements have `size` bytes.
fn for_each_rows<E>(
    copy: &BoxCopy,
    size: usize,
    visit: &mut impl FnMut(Rows) -> Result<(), E>,
) -> Result<(), E> {
    let dims = copy.extents.len();
    let dense = dims > 0 && copy.src_strides[dims - 1] == 1 && copy.dst_strides[dims - 1] == 1;
    let (inner, width) = match dense {
        true => (dims - 1, copy.extents[dims - 1]),
        false => (dims, 1),
    };
    // Rows must not lie on each other, which leaves out repeated sources.
    let apart = |dim: &usize| copy.src_strides[*dim] >= width && copy.dst_strides[*dim] >= width;
    let longest = (0..inner)
        .filter(apart)
        .max_by_key(|&dim| copy.extents[dim]);
    let rows = longest.map_or(
        ByteRows {
            width: width * size,
            rows: 1,
            src_pitch: width * size,
            dst_pitch: width * size,
        },
        |dim| ByteRows {
            width: width * size,
            rows: copy.extents[dim],
            src_pitch: copy.src_strides[dim] * size,
            dst_pitch: copy.dst_strides[dim] * size,
        },
    );
    let outer: Vec<usize> = (0..inner).filter(|dim| Some(*dim) != longest).collect();
    let places = Places {
        copy,
        size,
        rows,
        outer: &outer,
    };
    places.visit(copy.src_offset, copy.dst_offset, visit)
}

struct Places<'a> {
    copy: &'a BoxCopy,
    size: usize,
    rows: ByteRows,
    /// Dimensions that are walked through.
    outer: &'a [usize],
}

impl Places<'_> {
    fn visit<E>(
        &self,
        src: usize,
        dst: usize,
        visit: &mut impl FnMut(Rows) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((&dim, outer)) = self.outer.split_first() else {
            return visit(Rows {
                src: src * self.size,
                dst: dst * self.size,
                rows: self.rows,
            });
        };
        let inner = Places { outer, ..*self };
        for i in 0..self.copy.extents[dim] {
            let src = src + i * self.copy.src_strides[dim];
            let dst = dst + i * self.copy.dst_strides[dim];
            inner.visit(src, dst, visit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Rows, for_each_rows};
    use crate::boxes::Boxes;
    use std::convert::Infallible;
    use terrace_plan::BoxCopy;

    const SIZE: usize = 2;

    /// What the copies of rows make of `len` elements, and how many copies there are.
    fn by_rows(copies: &[BoxCopy], src: &[[u8; SIZE]], len: usize) -> (Vec<[u8; SIZE]>, usize) {
        let (mut dst, mut count) = (vec![[0; SIZE]; len], 0);
        let (from, to) = (src.as_flattened(), dst.as_flattened_mut());
        for copy in Boxes::new(copies).unwrap().iter() {
            let mut visit = |Rows { src, dst, rows }| -> Result<(), Infallible> {
                assert!(rows.width <= rows.src_pitch && rows.width <= rows.dst_pitch);
                count += 1;
                for row in 0..rows.rows {
                    let (a, b) = (src + row * rows.src_pitch, dst + row * rows.dst_pitch);
                    to[b..b + rows.width].copy_from_slice(&from[a..a + rows.width]);
                }
                Ok(())
            };
            for_each_rows(copy, SIZE, &mut visit).unwrap();
        }
        (dst, count)
    }

    fn elements(len: usize) -> Vec<[u8; SIZE]> {
        (1..=len as u16).map(u16::to_le_bytes).collect()
    }

    fn copy(extents: &[usize], src: (usize, &[usize]), dst: (usize, &[usize])) -> BoxCopy {
        BoxCopy {
            extents: extents.to_vec(),
            src_offset: src.0,
            src_strides: src.1.to_vec(),
            dst_offset: dst.0,
            dst_strides: dst.1.to_vec(),
        }
    }

    #[test]
    fn rows_copy_what_boxes_say() {
        let src = elements(400);
        for (copies, count) in [
            // Heads of packed rows: one copy.
            (copy(&[5, 2, 8], (3, &[48, 16, 1]), (0, &[16, 8, 1])), 2),
            (copy(&[10, 3], (0, &[24, 1]), (4, &[3, 1])), 1),
            // Dense: one row.
            (copy(&[4, 6], (7, &[6, 1]), (1, &[6, 1])), 1),
            // Transposed: a row of one element each.
            (copy(&[4, 6], (0, &[1, 4]), (0, &[6, 1])), 4),
            // A repeated source.
            (copy(&[3, 5], (9, &[0, 1]), (0, &[5, 1])), 3),
            (copy(&[], (2, &[]), (3, &[])), 1),
        ] {
            let mut expected = elements(0);
            expected.resize(400, [0; SIZE]);
            let boxes = Boxes::new(std::slice::from_ref(&copies)).unwrap();
            boxes.apply(&src, &mut expected).unwrap();
            let (found, copied) = by_rows(std::slice::from_ref(&copies), &src, 400);
            assert_eq!(found, expected, "{copies:?}");
            assert_eq!(copied, count, "{copies:?}");
        }
    }
}
