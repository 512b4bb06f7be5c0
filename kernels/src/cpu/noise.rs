//! Normal noise from a counter-based generator: a function of (seed, stream, index) alone.
//!
//! Invariants: Philox4x32-10 and the pure Rust functions of `libm` in f64, so a number is the same on
//! every machine, in every cut, and in whatever order the numbers are drawn. Block `index / 4` of the
//! counter gives the four numbers from `4 * (index / 4)` on. Refused: indices beyond 64 bits, boxes that
//! leave the output or overlap.
//!
//! Source: J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011; G. Box and
//! M. Muller, "A Note on the Generation of Random Normal Deviates", 1958.

use super::check;
use super::split::for_blocks;
use crate::KernelError;
use crate::boxes::BoxDims;

/// Philox4x32-10: ten rounds over a counter of four words under a key of two.
#[must_use]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            k = [
                k[0].wrapping_add(0x9E37_79B9),
                k[1].wrapping_add(0xBB67_AE85),
            ];
        }
        let a = u64::from(c[0]) * 0xD251_1F53;
        let b = u64::from(c[2]) * 0xCD9E_8D57;
        c = [
            (b >> 32) as u32 ^ c[1] ^ k[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ k[1],
            a as u32,
        ];
    }
    c
}

/// The standard normal number at `index` of `stream` under `seed`.
#[must_use]
pub fn normal(seed: u64, stream: u64, index: u64) -> f32 {
    let mut out = [0.0];
    fill(seed, stream, index, &mut out);
    out[0]
}

/// Fills `out` with the numbers from `first_index` on.
///
/// # Errors
/// [`KernelError::Argument`] when the last index exceeds 64 bits; then nothing was written.
pub fn noise_fill(
    seed: u64,
    stream: u64,
    first_index: u64,
    out: &mut [f32],
) -> Result<(), KernelError> {
    if first_index.checked_add(out.len() as u64).is_none() {
        let expected = format!(
            "at most {} for {} numbers",
            u64::MAX - out.len() as u64,
            out.len()
        );
        let found = first_index.to_string();
        return Err(check::argument(
            "noise_fill",
            "first_index",
            expected,
            found,
        ));
    }
    for_blocks(out, |first, block| {
        fill(seed, stream, first_index + first as u64, block)
    });
    Ok(())
}

/// Fills a strided box: element `i` at `out_offset + sum(i * out_strides)` gets the number at
/// `index_offset + sum(i * index_strides)`.
#[derive(Debug)]
pub struct NoiseBox<'a> {
    /// Key of the generator.
    pub seed: u64,
    /// Which of the seed's sequences is drawn, for instance the denoising step.
    pub stream: u64,
    /// Elements along each dimension, at most [`MAX_BOX_RANK`](super::MAX_BOX_RANK) dimensions.
    pub extents: &'a [usize],
    /// Output.
    pub out: &'a mut [f32],
    /// First element of the box in `out`.
    pub out_offset: usize,
    /// Step of each dimension in `out`; the steps must nest as in a (permuted) dense array.
    pub out_strides: &'a [usize],
    /// Index of the first element.
    pub index_offset: u64,
    /// Step of each dimension in the index.
    pub index_strides: &'a [u64],
}

impl NoiseBox<'_> {
    /// Fills the box.
    ///
    /// # Errors
    /// [`KernelError`] when the lists differ in length, the box leaves the output or would write an
    /// element twice, or an index exceeds 64 bits; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let Self {
            seed,
            stream,
            extents,
            out,
            out_offset,
            out_strides,
            ..
        } = self;
        let walk = BoxDims::new(
            "noise_box",
            extents,
            (out.len(), out_offset, out_strides),
            (u64::MAX, self.index_offset, self.index_strides),
        )?;
        walk.run(out, |out, index, dim| {
            if dim.to == 1 && dim.from == 1 {
                fill(seed, stream, index, &mut out[..dim.extent]);
                return;
            }
            for (i, v) in out.iter_mut().step_by(dim.to).take(dim.extent).enumerate() {
                *v = normal(seed, stream, index + i as u64 * dim.from);
            }
        });
        Ok(())
    }
}

/// Fills consecutive indices; the caller has checked that they fit 64 bits.
fn fill(seed: u64, stream: u64, first: u64, out: &mut [f32]) {
    let mut index = first;
    let mut rest = out;
    while !rest.is_empty() {
        let lane = (index % 4) as usize;
        let (now, later) = rest.split_at_mut(rest.len().min(4 - lane));
        let words = philox4x32(split(index / 4, stream), [seed as u32, (seed >> 32) as u32]);
        for pair in lane / 2..(lane + now.len()).div_ceil(2) {
            let values = box_muller(words[2 * pair], words[2 * pair + 1]);
            for (side, value) in values.into_iter().enumerate() {
                let at = (2 * pair + side).wrapping_sub(lane);
                if let Some(slot) = now.get_mut(at) {
                    *slot = value;
                }
            }
        }
        index = index.wrapping_add(now.len() as u64);
        rest = later;
    }
}

fn split(block: u64, stream: u64) -> [u32; 4] {
    [
        block as u32,
        (block >> 32) as u32,
        stream as u32,
        (stream >> 32) as u32,
    ]
}

/// Two normal numbers from two words; the first word becomes a number in (0, 1), so its logarithm is
/// finite.
fn box_muller(a: u32, b: u32) -> [f32; 2] {
    const UNIT: f64 = 1.0 / 4_294_967_296.0;
    let radius = (-2.0 * libm::log((f64::from(a) + 0.5) * UNIT)).sqrt();
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * (f64::from(b) * UNIT));
    [(radius * cos) as f32, (radius * sin) as f32]
}
