//! The micro-tile: a few rows times a few panels, summed in registers.
//!
//! Invariants: every element of the tile is one chain of multiply-adds from zero, in the order of the
//! depth; tiles of another size give the same bits.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Avx2, Avx512};
use crate::cpu::simd::{Portable, Simd};

/// Operands of a micro-tile `c[r][16 p + l] = sum over d of a[r][d] * b[p][d][l]`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Tile {
    /// Terms of the sum.
    pub depth: usize,
    /// Rows; the distance between them is a parameter of the tile.
    pub a: *const f32,
    /// Panels of 16 columns.
    pub b: *const f32,
    /// Elements between panels.
    pub b_panel: usize,
    /// Result.
    pub c: *mut f32,
    /// Elements between rows of the result.
    pub c_row: usize,
    /// What is done with the result.
    pub store: Store,
}

/// How a tile is stored.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Store {
    /// c = tile.
    Set,
    /// c = c + tile.
    Add,
    /// c = c * factor of the row + tile.
    Scale(*const f32),
}

/// The tile of an instruction set, as large as its registers allow.
pub(in crate::cpu) trait Micro: Simd {
    /// Rows of a tile.
    const ROWS: usize;
    /// Panels of a tile at most.
    const PANELS: usize;

    /// Computes `ROWS` rows of `panels` panels.
    ///
    /// # Safety
    /// `1 <= panels <= PANELS`, and the pointers are valid for that many rows and panels: reads of
    /// `depth` elements of each row of `a`, `STRIDE` apart; reads of `16 * depth` elements of each
    /// panel of `b`; reads and writes of `16 * panels` elements of each row of `c`; reads of a factor
    /// per row.
    unsafe fn tile<const STRIDE: usize>(self, panels: usize, tile: &Tile);
}

#[cfg(target_arch = "x86_64")]
impl Micro for Avx512 {
    const ROWS: usize = 14;
    const PANELS: usize = 2;

    #[inline(always)]
    unsafe fn tile<const STRIDE: usize>(self, panels: usize, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            if panels == 1 {
                compute::<Self, STRIDE, 14, 1>(self, tile);
            } else {
                compute::<Self, STRIDE, 14, 2>(self, tile);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Micro for Avx2 {
    const ROWS: usize = 6;
    const PANELS: usize = 1;

    #[inline(always)]
    unsafe fn tile<const STRIDE: usize>(self, _panels: usize, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, STRIDE, 6, 2>(self, tile) };
    }
}

impl Micro for Portable {
    const ROWS: usize = 2;
    const PANELS: usize = 1;

    #[inline(always)]
    unsafe fn tile<const STRIDE: usize>(self, _panels: usize, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, STRIDE, 2, 1>(self, tile) };
    }
}

/// A tile of `ROWS` rows and `VECTORS` vectors.
///
/// # Safety
/// As for [`Micro::tile`].
#[inline(always)]
unsafe fn compute<S: Simd, const STRIDE: usize, const ROWS: usize, const VECTORS: usize>(
    s: S,
    tile: &Tile,
) {
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    let mut b = [tile.b; VECTORS];
    for (v, b) in b.iter_mut().enumerate() {
        let column = v * S::LANES;
        *b = b.wrapping_add(column / LANES * tile.b_panel + column % LANES);
    }
    for d in 0..tile.depth {
        let mut columns = [s.splat(0.0); VECTORS];
        for (column, b) in columns.iter_mut().zip(b) {
            // SAFETY: inside the panel, by the caller's promise.
            *column = unsafe { s.load(b.add(d * LANES)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: inside the row, by the caller's promise.
            let a = s.splat(unsafe { *tile.a.add(r * STRIDE + d) });
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = s.mul_add(a, column, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: inside the row of the result, by the caller's promise; the factor of a row
            // exists.
            unsafe {
                let c = tile.c.add(r * tile.c_row + v * S::LANES);
                let value = match tile.store {
                    Store::Set => sum,
                    Store::Add => s.add(s.load(c), sum),
                    Store::Scale(factors) => s.mul_add(s.load(c), s.splat(*factors.add(r)), sum),
                };
                s.store(value, c);
            }
        }
    }
}
