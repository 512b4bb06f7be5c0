//! Rounding to 8-bit integers: a scale for all terms of a row, and the integers nearest to the scaled
//! terms, from -127 to 127.
//!
//! Invariants: every step rounds the same on every instruction set; see [`crate::Scale`]. The integers
//! travel as f32, four to one, which no arithmetic touches.

use super::split::multiversion;

/// The largest integer.
pub(super) const LIMIT: f32 = 127.0;

/// What is added to the integers where they have to be unsigned.
const OFFSET: i32 = 128;

/// Terms of a product at most, so that no sum leaves the 32 bits that hold it.
pub(super) const MAX_TERMS: usize = (i32::MAX / (127 * 127)) as usize;

/// The integer nearest to `x * inverse`, ties to even.
#[inline(always)]
pub(super) fn round(x: f32, inverse: f32) -> i8 {
    // The sum with 1.5 * 2^23 has the integer in its low bits.
    const ROUND: f32 = 12_582_912.0;
    (x * inverse + ROUND).to_bits() as i8
}

multiversion! {
    /// Rounds a row to the bytes of integers.
    pub(super) fn round_row(row: &[f32], inverse: f32, out: &mut [u8]) {
        for (out, &v) in out.iter_mut().zip(row) {
            *out = round(v, inverse) as u8;
        }
    }
}

multiversion! {
    /// Adds 128 to integers, which makes them unsigned.
    pub(super) fn make_unsigned(row: &mut [u8]) {
        for v in row.iter_mut() {
            *v ^= 0x80;
        }
    }
}

/// Widens the integers, four to an element, to 16 bits: first those at even places, then the others,
/// two to an element. Sums are exact, so that their order is free.
#[inline(always)]
pub(super) fn widen(quads: &[f32], out: &mut [f32]) {
    let (quads, out) = (halves(quads), halves_mut(out));
    let (even, odd) = out.split_at_mut(quads.len());
    for ((&both, even), odd) in quads.iter().zip(even).zip(odd) {
        *even = (both << 8) >> 8;
        *odd = both >> 8;
    }
}

/// What the sum of a column has too much when the other integers are unsigned.
pub(super) fn excess(integers: impl Iterator<Item = i8>) -> i32 {
    integers.fold(0, |sum: i32, v| {
        sum.wrapping_add(OFFSET.wrapping_mul(i32::from(v)))
    })
}

multiversion! {
    /// Takes the excess from sums, whose bits are those of integers.
    pub(super) fn take_excess(sums: &mut [f32], excess: &[i32]) {
        for (sum, &excess) in sums.iter_mut().zip(excess) {
            let exact = (sum.to_bits() as i32).wrapping_sub(excess);
            *sum = f32::from_bits(exact as u32);
        }
    }
}

multiversion! {
    /// Turns sums, whose bits are those of integers, into numbers.
    pub(super) fn scale_sums(sums: &mut [f32], row: f32, columns: &[f32]) {
        for (sum, &column) in sums.iter_mut().zip(columns) {
            *sum = (sum.to_bits() as i32) as f32 * row * column;
        }
    }
}

/// The bytes of a row.
pub(super) fn bytes_mut(row: &mut [f32]) -> &mut [u8] {
    // SAFETY: the same memory as bytes, which need no alignment; every bit pattern is an f32.
    unsafe { std::slice::from_raw_parts_mut(row.as_mut_ptr().cast(), size_of_val(row)) }
}

fn halves(row: &[f32]) -> &[i16] {
    // SAFETY: the same memory as 16-bit integers, which need less alignment than f32.
    unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), 2 * row.len()) }
}

fn halves_mut(row: &mut [f32]) -> &mut [i16] {
    // SAFETY: as above; every bit pattern is an f32.
    unsafe { std::slice::from_raw_parts_mut(row.as_mut_ptr().cast(), 2 * row.len()) }
}
