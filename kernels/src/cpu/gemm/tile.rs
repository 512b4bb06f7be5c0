//! The micro-tile: a few rows times a few panels, summed in registers.
//!
//! Invariants: every element of the tile is one chain of multiply-adds from zero, in the order of the
//! depth, and one of integers is exact; tiles of another size give the same bits.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Avx2, Avx512};
use crate::cpu::simd::{InstructionSet, Kernel, Portable, Simd};

/// Operands of a micro-tile `c[r][16 p + l] = sum over d of a[r][d] * b[p][d][l]`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Tile {
    /// Terms of the sum.
    pub depth: usize,
    /// Left operand; the distance between its rows is a parameter of the tile.
    pub a: *const f32,
    /// Elements of `a` between terms.
    pub a_depth: usize,
    /// Right operand, panels of 16 columns.
    pub b: *const f32,
    /// Elements of `b` between terms.
    pub b_depth: usize,
    /// Elements of `b` between panels.
    pub b_panel: usize,
    /// Result.
    pub c: *mut f32,
    /// Elements of `c` between rows.
    pub c_row: usize,
    /// What is done with the result.
    pub store: Store,
}

impl Tile {
    /// The tile from a row on, whose rows of `a` are `stride` apart.
    pub fn row(&self, row: usize, stride: usize) -> Self {
        Self {
            a: self.a.wrapping_add(row * stride),
            c: self.c.wrapping_add(row * self.c_row),
            ..*self
        }
    }

    /// The tile from a panel on.
    fn panel(&self, panel: usize) -> Self {
        let store = match self.store {
            Store::Scale(factors) => Store::Scale(factors.wrapping_add(panel * LANES)),
            other @ (Store::Set | Store::Add | Store::AddIntegers) => other,
        };
        Self {
            b: self.b.wrapping_add(panel * self.b_panel),
            c: self.c.wrapping_add(panel * LANES),
            store,
            ..*self
        }
    }
}

/// How a tile is stored.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Store {
    /// c = tile.
    Set,
    /// c = c + tile.
    Add,
    /// c = c + tile, of integers.
    AddIntegers,
    /// c = c * factor of the column + tile.
    Scale(*const f32),
}

/// What a tile multiplies.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Terms {
    /// f32.
    Whole,
    /// Integers as [`Simd::dot_integers`] has them; the result is one of 32 bits.
    Integers,
    /// Pairs of bf16, both numbers by [`Simd::dot`].
    Pairs,
}

/// The tiles of an instruction set, as large as its registers allow.
///
/// Safety of the tiles: the pointers are valid for the tile's rows and panels, that is for reads of
/// `depth` elements of each row of `a`, `ROW` apart; of 16 elements of each panel of `b` for each of
/// `depth` terms; for reads and writes of 16 elements of each panel of each row of `c`; and for reads
/// of a factor per column.
pub(in crate::cpu) trait Micro: Simd {
    /// Rows of a tile.
    const ROWS: usize;
    /// Panels of a tile at most.
    const PANELS: usize;
    /// Rows of a narrow tile, which is lower so that fewer rows hang over.
    const NARROW_ROWS: usize;
    /// Panels of a narrow tile.
    const NARROW_PANELS: usize;
    /// Panels of a tile of one row, at most.
    const ROW_PANELS: usize;

    /// Computes `ROWS` rows of `panels` panels.
    ///
    /// # Safety
    /// `1 <= panels <= PANELS`, and the pointers as said above.
    unsafe fn tile<const ROW: usize>(self, panels: usize, tile: &Tile, terms: Terms);

    /// Computes `NARROW_ROWS` rows of `NARROW_PANELS` panels.
    ///
    /// # Safety
    /// The pointers as said above.
    unsafe fn narrow_tile<const ROW: usize>(self, tile: &Tile, terms: Terms);

    /// Computes one row of `panels` panels, which are read side by side: a few sums each would wait for their
    /// weights.
    ///
    /// # Safety
    /// `1 <= panels <= ROW_PANELS`, and the pointers as said above.
    unsafe fn row_tile<const ROW: usize>(self, panels: usize, tile: &Tile, terms: Terms);
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool, const BF16: bool> Micro for Avx512<VNNI, BF16> {
    const ROWS: usize = 14;
    const PANELS: usize = 2;
    const NARROW_ROWS: usize = 8;
    const NARROW_PANELS: usize = 3;
    const ROW_PANELS: usize = 8;

    #[inline(always)]
    unsafe fn tile<const ROW: usize>(self, panels: usize, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe {
            if panels == 1 {
                compute::<Self, ROW, 14, 1>(self, tile, terms);
            } else {
                compute::<Self, ROW, 14, 2>(self, tile, terms);
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow_tile<const ROW: usize>(self, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, ROW, 8, 3>(self, tile, terms) };
    }

    #[inline(always)]
    unsafe fn row_tile<const ROW: usize>(self, panels: usize, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute_row::<Self, ROW, 1, 8>(self, panels, tile, terms) };
    }
}

#[cfg(target_arch = "x86_64")]
impl Micro for Avx2 {
    const ROWS: usize = 6;
    const PANELS: usize = 1;
    const NARROW_ROWS: usize = 6;
    const NARROW_PANELS: usize = 1;
    const ROW_PANELS: usize = 4;

    #[inline(always)]
    unsafe fn tile<const ROW: usize>(self, _panels: usize, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, ROW, 6, 2>(self, tile, terms) };
    }

    #[inline(always)]
    unsafe fn narrow_tile<const ROW: usize>(self, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, ROW, 6, 2>(self, tile, terms) };
    }

    #[inline(always)]
    unsafe fn row_tile<const ROW: usize>(self, panels: usize, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute_row::<Self, ROW, 2, 8>(self, panels, tile, terms) };
    }
}

impl Micro for Portable {
    const ROWS: usize = 2;
    const PANELS: usize = 1;
    const NARROW_ROWS: usize = 2;
    const NARROW_PANELS: usize = 1;
    const ROW_PANELS: usize = 4;

    #[inline(always)]
    unsafe fn tile<const ROW: usize>(self, _panels: usize, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, ROW, 2, 1>(self, tile, terms) };
    }

    #[inline(always)]
    unsafe fn narrow_tile<const ROW: usize>(self, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute::<Self, ROW, 2, 1>(self, tile, terms) };
    }

    #[inline(always)]
    unsafe fn row_tile<const ROW: usize>(self, panels: usize, tile: &Tile, terms: Terms) {
        // SAFETY: the caller's promise.
        unsafe { compute_row::<Self, ROW, 1, 4>(self, panels, tile, terms) };
    }
}

/// Rows of a tile of an instruction set.
pub(in crate::cpu) fn tile_rows(set: InstructionSet) -> usize {
    struct Rows<'a>(&'a mut usize);
    impl Kernel for Rows<'_> {
        fn run<S: Micro>(self, _: S) {
            *self.0 = S::ROWS;
        }
    }
    let mut rows = 1;
    set.run(Rows(&mut rows));
    rows
}

/// A row of `panels` panels of `PANEL` vectors, all at once if they are `VECTORS`.
///
/// # Safety
/// As for [`Micro`].
#[inline(always)]
unsafe fn compute_row<S: Simd, const ROW: usize, const PANEL: usize, const VECTORS: usize>(
    s: S,
    panels: usize,
    tile: &Tile,
    terms: Terms,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if panels * PANEL == VECTORS {
            return compute::<S, ROW, 1, VECTORS>(s, tile, terms);
        }
        for panel in 0..panels {
            compute::<S, ROW, 1, PANEL>(s, &tile.panel(panel), terms);
        }
    }
}

/// A tile of `ROWS` rows and `VECTORS` vectors.
///
/// # Safety
/// As for [`Micro`].
#[inline(always)]
unsafe fn compute<S: Simd, const ROW: usize, const ROWS: usize, const VECTORS: usize>(
    s: S,
    tile: &Tile,
    terms: Terms,
) {
    // SAFETY: the caller's promise.
    unsafe {
        // A loop each: one that chose for every product would keep its sums in memory.
        match terms {
            Terms::Whole => compute_all::<S, ROW, ROWS, VECTORS>(s, tile, Terms::Whole),
            Terms::Integers => compute_all::<S, ROW, ROWS, VECTORS>(s, tile, Terms::Integers),
            Terms::Pairs => compute_all::<S, ROW, ROWS, VECTORS>(s, tile, Terms::Pairs),
        }
    }
}

/// A tile of terms that are known where this is compiled.
///
/// # Safety
/// As for [`Micro`].
#[inline(always)]
unsafe fn compute_all<S: Simd, const ROW: usize, const ROWS: usize, const VECTORS: usize>(
    s: S,
    tile: &Tile,
    terms: Terms,
) {
    let offsets = begin::<S, ROWS, VECTORS>(s, tile);
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.depth {
        // SAFETY: inside the panels and the rows, by the caller's promise.
        unsafe { step::<S, ROW, ROWS, VECTORS>(s, a, b, &offsets, &mut sums, terms) };
        (a, b) = (a.wrapping_add(tile.a_depth), b.wrapping_add(tile.b_depth));
    }
    // SAFETY: the caller's promise.
    unsafe { finish(s, tile, &sums) };
}

/// Fetches the result's lines and finds where the vectors of `b` lie.
#[inline(always)]
fn begin<S: Simd, const ROWS: usize, const VECTORS: usize>(s: S, tile: &Tile) -> [usize; VECTORS] {
    for r in 0..ROWS {
        s.prefetch(tile.c.wrapping_add(r * tile.c_row));
    }
    let mut offsets = [0; VECTORS];
    for (v, offset) in offsets.iter_mut().enumerate() {
        let column = v * S::LANES;
        *offset = column / LANES * tile.b_panel + column % LANES;
    }
    offsets
}

/// Adds one term of every sum.
///
/// # Safety
/// `a` is valid for a read of each row, `b` for reads of a vector at each offset.
#[inline(always)]
unsafe fn step<S: Simd, const ROW: usize, const ROWS: usize, const VECTORS: usize>(
    s: S,
    a: *const f32,
    b: *const f32,
    offsets: &[usize; VECTORS],
    sums: &mut [[S::V; VECTORS]; ROWS],
    terms: Terms,
) {
    let mut columns = [s.splat(0.0); VECTORS];
    for (column, &offset) in columns.iter_mut().zip(offsets) {
        // SAFETY: the caller's promise.
        *column = unsafe { s.load(b.add(offset)) };
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let a = s.splat(unsafe { *a.add(r * ROW) });
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = match terms {
                Terms::Pairs => s.dot(a, column, *sum),
                Terms::Integers => s.dot_integers(a, column, *sum),
                Terms::Whole => s.mul_add(a, column, *sum),
            };
        }
    }
}

/// Stores a tile.
///
/// # Safety
/// As for [`Micro`].
#[inline(always)]
unsafe fn finish<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    tile: &Tile,
    sums: &[[S::V; VECTORS]; ROWS],
) {
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: inside the row of the result, by the caller's promise; the factors of the
            // columns exist.
            unsafe {
                let c = tile.c.add(r * tile.c_row + v * S::LANES);
                let value = match tile.store {
                    Store::Set => sum,
                    Store::Add => s.add(s.load(c), sum),
                    Store::AddIntegers => s.add_integers(s.load(c), sum),
                    Store::Scale(factors) => {
                        s.mul_add(s.load(c), s.load(factors.add(v * S::LANES)), sum)
                    }
                };
                s.store(value, c);
            }
        }
    }
}
