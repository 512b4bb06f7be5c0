//! Embeddings: token lookup, T5's relative position bias, sinusoidal timestep embedding.
//!
//! Invariants: transcendental functions are the pure Rust ones of `libm`, so the tables are the same on
//! every machine. Refused: token ids outside the vocabulary, bucket counts too small to define
//! logarithmic buckets, operands whose lengths disagree.

use super::check;
use super::split::for_rows;
use crate::KernelError;

/// Rows of a table picked by token id.
#[derive(Debug)]
pub struct TokenEmbedding<'a> {
    /// Rows of the table.
    pub vocabulary: usize,
    /// Elements of a row.
    pub width: usize,
    /// Token ids, each below `vocabulary`.
    pub ids: &'a [u32],
    /// `[vocabulary, width]`.
    pub table: &'a [f32],
    /// `[ids, width]`.
    pub y: &'a mut [f32],
}

impl TokenEmbedding<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit or an id is out of range; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "token_embedding";
        let Self {
            vocabulary,
            width,
            ids,
            table,
            y,
        } = self;
        let entries = check::product(KERNEL, "vocabulary, width", &[vocabulary, width])?;
        check::length(KERNEL, "table", entries, table.len())?;
        let total = check::product(KERNEL, "ids, width", &[ids.len(), width])?;
        check::length(KERNEL, "y", total, y.len())?;
        if let Some((at, id)) = ids
            .iter()
            .enumerate()
            .find(|&(_, &id)| id as usize >= vocabulary)
        {
            let expected = format!("below the vocabulary of {vocabulary}");
            return Err(check::argument(
                KERNEL,
                "ids",
                expected,
                format!("{id} at index {at}"),
            ));
        }
        for_rows(y, width, |row, out| {
            out.copy_from_slice(&table[ids[row] as usize * width..][..width]);
        });
        Ok(())
    }
}

/// T5's bidirectional relative position bias, `y[head, query, key] = table[bucket(key - query), head]`.
///
/// Source: `T5Attention._relative_position_bucket` of transformers; the logarithm is rounded to f32 as
/// there, because the rounding decides the bucket at its borders.
#[derive(Debug)]
pub struct RelativeBias<'a> {
    /// Attention heads.
    pub heads: usize,
    /// Query positions.
    pub queries: usize,
    /// Key positions.
    pub keys: usize,
    /// Buckets for both directions together, at least 4.
    pub buckets: usize,
    /// Distance from which on all positions share the last bucket; more than `buckets / 4`.
    pub max_distance: usize,
    /// `[buckets, heads]`.
    pub table: &'a [f32],
    /// `[heads, queries, keys]`.
    pub y: &'a mut [f32],
}

impl RelativeBias<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an argument does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "relative_bias";
        let Self {
            heads,
            queries,
            keys,
            buckets,
            max_distance,
            table,
            y,
        } = self;
        check_buckets(KERNEL, buckets, max_distance)?;
        let entries = check::product(KERNEL, "buckets, heads", &[buckets, heads])?;
        check::length(KERNEL, "table", entries, table.len())?;
        let total = check::product(KERNEL, "heads, queries, keys", &[heads, queries, keys])?;
        check::length(KERNEL, "y", total, y.len())?;
        if total == 0 {
            return Ok(());
        }
        let behind: Vec<usize> = (0..queries)
            .map(|d| bucket(d, buckets, max_distance))
            .collect();
        let ahead: Vec<usize> = (0..keys)
            .map(|d| buckets / 2 + bucket(d, buckets, max_distance))
            .collect();
        for_rows(y, keys, |row, out| {
            let (head, query) = (row / queries, row % queries);
            for (key, value) in out.iter_mut().enumerate() {
                let index = if key > query {
                    ahead[key - query]
                } else {
                    behind[query - key]
                };
                *value = table[index * heads + head];
            }
        });
        Ok(())
    }
}

/// Sines and cosines of timesteps, `y` of shape `[timesteps, dim]`; an odd `dim` ends in a zero.
///
/// Source: `get_timestep_embedding` of diffusers 0.42, with its f32 steps.
#[derive(Debug)]
pub struct TimestepEmbedding<'a> {
    /// Elements of an embedding.
    pub dim: usize,
    /// Which half comes first.
    pub order: SinCosOrder,
    /// Subtracted from `dim / 2` in the exponent's divisor.
    pub downscale_freq_shift: f32,
    /// The longest period, 10 000 in all known checkpoints.
    pub max_period: f64,
    /// Timesteps.
    pub timesteps: &'a [f32],
    /// `[timesteps, dim]`.
    pub y: &'a mut [f32],
}

/// Order of the halves of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinCosOrder {
    /// Sines, then cosines.
    SinCos,
    /// Cosines, then sines (`flip_sin_to_cos`).
    CosSin,
}

impl TimestepEmbedding<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an argument does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        const KERNEL: &str = "timestep_embedding";
        let total = check::product(KERNEL, "timesteps, dim", &[self.timesteps.len(), self.dim])?;
        check::length(KERNEL, "y", total, self.y.len())?;
        let half = self.dim / 2;
        let (shift, period) = (self.downscale_freq_shift, self.max_period);
        let frequencies = frequencies(KERNEL, half, shift, period)?;
        if total == 0 {
            return Ok(());
        }
        let (sin_at, cos_at) = match self.order {
            SinCosOrder::SinCos => (0, half),
            SinCosOrder::CosSin => (half, 0),
        };
        let frequencies: Vec<f32> = frequencies.collect();
        for (out, &timestep) in self.y.chunks_exact_mut(self.dim).zip(self.timesteps) {
            out[2 * half..].fill(0.0);
            for (i, &frequency) in frequencies.iter().enumerate() {
                let angle = timestep * frequency;
                out[sin_at + i] = libm::sin(f64::from(angle)) as f32;
                out[cos_at + i] = libm::cos(f64::from(angle)) as f32;
            }
        }
        Ok(())
    }
}

/// Factor of the timestep in each of `half` angles: `max_period^(-i / (half - shift))`.
pub(crate) fn frequencies(
    kernel: &'static str,
    half: usize,
    shift: f32,
    max_period: f64,
) -> Result<impl Iterator<Item = f32>, KernelError> {
    let divisor = half as f32 - shift;
    if half > 0 && (!divisor.is_finite() || divisor <= 0.0) {
        let expected = format!("below dim / 2 = {half}");
        let found = shift.to_string();
        return Err(check::argument(
            kernel,
            "downscale_freq_shift",
            expected,
            found,
        ));
    }
    if !max_period.is_finite() || max_period <= 0.0 {
        let found = max_period.to_string();
        return Err(check::argument(
            kernel,
            "max_period",
            "finite and positive",
            found,
        ));
    }
    let log_period = -libm::log(max_period) as f32;
    let frequency = move |i: usize| {
        let exponent = log_period * i as f32 / divisor;
        libm::exp(f64::from(exponent)) as f32
    };
    Ok((0..half).map(frequency))
}

/// Refuses bucket counts too small to define logarithmic buckets.
pub(crate) fn check_buckets(
    kernel: &'static str,
    buckets: usize,
    max_distance: usize,
) -> Result<(), KernelError> {
    if buckets < 4 {
        let found = buckets.to_string();
        return Err(check::argument(kernel, "buckets", "at least 4", found));
    }
    if max_distance <= buckets / 4 {
        let expected = format!("more than {}", buckets / 4);
        let found = max_distance.to_string();
        return Err(check::argument(kernel, "max_distance", expected, found));
    }
    Ok(())
}

/// The bucket of a distance within one direction's half of the buckets.
pub(crate) fn bucket(distance: usize, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let exact = half / 2;
    if distance < exact {
        return distance;
    }
    let log = libm::log(f64::from(distance as f32 / exact as f32)) as f32;
    let span = libm::log(max_distance as f64 / exact as f64) as f32;
    let large = exact + (log / span * (half - exact) as f32) as usize;
    large.min(half - 1)
}
