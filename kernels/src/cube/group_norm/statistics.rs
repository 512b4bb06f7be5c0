//! Statistics of a group norm on the device, and the factors that follow from them.
//!
//! Invariant: the order of all sums follows from the sizes of a batch item; how operands are aligned
//! does not matter.

use cubecl::prelude::*;

use super::UNITS;
use crate::cube::fours::{Four, load, total};
use crate::cube::math::cube_sum;

/// How the units of a cube lie over the channels, which follows from the group alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    /// Channels that a unit reads at once.
    pub step: usize,
    /// Steps of a group.
    pub steps: usize,
    /// Groups of a cube.
    pub groups: usize,
    /// Units side by side over the channels of the cube's groups.
    pub across: usize,
}

impl Layout {
    pub fn new(size: usize, groups: usize) -> Self {
        let step = if size.is_multiple_of(4) { 4 } else { 1 };
        let steps = (size / step).max(1);
        let groups = (UNITS / steps).clamp(1, groups);
        Self {
            step,
            steps,
            groups,
            across: (steps * groups).min(UNITS),
        }
    }

    /// Pixels that are read at once.
    fn lines(self) -> usize {
        UNITS / self.across
    }

    /// Units of a line that share a group.
    fn share(self) -> usize {
        self.steps.min(self.across)
    }
}

/// `sizes`: batch, pixels, pixels of a block, groups.
#[cube(launch_unchecked)]
pub(super) fn block_statistics<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    partials: &mut Array<f32>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] layout: Layout,
    #[define(E)] _element: StorageType,
) {
    let mut sums = SharedMemory::<f32>::new(UNITS);
    let mut squares = SharedMemory::<f32>::new(UNITS);
    let (pixels, block, groups) = (sizes[1] as usize, sizes[2] as usize, sizes[3] as usize);
    let tiles = groups.div_ceil(layout.groups);
    let blocks = pixels.div_ceil(block);
    let group = CUBE_POS % tiles * layout.groups;
    let (item, number) = (CUBE_POS / tiles / blocks, CUBE_POS / tiles % blocks);
    let exists = item < sizes[0] as usize;
    let first = item * pixels + number * block;
    let last = item * pixels + min((number + 1) * block, pixels);

    let unit = UNIT_POS as usize;
    let own = unit % layout.across / layout.share();
    let mut sum = 0.0f32;
    let mut square = 0.0f32;
    if exists && unit < comptime!(layout.lines() * layout.across) && group + own < groups {
        let pivot = pivot::<E, N>(x, lead[0] as usize, first, group + own, groups, layout);
        let (a, b) = deviations::<E, N>(
            x,
            lead[0] as usize,
            first,
            last,
            group,
            groups,
            pivot,
            layout,
        );
        sum = a;
        square = b;
    }
    sums[unit] = sum;
    squares[unit] = square;
    sync_cube();
    if exists && unit < layout.groups && group + unit < groups {
        let mut sum = 0.0f32;
        let mut square = 0.0f32;
        for line in 0..layout.lines() {
            for i in 0..layout.share() {
                sum += sums[line * layout.across + unit * layout.share() + i];
                square += squares[line * layout.across + unit * layout.share() + i];
            }
        }
        let pivot = pivot::<E, N>(x, lead[0] as usize, first, group + unit, groups, layout);
        let count = ((last - first) * comptime!(layout.steps * layout.step)) as u32;
        let mean = sum / f32::cast_from(count);
        let to = lead[1] as usize + ((item * blocks + number) * groups + group + unit) * 2;
        partials[to] = pivot + mean;
        partials[to + 1] = max(square - sum * mean, 0.0f32);
    }
}

/// One element of a group: deviations from it keep the digits that a large mean would cost.
#[cube]
fn pivot<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    lead: usize,
    pixel: usize,
    group: usize,
    groups: usize,
    #[comptime] layout: Layout,
) -> f32 {
    let first = (pixel * groups + group) * comptime!(layout.steps * layout.step);
    load::<E, N>(x, lead, first, first + 1, 0.0f32)[0]
}

/// Sum and sum of squares of a unit's deviations from `pivot` over the pixels `first..last`.
#[cube]
fn deviations<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    lead: usize,
    first: usize,
    last: usize,
    group: usize,
    groups: usize,
    pivot: f32,
    #[comptime] layout: Layout,
) -> (f32, f32) {
    let size = comptime!(layout.steps * layout.step);
    let mut sums = Four::new(0.0f32);
    let mut squares = Four::new(0.0f32);
    let mut pixel = first + UNIT_POS as usize / layout.across;
    while pixel < last {
        let begin = (pixel * groups + group) * size;
        let mut step = UNIT_POS as usize % layout.across;
        while step < comptime!(layout.steps * layout.groups) {
            let at = begin + step * layout.step;
            let value = load::<E, N>(x, lead, at, at + layout.step, pivot) - Four::new(pivot);
            sums += value;
            squares += value * value;
            step += layout.across;
        }
        pixel += layout.lines();
    }
    (total(sums), total(squares))
}

/// `sizes`: batch, pixels, pixels of a block, groups, channels. `affine`: whether there are weights,
/// and biases.
#[cube(launch_unchecked)]
pub(super) fn join_blocks(
    partials: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    out: &mut Array<f32>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    eps: f32,
    #[comptime] affine: [bool; 2],
) {
    let (pixels, block) = (sizes[1] as usize, sizes[2] as usize);
    let (groups, channels) = (sizes[3] as usize, sizes[4] as usize);
    let (item, group) = (CUBE_POS / groups, CUBE_POS % groups);
    let size = channels / groups;
    let blocks = select(item < sizes[0] as usize, pixels.div_ceil(block), 0usize);
    let first = lead[0] as usize + (item * pixels.div_ceil(block) * groups + group) * 2;
    let elements = f32::cast_from(pixels as u32) * f32::cast_from(size as u32);

    let mut part = 0.0f32;
    let mut number = UNIT_POS as usize;
    while number < blocks {
        let count = f32::cast_from((min(block, pixels - number * block) * size) as u32);
        part += partials[first + number * groups * 2] * count;
        number += UNITS;
    }
    let mean = cube_sum(part, UNITS) / elements;
    let mut part = 0.0f32;
    let mut number = UNIT_POS as usize;
    while number < blocks {
        let count = f32::cast_from((min(block, pixels - number * block) * size) as u32);
        let deviation = partials[first + number * groups * 2] - mean;
        part += partials[first + number * groups * 2 + 1] + deviation * deviation * count;
        number += UNITS;
    }
    let root = 1.0f32 / f32::sqrt(cube_sum(part, UNITS) / elements + eps);
    let mut channel = group * size + UNIT_POS as usize;
    while blocks > 0 && channel < (group + 1) * size {
        let mut factor = root;
        if comptime!(affine[0]) {
            factor *= weight[lead[1] as usize + channel];
        }
        let mut offset = 0.0f32 - mean * factor;
        if comptime!(affine[1]) {
            offset += bias[lead[2] as usize + channel];
        }
        let to = lead[3] as usize + item * 2 * channels + channel;
        out[to] = factor;
        out[to + channels] = offset;
        channel += UNITS;
    }
}
