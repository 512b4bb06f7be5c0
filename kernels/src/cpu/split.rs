//! Dividing an output between the threads of the current rayon pool, and compiling a loop for several
//! instruction sets.
//!
//! Invariants: a row is always handled whole by one call, so its arithmetic cannot depend on the
//! division; the wider instruction sets contain no fused multiply-add, so every version of a loop
//! gives the same bits.

use std::marker::PhantomData;

use rayon::prelude::*;

/// Elements that one task handles at least, so that scheduling stays cheap beside the work.
const GRAIN: usize = 1 << 14;

/// Calls `f(row, y_row)` for every row of `width` elements of `y`, in parallel when `y` is large.
///
/// A length that is no multiple of `width` leaves the rest untouched; callers check lengths first.
pub(super) fn for_rows<T, F>(y: &mut [T], width: usize, f: F)
where
    T: Send,
    F: Fn(usize, &mut [T]) + Sync,
{
    if width == 0 {
        return;
    }
    if y.len() <= GRAIN {
        y.chunks_exact_mut(width)
            .enumerate()
            .for_each(|(row, out)| f(row, out));
        return;
    }
    let rows = (GRAIN / width).max(1);
    y.par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (row, out) in chunk.chunks_exact_mut(width).enumerate() {
                f(task * rows + row, out);
            }
        });
}

/// Calls `f(first, block)` for consecutive blocks of `y`, `first` being the index of the block's
/// first element. For elementwise work only: where the blocks end is not part of the contract.
pub(super) fn for_blocks<T, F>(y: &mut [T], f: F)
where
    T: Send,
    F: Fn(usize, &mut [T]) + Sync,
{
    y.par_chunks_mut(GRAIN)
        .enumerate()
        .for_each(|(task, block)| f(task * GRAIN, block));
}

/// An output that tasks write in pieces which do not lie behind each other.
pub(super) struct Scattered<'a> {
    first: *mut f32,
    len: usize,
    elements: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a mutable slice of f32, of which `slice` hands out disjoint parts only.
unsafe impl Sync for Scattered<'_> {}

impl<'a> Scattered<'a> {
    /// All of `y`.
    pub(super) fn new(y: &'a mut [f32]) -> Self {
        Self {
            first: y.as_mut_ptr(),
            len: y.len(),
            elements: PhantomData,
        }
    }

    /// The elements from `first` on.
    ///
    /// # Safety
    /// They are not part of any other slice that is still in use.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn slice(&self, first: usize, count: usize) -> &mut [f32] {
        assert!(first <= self.len && count <= self.len - first);
        // SAFETY: inside the output, and by the caller's promise nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(first), count) }
    }
}

/// Defines a function that is compiled for the base instruction set, AVX2 and AVX-512, and picks the
/// widest that this machine has at each call. The body must be plain, vectorisable Rust.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) {
                    body($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: all four features were detected on this machine just above.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was detected on this machine just above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(super) use multiversion;
