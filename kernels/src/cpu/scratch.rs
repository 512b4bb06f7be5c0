//! Working memory of a thread, kept from one task to the next.
//!
//! Invariant: what a task finds in it is unspecified; a task writes what it reads.

use std::cell::Cell;

use super::gemm::{LANES, Line};

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `count` lines of working memory.
#[inline(always)]
pub(super) fn with_scratch(count: usize, f: impl FnOnce(&mut [Line])) {
    let mut lines = SCRATCH.take();
    if lines.len() < count {
        // Before it grows, so that there are never two.
        drop(lines);
        lines = vec![Line([0.0; LANES]); count];
    }
    f(&mut lines[..count]);
    SCRATCH.set(lines);
}
