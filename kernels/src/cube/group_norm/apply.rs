//! What a group norm does to every element once factors and offsets are known.
//!
//! Invariant: elementwise.

use cubecl::prelude::*;

use crate::cube::math::{Function, apply};

/// What follows the norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Last {
    pub spatial: bool,
    pub activation: Function,
}

/// `sizes`: vectors, vectors of a pixel, frames, height, width; frames, rows and columns of the latent;
/// frames that stand alone.
#[cube(launch_unchecked)]
pub(super) fn affine_rows<E: Float, N: Size>(
    x: &mut Array<Vector<E, N>>,
    affine: &Array<Vector<f32, N>>,
    yb: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    frame_ratio: f32,
    row_ratio: f32,
    column_ratio: f32,
    #[comptime] last: Last,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (vectors, frames) = (sizes[1] as usize, sizes[2] as usize);
        let (height, width) = (sizes[3] as usize, sizes[4] as usize);
        let (pixel, inner) = (i / vectors, i % vectors);
        let item = pixel / (frames * height * width);
        let channel = lead[1] as usize + item * 2 * vectors + inner;
        let mut value = Vector::<f32, N>::cast_from(x[lead[0] as usize + i]);
        value = value * affine[channel] + affine[channel + vectors];
        if comptime!(last.spatial) {
            let (line, column) = (pixel / width, pixel % width);
            let (frame, row) = (line / height % frames, line % height);
            let alone = sizes[8];
            let later = source(
                max(frame as u32, alone) - alone,
                frame_ratio,
                sizes[5] - alone,
            );
            let frame = select((frame as u32) < alone, 0u32, later + alone);
            let row = source(row as u32, row_ratio, sizes[6]);
            let column = source(column as u32, column_ratio, sizes[7]);
            let line = (item as u32 * sizes[5] + frame) * sizes[6] + row;
            let from = (line * sizes[7] + column) as usize * 2 * vectors + inner;
            let from = lead[2] as usize + from;
            let factor = Vector::<f32, N>::cast_from(yb[from]);
            value = value * factor + Vector::cast_from(yb[from + vectors]);
        }
        #[unroll]
        for k in 0..N::value() {
            value[k] = apply(value[k], last.activation);
        }
        let to = lead[3] as usize + i;
        y[to] = Vector::cast_from(value);
    }
}

/// The nearest of `size` positions as torch computes it: the ratio is an f32, whose rounding decides
/// at the borders of sizes that do not divide.
#[cube]
fn source(index: u32, ratio: f32, size: u32) -> u32 {
    min(u32::cast_from(f32::cast_from(index) * ratio), size - 1)
}
