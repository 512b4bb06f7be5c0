//! Embeddings: token lookup, T5's relative position bias, sinusoidal timestep embedding.
//!
//! Invariants: what depends on the sizes alone and needs more than f32 (buckets, frequencies) is
//! computed by the host as the CPU kernels do it, once, and is an operand here. Refused: bucket counts
//! too small to define logarithmic buckets, operands whose lengths or element types disagree.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::math::sin_or_cos;
use super::operand::{Element, Operand, width};
use crate::cpu::SinCosOrder;
use crate::cpu::embedding::{bucket, check_buckets, frequencies};
use crate::{KernelError, check};

/// Units of a cube.
const UNITS: usize = 256;

/// Angles of a timestep embedding, at most.
const ANGLES: usize = 1 << 24;

/// Rows of a table picked by token id.
#[derive(Debug, Clone)]
pub struct TokenEmbedding<B> {
    /// Rows of the table, at least 1.
    pub vocabulary: usize,
    /// Elements of a row.
    pub width: usize,
    /// Token ids u32. One outside the vocabulary reads the last row: whoever uploads ids checks them.
    pub ids: Operand<B>,
    /// `[vocabulary, width]` of any floating-point type.
    pub table: Operand<B>,
    /// `[ids, width]`.
    pub y: Operand<B>,
}

impl<B: Clone> TokenEmbedding<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "token_embedding";
        let Self {
            vocabulary,
            ids,
            table,
            y,
            ..
        } = self;
        if *vocabulary == 0 {
            return Err(check::argument(KERNEL, "vocabulary", "at least 1", "0"));
        }
        ids.is(KERNEL, "ids", Element::U32)?;
        let (element, stored) = (y.float(KERNEL, "y")?, table.float(KERNEL, "table")?);
        let entries = check::product(KERNEL, "vocabulary, width", &[*vocabulary, self.width])?;
        table.length(KERNEL, "table", entries)?;
        let total = check::product(KERNEL, "ids, width", &[ids.len, self.width])?;
        y.length(KERNEL, "y", total)?;
        let n = width([self.width, table.offset, y.offset]);
        let kernel = pick::Pick::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            list(3),
            n,
            stored.storage(),
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(ids, 1)
            .array(table, n)
            .array(y, n)
            .u32s([total / n, self.width / n, *vocabulary])
            .over(line((total / n).div_ceil(UNITS)), kernel)
    }
}

/// `y[head, query, key] = table[bucket(key - query), head]`.
#[derive(Debug, Clone)]
pub struct RelativeBias<B> {
    /// Sizes.
    pub shape: RelativeShape,
    /// `[buckets, heads]` f32.
    pub table: Operand<B>,
    /// As [`RelativeShape::buckets`] makes them, u32.
    pub buckets: Operand<B>,
    /// `[heads, queries, keys]` f32.
    pub y: Operand<B>,
}

/// Sizes of a relative position bias; see [`cpu::RelativeBias`](crate::cpu::RelativeBias).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeShape {
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
}

impl RelativeShape {
    /// The bucket of every distance, from the last query at the first key on: `queries + keys - 1`, or
    /// none when there is nothing to spread them over.
    ///
    /// # Errors
    /// [`KernelError`] when the bucket counts do not fit each other.
    pub fn buckets(&self) -> Result<Vec<u32>, KernelError> {
        let Self {
            buckets,
            max_distance,
            ..
        } = *self;
        check_buckets("relative_bias", buckets, max_distance)?;
        if self.heads == 0 || self.queries == 0 || self.keys == 0 {
            return Ok(Vec::new());
        }
        let behind = (0..self.queries)
            .rev()
            .map(|d| bucket(d, buckets, max_distance));
        let ahead = (1..self.keys).map(|d| buckets / 2 + bucket(d, buckets, max_distance));
        Ok(behind.chain(ahead).map(|index| index as u32).collect())
    }
}

impl<B: Clone> RelativeBias<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an argument or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "relative_bias";
        let Self {
            shape,
            table,
            buckets,
            y,
        } = self;
        check_buckets(KERNEL, shape.buckets, shape.max_distance)?;
        table.is(KERNEL, "table", Element::F32)?;
        buckets.is(KERNEL, "buckets", Element::U32)?;
        y.is(KERNEL, "y", Element::F32)?;
        let entries = check::product(KERNEL, "buckets, heads", &[shape.buckets, shape.heads])?;
        table.length(KERNEL, "table", entries)?;
        let sizes = [shape.heads, shape.queries, shape.keys];
        y.length(
            KERNEL,
            "y",
            check::product(KERNEL, "heads, queries, keys", &sizes)?,
        )?;
        if y.len == 0 {
            return Ok(Vec::new());
        }
        let distances = check::sum(KERNEL, "queries, keys", [shape.queries - 1, shape.keys])?;
        buckets.length(KERNEL, "buckets", distances)?;
        let kernel = spread::Spread::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            list(4),
        );
        Builder::new(KERNEL, device)
            .array(table, 1)
            .array(buckets, 1)
            .array(y, 1)
            .u32s([y.len, shape.heads, shape.queries, shape.keys])
            .over(line(y.len.div_ceil(UNITS)), kernel)
    }
}

/// Sines and cosines of timesteps; an odd `dim` ends in a zero.
#[derive(Debug, Clone)]
pub struct TimestepEmbedding<B> {
    /// Sizes.
    pub shape: TimestepShape,
    /// Timesteps f32; the angles are exact to rounding up to 8192.
    pub timesteps: Operand<B>,
    /// As [`TimestepShape::frequencies`] makes them, f32.
    pub frequencies: Operand<B>,
    /// `[timesteps, dim]`.
    pub y: Operand<B>,
}

/// Sizes of a timestep embedding; see [`cpu::TimestepEmbedding`](crate::cpu::TimestepEmbedding).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimestepShape {
    /// Elements of an embedding.
    pub dim: usize,
    /// Which half comes first.
    pub order: SinCosOrder,
    /// Subtracted from `dim / 2` in the exponent's divisor.
    pub downscale_freq_shift: f32,
    /// The longest period, 10 000 in all known checkpoints.
    pub max_period: f64,
}

impl TimestepShape {
    /// Factor of the timestep in each of the `dim / 2` angles.
    ///
    /// # Errors
    /// [`KernelError`] when there are more than a sane embedding has, the shift is not below `dim / 2`,
    /// or the period is not positive.
    pub fn frequencies(&self) -> Result<Vec<f32>, KernelError> {
        let (shift, period) = (self.downscale_freq_shift, self.max_period);
        let (kernel, half) = ("timestep_embedding", self.dim / 2);
        // Without timesteps no operand bounds what would be allocated here.
        if half > ANGLES {
            let found = self.dim.to_string();
            let expected = format!("at most {}", 2 * ANGLES);
            return Err(check::argument(kernel, "dim", expected, found));
        }
        Ok(frequencies(kernel, half, shift, period)?.collect())
    }
}

impl<B: Clone> TimestepEmbedding<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        const KERNEL: &str = "timestep_embedding";
        let Self {
            shape,
            timesteps,
            frequencies,
            y,
        } = self;
        let half = shape.dim / 2;
        timesteps.is(KERNEL, "timesteps", Element::F32)?;
        frequencies.is(KERNEL, "frequencies", Element::F32)?;
        let element = y.float(KERNEL, "y")?;
        let total = check::product(KERNEL, "timesteps, dim", &[timesteps.len, shape.dim])?;
        y.length(KERNEL, "y", total)?;
        if total == 0 {
            return Ok(Vec::new());
        }
        frequencies.length(KERNEL, "frequencies", half)?;
        let kernel = sinusoids::Sinusoids::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            list(3),
            list(2),
            shape.order == SinCosOrder::SinCos,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(timesteps, 1)
            .maybe((half > 0).then_some(frequencies), timesteps, 1)
            .array(y, 1)
            .u32s([total, shape.dim])
            .over(line(total.div_ceil(UNITS)), kernel)
    }
}

/// `sizes`: vectors of the result, vectors of a row, vocabulary.
#[cube(launch_unchecked)]
fn pick<T: Float, E: Float, N: Size>(
    ids: &Array<u32>,
    table: &Array<Vector<T, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[define(T)] _stored: StorageType,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let width = sizes[1] as usize;
        let id = min(ids[lead[0] as usize + i / width], sizes[2] - 1);
        let from = lead[1] as usize + id as usize * width + i % width;
        let to = lead[2] as usize + i;
        y[to] = Vector::cast_from(Vector::<f32, N>::cast_from(table[from]));
    }
}

/// `sizes`: elements of the result, heads, queries, keys.
#[cube(launch_unchecked)]
fn spread(
    table: &Array<f32>,
    buckets: &Array<u32>,
    y: &mut Array<f32>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (heads, queries) = (sizes[1] as usize, sizes[2] as usize);
        let (row, key) = (i / sizes[3] as usize, i % sizes[3] as usize);
        let (head, query) = (row / queries, row % queries);
        let bucket = buckets[lead[1] as usize + queries - 1 - query + key] as usize;
        let to = lead[2] as usize + i;
        y[to] = table[lead[0] as usize + bucket * heads + head];
    }
}

/// `sizes`: elements of the result, elements of an embedding.
#[cube(launch_unchecked)]
fn sinusoids<E: Float>(
    timesteps: &Array<f32>,
    frequencies: &Array<f32>,
    y: &mut Array<E>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] sines_first: bool,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (row, column) = (i / sizes[1] as usize, i % sizes[1] as usize);
        let half = sizes[1] as usize / 2;
        let mut value = 0.0f32;
        if column < 2 * half {
            let frequency = frequencies[lead[1] as usize + column % half];
            let angle = timesteps[lead[0] as usize + row] * frequency;
            let first = column < half;
            value = if comptime!(sines_first) {
                sin_or_cos(angle, first)
            } else {
                sin_or_cos(angle, !first)
            };
        }
        let to = lead[2] as usize + i;
        y[to] = E::cast_from(value);
    }
}
