//! The matrix product of a convolution on the device: tiles of pixels and output channels.
//!
//! Invariant: a sum adds its products one by one in the order of the weight's rows, wherever its pixel
//! lies in a tile.

use cubecl::prelude::*;

/// Units of a cube.
pub(super) const UNITS: usize = 256;

/// Products of every sum between two loads of a tile.
pub(super) const DEPTH: usize = 8;

/// Fours of products that a tile is loaded in, per pixel.
const QUADS: usize = DEPTH / 4;

/// Pixels that the units load at once.
const LINES: usize = UNITS / QUADS;

/// How a cube's units share a tile of pixels and output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Units side by side over the output channels.
    across: usize,
    /// Fours of output channels that a unit has, `4 * across` channels apart.
    fours: usize,
    /// Pixels that a unit has.
    each: usize,
}

impl Tile {
    /// The tile for a number of output channels: few of its channels are empty, and each load from
    /// shared memory serves as many products as registers allow.
    pub fn of(cout: usize) -> Self {
        let (across, fours, each) = match cout {
            ..=16 => (4, 1, 4),
            17..=48 => (4, cout.div_ceil(16), 8),
            49..=96 => (8, cout.div_ceil(32), 8),
            97.. => (16, 2, 8),
        };
        Self {
            across,
            fours,
            each,
        }
    }

    pub fn columns(self) -> usize {
        4 * self.across * self.fours
    }

    pub fn pixels(self) -> usize {
        self.each * UNITS / self.across
    }

    /// Elements from one product to the next: two more than the pixels, so that the stores of
    /// neighbouring units fall on different banks.
    fn stride(self) -> usize {
        self.pixels() + 2
    }
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub kernel: [usize; 3],
    pub tile: Tile,
    pub cached: bool,
    pub bias: bool,
    pub residual: bool,
}

impl Form {
    fn taps(self) -> usize {
        self.kernel.iter().product()
    }
}

/// `sizes`: pixels, frames, height, width, cin, cout.
#[cube(launch_unchecked)]
pub(super) fn product<E: Float, W: Float, N: Size, M: Size>(
    x: &Array<Vector<E, N>>,
    cache: &Array<Vector<E, N>>,
    weight: &Array<Vector<W, Const<4>>>,
    bias: &Array<Vector<f32, M>>,
    residual: &Array<Vector<E, M>>,
    y: &mut Array<Vector<E, M>>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] form: Form,
    #[define(E)] _element: StorageType,
    #[define(W)] _stored: StorageType,
) {
    let tile = comptime!(form.tile);
    let columns = comptime!(tile.columns() / 4);
    let mut input = SharedMemory::<f32>::new(comptime!(DEPTH * tile.stride()));
    let mut factors = SharedMemory::<Vector<f32, Const<4>>>::new(comptime!(DEPTH * columns));
    let (cin, cout) = (sizes[4] as usize, sizes[5] as usize);
    let tiles = cout.div_ceil(comptime!(tile.columns()));
    let column = CUBE_POS % tiles * columns;
    let pixel = CUBE_POS / tiles * comptime!(tile.pixels());
    // A grid may have cubes behind the last pixel.
    let depth = comptime!(form.taps()) * cin;
    let depth = select(pixel < sizes[0] as usize, depth, 0usize);

    let mut sums = zeros(tile);
    let places = places(pixel, sizes, tile);
    let (mut tap, mut channel) = (0usize, UNIT_POS as usize % QUADS * 4);
    let mut first = 0usize;
    while first < depth {
        while channel >= cin {
            channel -= cin;
            tap += 1;
        }
        load::<E, N>(
            x, cache, &mut input, &places, pixel, tap, channel, lead, sizes, form,
        );
        let begin = lead[2] as usize + first * tiles * columns + column;
        load_factors::<W>(weight, &mut factors, begin, tiles * columns, tile);
        sync_cube();
        multiply(&input, &factors, &mut sums, tile);
        sync_cube();
        first += DEPTH;
        channel += DEPTH;
    }
    store::<E, M>(&sums, bias, residual, y, pixel, column, lead, sizes, form);
}

/// The sums of a unit: for each of its pixels, its fours of output channels.
#[cube]
fn zeros(#[comptime] tile: Tile) -> Array<Vector<f32, Const<4>>> {
    let mut sums = Array::<Vector<f32, Const<4>>>::new(comptime!(tile.each * tile.fours));
    #[unroll]
    for i in 0..comptime!(tile.each * tile.fours) {
        sums[i] = Vector::new(0.0f32);
    }
    sums
}

/// Loads the factors of a tile, from vector `begin` on; `row` vectors are a product apart.
#[cube]
fn load_factors<W: Float>(
    weight: &Array<Vector<W, Const<4>>>,
    factors: &mut SharedMemory<Vector<f32, Const<4>>>,
    begin: usize,
    row: usize,
    #[comptime] tile: Tile,
) {
    let columns = comptime!(tile.columns() / 4);
    let unit = UNIT_POS as usize;
    if unit < comptime!(DEPTH * columns) {
        factors[unit] = Vector::cast_from(weight[begin + unit / columns * row + unit % columns]);
    }
}

/// Where the pixels lie that a unit loads: for each its frame, row and column; the row of a pixel that
/// does not exist is beyond any height.
#[cube]
fn places(first_pixel: usize, sizes: &Sequence<u32>, #[comptime] tile: Tile) -> Array<usize> {
    let (frames, height, width) = (sizes[1] as usize, sizes[2] as usize, sizes[3] as usize);
    let mut places = Array::<usize>::new(comptime!(3 * tile.pixels() / LINES));
    #[unroll]
    for i in 0..comptime!(tile.pixels() / LINES) {
        let pixel = first_pixel + i * LINES + UNIT_POS as usize / QUADS;
        let line = pixel / width;
        let exists = pixel < sizes[0] as usize;
        places[3 * i] = line / height % frames;
        places[3 * i + 1] = select(exists, line % height, 0x7000_0000usize);
        places[3 * i + 2] = pixel % width;
    }
    places
}

/// Loads four products of each of the unit's pixels, from `channel` of `tap` on.
#[cube]
fn load<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    cache: &Array<Vector<E, N>>,
    input: &mut SharedMemory<f32>,
    places: &Array<usize>,
    first_pixel: usize,
    tap: usize,
    channel: usize,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] form: Form,
) {
    let n = N::value();
    let [kt, kh, kw] = comptime!(form.kernel);
    let (height, width, cin) = (sizes[2] as usize, sizes[3] as usize, sizes[4] as usize);
    for part in 0..comptime!(4 / n) {
        let (mut tap, mut channel) = (tap, channel + part * n);
        while channel >= cin {
            channel -= cin;
            tap += 1;
        }
        let (dt, dy, dx) = (tap / comptime!(kh * kw), tap / kw % kh, tap % kw);
        #[unroll]
        for i in 0..comptime!(form.tile.pixels() / LINES) {
            // Outside the frame these wrap around to numbers beyond any size.
            let row = places[3 * i + 1] + dy - comptime!(kh / 2);
            let column = places[3 * i + 2] + dx - comptime!(kw / 2);
            let mut values = Vector::<f32, N>::new(0.0f32);
            if tap < comptime!(form.taps()) && row < height && column < width {
                let frame = places[3 * i] + dt;
                let own = max(frame, comptime!(kt - 1)) - comptime!(kt - 1);
                let pixel = first_pixel + i * LINES + UNIT_POS as usize / QUADS;
                let across = (own - places[3 * i]) * height + dy - comptime!(kh / 2);
                let source = pixel + across * width + dx - comptime!(kw / 2);
                let at = (source * cin + channel) / n;
                if comptime!(form.cached && kt > 1) {
                    if frame < comptime!(kt - 1) {
                        let item = pixel / (sizes[1] as usize * height * width);
                        let line = (item * comptime!(kt - 1) + frame) * height + row;
                        let at = ((line * width + column) * cin + channel) / n;
                        values = Vector::cast_from(cache[lead[1] as usize + at]);
                    } else {
                        values = Vector::cast_from(x[lead[0] as usize + at]);
                    }
                } else {
                    values = Vector::cast_from(x[lead[0] as usize + at]);
                }
            }
            let first = (UNIT_POS as usize % QUADS * 4 + part * n) * comptime!(form.tile.stride());
            let slot = i * LINES + UNIT_POS as usize / QUADS;
            #[unroll]
            for lane in 0..n {
                input[first + lane * comptime!(form.tile.stride()) + slot] = values[lane];
            }
        }
    }
}

/// Adds the products of a loaded tile.
#[cube]
fn multiply(
    input: &SharedMemory<f32>,
    factors: &SharedMemory<Vector<f32, Const<4>>>,
    sums: &mut Array<Vector<f32, Const<4>>>,
    #[comptime] tile: Tile,
) {
    let (across, fours) = comptime!((tile.across, tile.fours));
    let (row, column) = (UNIT_POS as usize / across, UNIT_POS as usize % across);
    for k in 0..DEPTH {
        let mut factor = Array::<Vector<f32, Const<4>>>::new(fours);
        #[unroll]
        for j in 0..fours {
            factor[j] = factors[(k * fours + j) * across + column];
        }
        #[unroll]
        for i in 0..tile.each {
            let value = Vector::new(input[k * comptime!(tile.stride()) + row * tile.each + i]);
            #[unroll]
            for j in 0..fours {
                sums[i * fours + j] += value * factor[j];
            }
        }
    }
}

/// Adds bias and residual and writes the unit's sums.
#[cube]
fn store<E: Float, M: Size>(
    sums: &Array<Vector<f32, Const<4>>>,
    bias: &Array<Vector<f32, M>>,
    residual: &Array<Vector<E, M>>,
    y: &mut Array<Vector<E, M>>,
    first_pixel: usize,
    first_column: usize,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] form: Form,
) {
    let m = M::value();
    let (across, fours) = comptime!((form.tile.across, form.tile.fours));
    let (row, column) = (UNIT_POS as usize / across, UNIT_POS as usize % across);
    let cout = sizes[5] as usize;
    #[unroll]
    for i in 0..form.tile.each {
        let pixel = first_pixel + row * form.tile.each + i;
        #[unroll]
        for part in 0..comptime!(4 * fours / m) {
            let (four, inner) = comptime!((part * m / 4, part * m % 4));
            let channel = (first_column + four * across + column) * 4 + inner;
            if pixel < sizes[0] as usize && channel < cout {
                let mut out = Vector::<f32, M>::empty();
                #[unroll]
                for lane in 0..m {
                    out[lane] = sums[i * fours + four][inner + lane];
                }
                if comptime!(form.bias) {
                    out += bias[lead[3] as usize + channel / m];
                }
                let at = (pixel * cout + channel) / m;
                if comptime!(form.residual) {
                    out += Vector::cast_from(residual[lead[4] as usize + at]);
                }
                let to = lead[5] as usize + at;
                y[to] = Vector::cast_from(out);
            }
        }
    }
}
