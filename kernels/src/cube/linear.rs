//! The matrix product of rows with a weight, and what is done to its result before it is stored.
//!
//! Invariants: an element of the result is one chain of fused multiplications and additions along `k`,
//! whatever the tile, so a row's result depends on that row alone; the epilogue works on the f32 sums.
//! The weight is the checkpoint's own `[n, k]`, in f32, f16 or bf16. Refused: operands whose lengths or
//! types disagree, gate rows that do not add up to the rows, gate offsets outside their data.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, list, same_element, units};
use super::device::Device;
use super::fours::{Four, load, store};
use super::math::{Function, apply};
use super::operand::{Element, Operand, width};
use super::segments::{Mods, gate_vector};
use crate::{GateSegment, KernelError, args, check};

const KERNEL: &str = "linear";

/// Columns of a tile.
const COLUMNS: usize = 64;

/// Fours of columns of a tile.
const COLUMN_FOURS: usize = COLUMNS / 4;

/// Products of a tile along `k`.
const DEPTH: usize = 32;

/// `y[rows, n] = epilogue(x[rows, k] W^T + bias)`; see [`cpu::Linear`](crate::cpu::Linear).
#[derive(Debug, Clone)]
pub struct Linear<'a, B> {
    /// Rows of `x` and `y`.
    pub rows: usize,
    /// Columns of `y`.
    pub n: usize,
    /// Columns of `x`.
    pub k: usize,
    /// `[rows, k]`.
    pub x: Operand<B>,
    /// `[n, k]`, of any floating-point type.
    pub weight: Operand<B>,
    /// f32 `[n]`.
    pub bias: Option<Operand<B>>,
    /// Applied before the store.
    pub epilogue: LinearEpilogue<'a, B>,
    /// `[rows, n]`, of the type of `x`.
    pub y: Operand<B>,
}

/// What a matrix product does to its result before it stores it.
#[derive(Debug, Clone)]
pub enum LinearEpilogue<'a, B> {
    /// An elementwise function.
    Function(Function),
    /// residual + gate * result.
    Residual {
        /// `[rows, n]`, of the type of `y`; may be `y` itself.
        residual: Operand<B>,
        /// Absent: a plain sum.
        gate: Option<LinearGate<'a, B>>,
    },
}

/// The gate of a matrix product; rows = batch x sum of the segments' rows.
#[derive(Debug, Clone)]
pub struct LinearGate<'a, B> {
    /// Gate vectors.
    pub mods: Mods<B>,
    /// Batch items.
    pub batch: usize,
    /// Consecutive ranges of rows and where their gate lies.
    pub segments: &'a [GateSegment],
}

/// What is chosen when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Tile {
    /// Fours of rows.
    row_fours: usize,
    bias: bool,
    function: Function,
    residual: bool,
    /// Segments of the gate; none: no gate.
    segments: usize,
}

impl<B: Clone> Linear<'_, B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an offset or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let element = self.check()?;
        let Self {
            rows,
            n,
            k,
            x,
            y,
            weight,
            ..
        } = self;
        let (function, residual, gate) = self.epilogue.parts();
        let segments = gate.map_or(&[][..], |gate| gate.segments);
        let (mods, stride) = gate.map_or((x, 0), |gate| (&gate.mods.data, gate.mods.stride));
        let deep = width([x.offset, weight.offset, *k]);
        let wide = self.wide();
        let tile = Tile {
            // Few rows get a low tile, whose units do the same work on them.
            row_fours: if *rows <= 32 { 4 } else { 16 },
            bias: self.bias.is_some(),
            function,
            residual: residual.is_some(),
            segments: segments.len(),
        };
        let kernel = linear_tile::LinearTile::<R>::new(
            units([COLUMN_FOURS as u32, tile.row_fours as u32]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(6),
            (),
            (),
            (),
            (),
            (),
            list(2 * segments.len()),
            deep,
            wide,
            tile,
            element.storage(),
            weight.element.storage(),
        );
        let item = gate.map_or(1, |gate| rows.checked_div(gate.batch).unwrap_or(1).max(1));
        let tiles = [n.div_ceil(COLUMNS), rows.div_ceil(4 * tile.row_fours), 1];
        Builder::new(KERNEL, device)
            .array(x, deep)
            .array(weight, deep)
            .maybe(self.bias.as_ref(), y, wide)
            .maybe(residual, y, wide)
            .array(if gate.is_some() { mods } else { y }, wide)
            .array(y, wide)
            .u32s([*rows, *n, *k, item, stride])
            .u32s(segments.iter().flat_map(|s| [s.rows, s.gate]))
            .over(tiles, kernel)
    }

    /// Elements along `n` that the kernel reads at once.
    fn wide(&self) -> usize {
        let (_, residual, gate) = self.epilogue.parts();
        let mods = gate.map(|gate| &gate.mods);
        let data = mods.map(|mods| &mods.data);
        let operands = [self.bias.as_ref(), residual, data, Some(&self.y)];
        let begins = operands.into_iter().flatten().map(|operand| operand.offset);
        let gates = gate.into_iter().flat_map(|gate| gate.segments);
        let stride = mods.map_or(0, |mods| mods.stride);
        let sizes = [self.n, stride];
        width(begins.chain(gates.map(|segment| segment.gate)).chain(sizes))
    }

    fn check(&self) -> Result<Element, KernelError> {
        let Self {
            rows, n, k, x, y, ..
        } = self;
        let input = check::product(KERNEL, "rows, k", &[*rows, *k])?;
        let output = check::product(KERNEL, "rows, n", &[*rows, *n])?;
        let total = check::product(KERNEL, "n, k", &[*n, *k])?;
        x.length(KERNEL, "x", input)?;
        self.weight.length(KERNEL, "weight", total)?;
        self.weight.float(KERNEL, "weight")?;
        let element = same_element(KERNEL, ("x", x), &[("y", y)])?;
        if let Some(bias) = &self.bias {
            bias.is(KERNEL, "bias", Element::F32)?;
            bias.length(KERNEL, "bias", *n)?;
        }
        if let LinearEpilogue::Residual { residual, gate } = &self.epilogue {
            residual.length(KERNEL, "residual", output)?;
            residual.is(KERNEL, "residual", element)?;
            if let Some(gate) = gate {
                args::gate_rows(KERNEL, gate.batch, gate.segments, *rows)?;
                gate.mods.data.is(KERNEL, "mods.data", element)?;
                let offsets = gate.segments.iter().map(|s| s.gate);
                gate.mods.check(KERNEL, gate.batch, *n, offsets)?;
            }
        }
        y.length(KERNEL, "y", output)?;
        Ok(element)
    }
}

impl<'a, B> LinearEpilogue<'a, B> {
    fn parts(&self) -> (Function, Option<&Operand<B>>, Option<&LinearGate<'a, B>>) {
        match self {
            Self::Function(function) => (*function, None, None),
            Self::Residual { residual, gate } => {
                (Function::Identity, Some(residual), gate.as_ref())
            }
        }
    }
}

/// A matrix `[rows, k]` whose first vector is at `at`.
#[derive(CubeType, Clone, Copy)]
struct Matrix {
    at: usize,
    rows: usize,
    k: usize,
}

/// A cube computes a tile, a unit four rows by four columns of it. `K` is the width of vectors along
/// `k`, `N` along `n`.
#[cube(launch_unchecked)]
fn linear_tile<E: Float, W: Float, K: Size, N: Size>(
    x: &Array<Vector<E, K>>,
    weight: &Array<Vector<W, K>>,
    bias: &Array<Vector<f32, N>>,
    residual: &mut Array<Vector<E, N>>,
    mods: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    rows: u32,
    columns: u32,
    terms: u32,
    item_rows: u32,
    stride: u32,
    segments: &Sequence<u32>,
    #[comptime] tile: Tile,
    #[define(E)] _element: StorageType,
    #[define(W)] _stored: StorageType,
) {
    let (rows, n, k) = (rows as usize, columns as usize, terms as usize);
    let row = CUBE_POS_Y as usize * comptime!(4 * tile.row_fours);
    let column = CUBE_POS_X as usize * COLUMNS;
    let at = lead[0] as usize;
    let x_matrix = Matrix { at, rows, k };
    let at = lead[1] as usize;
    let w_matrix = Matrix { at, rows: n, k };
    let mut sums = Array::<Four>::new(4usize);
    products::<E, W, K>(&mut sums, x, x_matrix, weight, w_matrix, tile);
    let first = column + 4 * UNIT_POS_X as usize;
    #[unroll]
    for i in 0..4usize {
        let row = row + 4 * UNIT_POS_Y as usize + i;
        if row < rows && first < n {
            let mut v = sums[i];
            if comptime!(tile.bias) {
                v += load::<f32, N>(bias, lead[2] as usize, first, n, 0.0f32);
            }
            v = activated(v, tile.function);
            if comptime!(tile.segments > 0) {
                let vector = gate_of(segments, row as u32, item_rows, stride, tile.segments);
                let at = (lead[4] + vector / N::value() as u32) as usize;
                v *= load::<E, N>(mods, at, first, n, 0.0f32);
            }
            let begin = row * n / N::value();
            if comptime!(tile.residual) {
                v += load::<E, N>(residual, lead[3] as usize + begin, first, n, 0.0f32);
            }
            store::<E, N>(y, lead[5] as usize + begin, first, n, v);
        }
    }
}

/// The unit's sums, along the whole of `k`.
#[cube]
fn products<E: Float, W: Float, K: Size>(
    sums: &mut Array<Four>,
    x: &Array<Vector<E, K>>,
    x_matrix: Matrix,
    weight: &Array<Vector<W, K>>,
    w_matrix: Matrix,
    #[comptime] tile: Tile,
) {
    let row = CUBE_POS_Y as usize * comptime!(4 * tile.row_fours);
    let column = CUBE_POS_X as usize * COLUMNS;
    let mut x_tile = SharedMemory::<Four>::new(comptime!(DEPTH * tile.row_fours));
    let mut w_tile = SharedMemory::<Four>::new(comptime!(DEPTH * COLUMN_FOURS));
    #[unroll]
    for i in 0..4usize {
        sums[i] = Four::new(0.0f32);
    }
    let mut depth = 0usize;
    while depth < x_matrix.k {
        let fours = tile.row_fours;
        fill::<E, K>(&mut x_tile, x, x_matrix, row, depth, fours, tile);
        let fours = COLUMN_FOURS;
        fill::<W, K>(&mut w_tile, weight, w_matrix, column, depth, fours, tile);
        sync_cube();
        multiply(sums, &x_tile, &w_tile, tile);
        sync_cube();
        depth += DEPTH;
    }
}

/// Adds the products of a filled tile to the unit's sums.
#[cube]
fn multiply(
    sums: &mut Array<Four>,
    x_tile: &SharedMemory<Four>,
    w_tile: &SharedMemory<Four>,
    #[comptime] tile: Tile,
) {
    let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    for d in 0..DEPTH {
        let a = x_tile[d * tile.row_fours + ty];
        let b = w_tile[d * COLUMN_FOURS + tx];
        #[unroll]
        for i in 0..4usize {
            sums[i] = fma(Four::new(a[i]), b, sums[i]);
        }
    }
}

#[cube]
fn activated(sums: Four, #[comptime] function: Function) -> Four {
    let mut v = sums;
    #[unroll]
    for c in 0..4usize {
        v[c] = apply(v[c], function);
    }
    v
}

/// Where the gate of a row begins in the modulation data.
#[cube]
fn gate_of(
    segments: &Sequence<u32>,
    row: u32,
    item_rows: u32,
    stride: u32,
    #[comptime] count: usize,
) -> u32 {
    row / item_rows * stride + gate_vector(segments, count, row % item_rows)
}

/// Brings `4 * fours` rows of a matrix from `row` on, `DEPTH` columns from `depth` on, to shared memory
/// as `[column][four of rows]`. What lies outside the matrix is 0.
#[cube]
fn fill<E: Float, K: Size>(
    shared: &mut SharedMemory<Four>,
    x: &Array<Vector<E, K>>,
    matrix: Matrix,
    row: usize,
    depth: usize,
    #[comptime] fours: usize,
    #[comptime] tile: Tile,
) {
    let mut block = UNIT_POS as usize;
    while block < comptime!(fours * DEPTH / 4) {
        // Neighbouring units read neighbouring columns.
        let four = block / comptime!(DEPTH / 4);
        let column = block % comptime!(DEPTH / 4) * 4;
        let first = depth + column;
        let mut lines = Array::<Four>::new(4usize);
        #[unroll]
        for i in 0..4usize {
            let row = row + 4 * four + i;
            lines[i] = Four::new(0.0f32);
            if row < matrix.rows && first < matrix.k {
                let at = matrix.at + row * matrix.k / K::value();
                lines[i] = load::<E, K>(x, at, first, matrix.k, 0.0f32);
            }
        }
        #[unroll]
        for c in 0..4usize {
            let mut v = Four::new(0.0f32);
            #[unroll]
            for i in 0..4usize {
                v[i] = lines[i][c];
            }
            shared[(column + c) * fours + four] = v;
        }
        block += comptime!(COLUMN_FOURS * tile.row_fours);
    }
}
