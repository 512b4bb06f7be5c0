//! Walking a strided box of a destination together with an index into a source.
//!
//! Invariant: no element of a checked box is visited twice, so it can be divided between threads as
//! disjoint slices.

use rayon::prelude::*;

use crate::boxes::{BoxDims, Dim};

/// Elements from which on a walk is divided between threads.
const PARALLEL: usize = 1 << 15;

impl BoxDims {
    /// Calls `run(slice, from, extent, to_stride, from_stride)` for every innermost run: `slice` starts
    /// at the run's first destination element, `from` is the index of its source.
    pub fn run<T, F>(&self, to: &mut [T], run: F)
    where
        T: Send,
        F: Fn(&mut [T], u64, Dim) + Sync,
    {
        if self.elements == 0 {
            return;
        }
        walk(
            &mut to[self.to_offset..],
            self.from_offset,
            &self.dims,
            self.elements,
            &run,
        );
    }
}

fn walk<T, F>(to: &mut [T], from: u64, dims: &[Dim], elements: usize, run: &F)
where
    T: Send,
    F: Fn(&mut [T], u64, Dim) + Sync,
{
    let Some((&dim, inner)) = dims.split_first() else {
        return run(
            to,
            from,
            Dim {
                extent: 1,
                to: 1,
                from: 0,
            },
        );
    };
    if inner.is_empty() && elements < PARALLEL {
        return run(to, from, dim);
    }
    if elements < PARALLEL {
        for (i, slice) in to.chunks_mut(dim.to).take(dim.extent).enumerate() {
            walk(
                slice,
                from + i as u64 * dim.from,
                inner,
                elements / dim.extent,
                run,
            );
        }
        return;
    }
    if inner.is_empty() {
        let step = PARALLEL.min(dim.extent);
        let tasks = dim.extent.div_ceil(step);
        to.par_chunks_mut(dim.to.saturating_mul(step))
            .take(tasks)
            .enumerate()
            .for_each(|(i, slice)| {
                let extent = step.min(dim.extent - i * step);
                run(
                    slice,
                    from + (i * step) as u64 * dim.from,
                    Dim { extent, ..dim },
                );
            });
        return;
    }
    let each = elements / dim.extent;
    to.par_chunks_mut(dim.to)
        .take(dim.extent)
        .enumerate()
        .with_min_len((PARALLEL / 2 / each).max(1))
        .for_each(|(i, slice)| walk(slice, from + i as u64 * dim.from, inner, each, run));
}
