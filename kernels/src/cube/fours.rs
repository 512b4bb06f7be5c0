//! Elements of a row four at a time, whether an array holds vectors of four or single elements.
//!
//! Invariant: element `i` is lane `i % 4` of four `i / 4` either way, so what is computed does not
//! depend on how an operand happens to be aligned.

use cubecl::prelude::*;

/// Four elements of a row in f32.
pub(super) type Four = Vector<f32, Const<4>>;

/// The elements `at + first ..` of `x`, where `at` counts vectors; those at or behind `end` are
/// `fill`.
#[cube]
pub(super) fn load<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    at: usize,
    first: usize,
    end: usize,
    fill: f32,
) -> Four {
    let mut out = Four::new(fill);
    let n = N::value();
    if comptime!(n == 4) {
        let vector = x[at + first / 4];
        #[unroll]
        for k in 0..4 {
            out[k] = f32::cast_from(vector[k]);
        }
    } else {
        #[unroll]
        for k in 0..4 {
            if first + k < end {
                out[k] = f32::cast_from(x[at + first + k][0]);
            }
        }
    }
    out
}

/// Writes four elements to where [`load`] would read them.
#[cube]
pub(super) fn store<E: Float, N: Size>(
    y: &mut Array<Vector<E, N>>,
    at: usize,
    first: usize,
    end: usize,
    value: Four,
) {
    let n = N::value();
    if comptime!(n == 4) {
        let mut vector = Vector::<E, N>::empty();
        #[unroll]
        for k in 0..4 {
            vector[k] = E::cast_from(value[k]);
        }
        let to = at + first / 4;
        y[to] = vector;
    } else {
        #[unroll]
        for k in 0..4 {
            if first + k < end {
                let to = at + first + k;
                y[to] = Vector::<E, N>::cast_from(value[k]);
            }
        }
    }
}

/// The sum of the lanes.
#[cube]
pub(super) fn total(v: Four) -> f32 {
    (v[0] + v[1]) + (v[2] + v[3])
}
