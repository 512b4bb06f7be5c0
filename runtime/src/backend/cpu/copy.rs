//! Strided copies between raw addresses, divided over the threads of the current pool.
//!
//! Invariant: [`Boxes`] were checked when they were made, and each copy first compares their ends with
//! the views, so no element outside a view is touched.

use crate::backend::View;
use crate::boxes::{Boxes, Run, for_each_run, for_each_run_at};
use crate::{ResolveFault, RuntimeError};
use rayon::prelude::*;
use terrace_plan::BoxCopy;

/// Elements from which a box is divided over threads: below, waking a thread costs more.
const PARALLEL: usize = 1 << 17;

/// Copies `boxes` from `src` to `dst`.
///
/// # Safety
/// As for [`crate::Backend::copy`].
pub(super) unsafe fn copy(src: View, dst: View, boxes: &Boxes) -> Result<(), RuntimeError> {
    boxes.fits(src.len(), dst.len())?;
    if src.dtype().bytes() != dst.dtype().bytes() {
        return Err(ResolveFault::CopyDType {
            src: src.dtype(),
            dst: dst.dtype(),
        }
        .into());
    }
    for copy in boxes.iter() {
        // SAFETY: the boxes lie in the views, elements have the size and alignment of the type that
        // the copy is made for, and the caller rules out concurrent access.
        unsafe {
            match src.dtype().bytes() {
                2 => copy_box::<u16>(src.address(), dst.address(), copy),
                _ => copy_box::<u32>(src.address(), dst.address(), copy),
            }
        }
    }
    Ok(())
}

/// # Safety
/// All elements of the box must be valid elements of `T`, aligned and free of concurrent access.
unsafe fn copy_box<T: Copy>(src: usize, dst: usize, copy: &BoxCopy) {
    let outer = copy.extents.first().copied().unwrap_or(1);
    let elements: usize = copy.extents.iter().product();
    // A destination stride of zero would let two threads write one element.
    let divisible = copy.extents.len() > 1 && copy.dst_strides[0] > 0;
    if elements < PARALLEL || !divisible || rayon::current_num_threads() == 1 {
        for_each_run(copy, &mut |run| {
            // SAFETY: as for this function; the walk stays in the box.
            unsafe { copy_run::<T>(src, dst, run) };
        });
        return;
    }
    let at_least = (PARALLEL / 4).div_ceil(elements / outer);
    (0..outer)
        .into_par_iter()
        .with_min_len(at_least)
        .for_each(|index| {
            for_each_run_at(copy, index, &mut |run| {
                // SAFETY: as for this function; the plan's destinations are distinct, so threads
                // write distinct elements.
                unsafe { copy_run::<T>(src, dst, run) };
            });
        });
}

/// # Safety
/// As for [`copy_box`].
unsafe fn copy_run<T: Copy>(src: usize, dst: usize, run: Run) {
    let from = std::ptr::with_exposed_provenance::<T>(src).wrapping_add(run.src);
    let to = std::ptr::with_exposed_provenance_mut::<T>(dst).wrapping_add(run.dst);
    // SAFETY: the caller promises that every element of the run is valid; raw copies allow that
    // source and destination are regions of one buffer.
    unsafe {
        if run.src_stride == 1 && run.dst_stride == 1 {
            std::ptr::copy(from, to, run.len);
        } else {
            for i in 0..run.len {
                to.add(i * run.dst_stride)
                    .write(from.add(i * run.src_stride).read());
            }
        }
    }
}
