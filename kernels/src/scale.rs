//! The scales of rows whose numbers become ones of 8 bits.
//!
//! Invariants: a scale depends on the largest magnitude of its row alone, so it is the same in any order.
//! A row that is all zero, or smaller than f32 can scale, counts as zero; one with an infinity or NaN
//! gives NaN in every sum.

/// The scale of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scale {
    /// What the numbers are multiplied by before they are rounded.
    pub inverse: f32,
    /// What a sum of rounded numbers is multiplied by.
    pub factor: f32,
}

impl Scale {
    /// The scale of a row whose largest magnitude has the bits `largest`, for numbers up to `limit`, 512
    /// at most.
    pub(crate) fn of(largest: u32, limit: f32) -> Self {
        // Below it 512 / largest overflows.
        const SMALLEST: f32 = f32::MIN_POSITIVE * 512.0;
        let largest = f32::from_bits(largest);
        if !largest.is_finite() {
            return Self {
                inverse: 0.0,
                factor: f32::NAN,
            };
        }
        if largest < SMALLEST {
            return Self::default();
        }
        Self {
            inverse: limit / largest,
            factor: largest / limit,
        }
    }
}

/// `largest` or the bits of the largest magnitude of `row`, whichever is larger; an infinity is larger than
/// every number and NaN larger still.
#[inline(always)]
pub(crate) fn raised(largest: u32, row: &[f32]) -> u32 {
    let magnitude = |v: &f32| v.to_bits() & 0x7fff_ffff;
    row.iter().map(magnitude).fold(largest, u32::max)
}
