//! Convolution by kernels of 3 x 3 pixels as 16 matrix products over tiles of 2 x 2 pixels (Winograd, 1980;
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, F(2 x 2, 3 x 3)).
//!
//! Each of the 16 combinations of the 4 x 4 pixels under a tile is multiplied by the same combination of the
//! kernel, and a tile's pixels are combinations of the 16 sums. Times and channels are the terms of the
//! products.
//!
//! Invariants: tiles begin at even rows and columns; what is outside a frame is zero; combinations are
//! sums in a fixed order, so they are the same on every instruction set.

use super::KERNEL;
use super::video::{Added, Video};
use crate::KernelError;
use crate::cpu::check;
use crate::cpu::gemm::{
    GRAIN, LANES, Micro, Operands, Panels, STRIDE, Store, TASKS_PER_THREAD, Terms, Tile, flat,
    sweep, tile_rows,
};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::{InstructionSet, Kernel, Simd};
use crate::cpu::split::Scattered;
use rayon::prelude::*;
use std::ops::Range;

/// Combinations of a tile.
const PLANES: usize = 16;

/// Pixels of a kernel.
const PIXELS: usize = 9;

/// Tiles of a task at most, but for a micro-tile's rows.
const ROWS: usize = 84;

/// Channels of a task at most.
const COLUMNS: usize = 64;

/// Terms that are summed before they are added to the result.
const DEPTH: usize = Operands::F32.depth();

/// How a combination weighs the 3 pixels of a kernel in one direction.
const KERNEL_SIDE: [[f64; 3]; 4] = [
    [1.0, 0.0, 0.0],
    [0.5, 0.5, 0.5],
    [0.5, -0.5, 0.5],
    [0.0, 0.0, 1.0],
];

/// Which 2 of the 4 pixels in one direction a combination adds, the second times a sign.
const INPUT_SIDE: [(usize, usize, f32); 4] =
    [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)];

/// Packs the weight whose elements `[cin, kt, 3, 3]` of an output channel `read` writes.
pub(super) fn pack(
    [cout, cin]: [usize; 2],
    kt: usize,
    read: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<Panels, KernelError> {
    let padded = check::product(KERNEL, "cout", &[cout.div_ceil(LANES), LANES])?;
    let n = check::product(KERNEL, "cout", &[padded, PLANES])?;
    let k = check::product(KERNEL, "cin, kt", &[cin, kt])?;
    let stored = check::product(KERNEL, "cin, kernel", &[k, PIXELS])?;
    Panels::pack(KERNEL, Operands::F32, [n, k], |column, out| {
        let (plane, channel) = (column / padded, column % padded);
        if channel >= cout {
            out.fill(0.0);
            return;
        }
        let mut kernels = vec![0.0; stored];
        read(channel, &mut kernels);
        let weights = kernel_weights(plane);
        for (index, pixels) in kernels.as_chunks::<PIXELS>().0.iter().enumerate() {
            let (channel, dt) = (index / kt, index % kt);
            let terms = weights.iter().zip(pixels);
            let sum: f64 = terms.fold(0.0, |sum, (w, &x)| sum + w * f64::from(x));
            out[dt * cin + channel] = sum as f32;
        }
    })
}

/// How a combination weighs the pixels of a kernel.
fn kernel_weights(plane: usize) -> [f64; PIXELS] {
    let (row, column) = (KERNEL_SIDE[plane / 4], KERNEL_SIDE[plane % 4]);
    std::array::from_fn(|pixel| row[pixel / 3] * column[pixel % 3])
}

/// Convolves `video`. The caller has checked the length of `y`.
pub(super) fn convolve(
    set: InstructionSet,
    video: &Video<'_>,
    weight: &Panels,
    added: &Added<'_>,
    y: &mut [f32],
) {
    let rows = tiles(video);
    let columns = weight.n() / PLANES;
    if rows == 0 || columns == 0 {
        return;
    }
    let column_blocks = columns.div_ceil(COLUMNS);
    let work = (PLANES * COLUMNS)
        .saturating_mul(weight.k())
        .saturating_mul(rows);
    let row_blocks = (TASKS_PER_THREAD * rayon::current_num_threads())
        .div_ceil(column_blocks)
        .min(work / GRAIN)
        .max(rows.div_ceil(ROWS));
    let block_rows = rows.div_ceil(row_blocks).next_multiple_of(tile_rows(set));
    let row_blocks = rows.div_ceil(block_rows);
    let y = Scattered::new(y);
    (0..row_blocks * column_blocks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let row = task % row_blocks * block_rows;
            let column = task / row_blocks * COLUMNS;
            let columns = column..columns.min(column + COLUMNS);
            let size = Sizes {
                rows: block_rows,
                columns: columns.len(),
            };
            with_scratch(size.lines(), |scratch| {
                let (x, rest) = flat(scratch).split_at_mut(block_rows * STRIDE);
                let (pixels, sums) = rest.split_at_mut(4 * COLUMNS);
                set.run(Block {
                    rows: row..rows.min(row + block_rows),
                    columns,
                    size,
                    video,
                    weight,
                    added,
                    x,
                    pixels,
                    sums,
                    y: &y,
                });
            });
        });
}

/// Tiles of a video.
fn tiles(video: &Video<'_>) -> usize {
    video.batch * video.frames * video.height.div_ceil(2) * video.width.div_ceil(2)
}

/// Sizes of a task's working memory.
#[derive(Clone, Copy)]
struct Sizes {
    /// Tiles, a multiple of a micro-tile's rows.
    rows: usize,
    /// Channels, a multiple of a panel's.
    columns: usize,
}

impl Sizes {
    /// Elements between the sums of tiles: a line more, so that it is no power of two.
    fn stride(self) -> usize {
        self.columns + LANES
    }

    /// Elements of the sums of a combination.
    fn plane(self) -> usize {
        self.rows * self.stride()
    }

    fn lines(self) -> usize {
        (self.rows * STRIDE + 4 * COLUMNS + PLANES * self.plane()) / LANES
    }
}

/// A tile of the result.
#[derive(Clone, Copy)]
struct Place {
    b: usize,
    frame: usize,
    /// Its first row and column.
    y: usize,
    x: usize,
}

impl Place {
    fn of(tile: usize, video: &Video<'_>) -> Self {
        let (across, down) = (video.width.div_ceil(2), video.height.div_ceil(2));
        let (line, x) = (tile / across, tile % across);
        let (image, y) = (line / down, line % down);
        Self {
            b: image / video.frames,
            frame: image % video.frames,
            y: 2 * y,
            x: 2 * x,
        }
    }

    /// The tile behind this one.
    fn next(mut self, video: &Video<'_>) -> Self {
        self.x += 2;
        if self.x >= video.width {
            (self.x, self.y) = (0, self.y + 2);
        }
        if self.y >= video.height {
            (self.y, self.frame) = (0, self.frame + 1);
        }
        if self.frame >= video.frames {
            (self.frame, self.b) = (0, self.b + 1);
        }
        self
    }
}

/// One task: a block of tiles and channels of the result.
struct Block<'a> {
    rows: Range<usize>,
    columns: Range<usize>,
    size: Sizes,
    video: &'a Video<'a>,
    weight: &'a Panels,
    added: &'a Added<'a>,
    /// A combination of the pixels of the tiles, [`STRIDE`] apart.
    x: &'a mut [f32],
    /// The pixels of a tile of the result.
    pixels: &'a mut [f32],
    /// Sums of all combinations, tiles and channels.
    sums: &'a mut [f32],
    y: &'a Scattered<'a>,
}

impl Kernel for Block<'_> {
    #[inline(always)]
    fn run<S: Micro>(mut self, simd: S) {
        let k = self.weight.k();
        self.x[self.rows.len() * STRIDE..].fill(0.0);
        for plane in 0..PLANES {
            // Without terms there is still one block, which sets the sums to zero.
            for first in (0..k.max(1)).step_by(DEPTH) {
                let terms = first..k.min(first + DEPTH);
                self.pack(plane, terms.clone());
                self.multiply(simd, plane, terms);
            }
        }
        self.finish(simd);
    }
}

impl Block<'_> {
    /// Combines the pixels of all tiles.
    #[inline(always)]
    fn pack(&mut self, plane: usize, terms: Range<usize>) {
        let mut place = Place::of(self.rows.start, self.video);
        let rows = self.x.chunks_exact_mut(STRIDE).take(self.rows.len());
        for out in rows {
            combine(
                self.video,
                place,
                plane,
                terms.clone(),
                &mut out[..terms.len()],
            );
            place = place.next(self.video);
        }
    }

    /// Adds the products of a block of terms to the sums of a combination. A panel of the weight stays in the
    /// cache for all tiles, while the next one is fetched.
    #[inline(always)]
    fn multiply<S: Micro>(&mut self, simd: S, plane: usize, terms: Range<usize>) {
        let (rows, stride, depth) = (self.size.rows, self.size.stride(), terms.len());
        let first = (plane * (self.weight.n() / PLANES) + self.columns.start) / LANES;
        let panels = self.columns.len() / LANES;
        let sums = &mut self.sums[plane * self.size.plane()..][..self.size.plane()];
        let store = if terms.start == 0 {
            Store::Set
        } else {
            Store::Add
        };
        for panel in (0..panels).step_by(S::PANELS) {
            let weight = self.weight.lines(terms.clone(), first + panel);
            let tile = Tile {
                depth,
                a: self.x.as_ptr(),
                a_depth: 1,
                b: weight.as_ptr().cast(),
                b_depth: LANES,
                b_panel: depth * LANES,
                c: sums[panel * LANES..].as_mut_ptr(),
                c_row: stride,
                store,
            };
            let count = S::PANELS.min(panels - panel);
            let lines = S::PANELS * depth;
            // SAFETY: `x` and `sums` have a multiple of a micro-tile's rows; that many panels follow in the
            // weight and in the sums, each of `depth` lines.
            unsafe { sweep(simd, rows, count, tile, Terms::Whole, weight, lines) };
        }
    }

    /// Combines the sums to pixels and writes those that are inside their frame.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S) {
        let (stride, plane) = (self.size.stride(), self.size.plane());
        let first = self.columns.start;
        let count = self.columns.end.min(self.added.channels) - first;
        let video = self.video;
        let mut place = Place::of(self.rows.start, video);
        for row in 0..self.rows.len() {
            for lane in (0..self.columns.len()).step_by(S::LANES) {
                let sums = &self.sums[row * stride + lane..];
                let pixels = &mut self.pixels[lane..];
                // SAFETY: a vector is inside the row of each combination and of each pixel.
                unsafe { untile(simd, sums.as_ptr(), plane, pixels.as_mut_ptr()) };
            }
            for (index, sums) in self.pixels.chunks_exact_mut(COLUMNS).enumerate() {
                let (y, x) = (place.y + index / 2, place.x + index % 2);
                if y < video.height && x < video.width {
                    let frame = place.b * video.frames + place.frame;
                    let pixel = (frame * video.height + y) * video.width + x;
                    let begin = pixel * self.added.channels + first;
                    // SAFETY: tasks have different tiles or channels, so no other one holds these
                    // elements.
                    let out = unsafe { self.y.slice(begin, count) };
                    self.added.finish(pixel, first, &mut sums[..count], out);
                }
            }
            place = place.next(video);
        }
    }
}

/// A combination of the pixels under a tile, for terms `[kt, cin]`.
#[inline(always)]
fn combine(video: &Video<'_>, place: Place, plane: usize, terms: Range<usize>, out: &mut [f32]) {
    const ZEROS: [f32; DEPTH] = [0.0; DEPTH];
    let (top, bottom, down) = INPUT_SIDE[plane / 4];
    let (left, right, across) = INPUT_SIDE[plane % 4];
    let cin = video.channels;
    let (mut dt, mut channel) = (terms.start / cin.max(1), terms.start % cin.max(1));
    let mut rest = out;
    while !rest.is_empty() {
        let count = rest.len().min(cin - channel);
        let (out, behind) = rest.split_at_mut(count);
        let pixel = |dy: usize, dx: usize| {
            let (y, x) = ((place.y + dy).checked_sub(1), (place.x + dx).checked_sub(1));
            let channels = video.at(place.b, place.frame + dt, y, x);
            channels.map_or(&ZEROS[..count], |channels| &channels[channel..][..count])
        };
        let (a, b) = (pixel(top, left), pixel(top, right));
        let (c, d) = (pixel(bottom, left), pixel(bottom, right));
        for (i, out) in out.iter_mut().enumerate() {
            *out = (a[i] + across * b[i]) + down * (c[i] + across * d[i]);
        }
        (rest, dt, channel) = (behind, dt + 1, 0);
    }
}

/// The 4 pixels of a tile, [`COLUMNS`] apart, from its 16 sums, `plane` apart.
///
/// # Safety
/// `sums` is valid for a read of a vector of each combination, `pixels` for a write of one of each pixel.
#[inline(always)]
unsafe fn untile<S: Simd>(simd: S, sums: *const f32, plane: usize, pixels: *mut f32) {
    let (mut upper, mut lower) = ([simd.splat(0.0); 4], [simd.splat(0.0); 4]);
    for (column, (upper, lower)) in upper.iter_mut().zip(&mut lower).enumerate() {
        let at = sums.wrapping_add(column * plane);
        // SAFETY: the caller's promise.
        let (a, b, c, d) = unsafe {
            (
                simd.load(at),
                simd.load(at.add(4 * plane)),
                simd.load(at.add(8 * plane)),
                simd.load(at.add(12 * plane)),
            )
        };
        *upper = simd.add(simd.add(a, b), c);
        *lower = simd.sub(simd.sub(b, c), d);
    }
    for (row, [a, b, c, d]) in [upper, lower].into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let first = pixels.add(2 * row * COLUMNS);
            simd.store(simd.add(simd.add(a, b), c), first);
            simd.store(simd.sub(simd.sub(b, c), d), first.add(COLUMNS));
        }
    }
}
