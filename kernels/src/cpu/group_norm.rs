//! Group norm of channels-last video, with the spatial modulation of the CogVideoX decoder and SiLU.
//!
//! Invariants: statistics are f64 sums over blocks of pixels that depend on the shape alone, added in
//! order, so they do not depend on the number of threads. Refused: channels that the groups do not
//! divide, a conditioning latent without the frames that the frame rule needs, lengths that disagree.

use rayon::prelude::*;

use super::input::Input;
use super::nearest::{frame_sources, sources};
use super::split::{for_rows, multiversion};
use super::{check, math};
use crate::KernelError;

const KERNEL: &str = "group_norm";

/// Blocks that the pixels of a batch item are divided into for the statistics, at most.
const BLOCKS: usize = 256;

/// Pixels of a block, at least.
const BLOCK_PIXELS: usize = 64;

/// Group norm of `x` `[batch, frames, height, width, channels]`, then the optional modulation, then
/// the optional activation.
#[derive(Debug)]
pub struct GroupNorm<'a> {
    /// Batch items; each has its own statistics.
    pub batch: usize,
    /// Frames.
    pub frames: usize,
    /// Pixel rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Groups of consecutive channels that share statistics.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[channels]`.
    pub weight: &'a [f32],
    /// `[channels]`.
    pub bias: &'a [f32],
    /// Modulation by the latent.
    pub spatial: Option<Spatial<'a>>,
    /// What is applied last.
    pub activation: GroupActivation,
    /// Input.
    pub x: Input<'a>,
    /// Output, as large as the input.
    pub y: &'a mut [f32],
}

/// Multiplier and offset per pixel, at the resolution of the latent and read by nearest neighbour.
///
/// Source: `CogVideoXSpatialNorm3D` of diffusers 0.42. Its 1x1x1 convolutions commute with the
/// interpolation, so they are done at the latent's resolution.
#[derive(Debug, Clone, Copy)]
pub struct Spatial<'a> {
    /// `[batch, frames, height, width, 2 * channels]`: the multipliers, then the offsets.
    pub yb: &'a [f32],
    /// Frames of the latent. If the video has an odd number of frames above 1, its first frame is
    /// read from the latent's first and the others from the latent's others, of which one must exist.
    pub frames: usize,
    /// Rows of the latent.
    pub height: usize,
    /// Columns of the latent.
    pub width: usize,
}

/// Activation behind the norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupActivation {
    /// None.
    Identity,
    /// x * sigmoid(x).
    Silu,
}

impl GroupNorm<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an argument does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        self.check()?;
        if self.y.is_empty() {
            return Ok(());
        }
        let lookup = self.spatial.map(|z| Lookup::new(&self, z)).transpose()?;
        let affine = self.affine();
        let Self {
            frames,
            height,
            width,
            channels,
            activation,
            x,
            y,
            ..
        } = self;
        for_rows(y, width * channels, |row, out| {
            let b = row / (frames * height);
            let (scale, offset) = affine[b * 2 * channels..][..2 * channels].split_at(channels);
            x.with(row * width * channels, out, |x, out| {
                scale_row(x, out, scale, offset);
            });
            if let Some(lookup) = &lookup {
                let frame = row / height % frames;
                modulate_row(
                    out,
                    lookup.row(b, frame, row % height),
                    &lookup.columns,
                    channels,
                );
            }
            match activation {
                GroupActivation::Identity => {}
                GroupActivation::Silu => silu_row(out),
            }
        });
        Ok(())
    }

    fn check(&self) -> Result<(), KernelError> {
        let Self {
            batch,
            frames,
            height,
            width,
            channels,
            groups,
            ..
        } = *self;
        if groups == 0 || !channels.is_multiple_of(groups) {
            let expected = format!("a divisor of the {channels} channels");
            return Err(check::argument(
                KERNEL,
                "groups",
                expected,
                groups.to_string(),
            ));
        }
        let shape = [batch, frames, height, width, channels];
        let total = check::product(KERNEL, "batch, frames, height, width, channels", &shape)?;
        self.x.check(KERNEL, "x", total)?;
        check::length(KERNEL, "y", total, self.y.len())?;
        check::length(KERNEL, "weight", channels, self.weight.len())?;
        check::length(KERNEL, "bias", channels, self.bias.len())?;
        let Some(z) = self.spatial else {
            return Ok(());
        };
        let shape = [batch, z.frames, z.height, z.width, 2, channels];
        let total = check::product(KERNEL, "spatial", &shape)?;
        check::length(KERNEL, "spatial.yb", total, z.yb.len())
    }

    /// Per batch item the factor of every channel, then the offset of every channel.
    fn affine(&self) -> Vec<f32> {
        let channels = self.channels;
        let pixels = self.frames * self.height * self.width;
        let size = channels / self.groups;
        let count = (pixels * size) as f64;
        let mut affine = Vec::with_capacity(2 * channels * self.batch);
        for item in self.x.all(self.y).chunks_exact(pixels * channels) {
            let sums = group_sums(item, channels, self.groups);
            let mut offsets = Vec::with_capacity(channels);
            for channel in 0..channels {
                let [sum, squares] = sums[channel / size];
                let mean = sum / count;
                let variance = (squares / count - mean * mean).max(0.0);
                let factor =
                    f64::from(self.weight[channel]) / (variance + f64::from(self.eps)).sqrt();
                affine.push(factor as f32);
                offsets.push((f64::from(self.bias[channel]) - mean * factor) as f32);
            }
            affine.append(&mut offsets);
        }
        affine
    }
}

/// Sum and sum of squares of every group of one batch item.
fn group_sums(item: &[f32], channels: usize, groups: usize) -> Vec<[f64; 2]> {
    let pixels = item.len() / channels;
    let block = pixels.div_ceil(BLOCKS).max(BLOCK_PIXELS);
    let size = channels / groups;
    let partials: Vec<Vec<[f64; 2]>> = item
        .par_chunks(block * channels)
        .map(|block| {
            let (mut sums, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
            channel_sums(block, &mut sums, &mut squares);
            let totals = |group: usize, of: &[f64]| of[group * size..][..size].iter().sum();
            (0..groups)
                .map(|g| [totals(g, &sums), totals(g, &squares)])
                .collect()
        })
        .collect();
    let mut total = vec![[0f64; 2]; groups];
    for partial in &partials {
        for (total, partial) in total.iter_mut().zip(partial) {
            total[0] += partial[0];
            total[1] += partial[1];
        }
    }
    total
}

/// Where each pixel of the video finds its modulation.
struct Lookup<'a> {
    spatial: Spatial<'a>,
    channels: usize,
    frames: Vec<usize>,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl<'a> Lookup<'a> {
    fn new(norm: &GroupNorm<'_>, spatial: Spatial<'a>) -> Result<Self, KernelError> {
        let rows = sources(spatial.height, norm.height);
        let columns = sources(spatial.width, norm.width);
        let frames = frame_sources(spatial.frames, norm.frames);
        let (Some(frames), Some(rows), Some(columns)) = (frames, rows, columns) else {
            let Spatial {
                frames,
                height,
                width,
                ..
            } = spatial;
            let expected = format!(
                "a latent with pixels for {} x {} x {} (frames x rows x columns), and with 2 frames \
                 if the frames are odd and more than 1",
                norm.frames, norm.height, norm.width
            );
            let found = format!("{frames} x {height} x {width}");
            return Err(check::argument(KERNEL, "spatial", expected, found));
        };
        Ok(Self {
            spatial,
            channels: norm.channels,
            frames,
            rows,
            columns,
        })
    }

    /// The modulation of one row of pixels, `[width of the latent, 2 * channels]`.
    fn row(&self, b: usize, frame: usize, row: usize) -> &'a [f32] {
        let z = &self.spatial;
        let length = z.width * 2 * self.channels;
        let index = (b * z.frames + self.frames[frame]) * z.height + self.rows[row];
        &z.yb[index * length..][..length]
    }
}

multiversion! {
    fn channel_sums(block: &[f32], sums: &mut [f64], squares: &mut [f64]) {
        for pixel in block.chunks_exact(sums.len()) {
            for ((sum, square), &v) in sums.iter_mut().zip(squares.iter_mut()).zip(pixel) {
                let v = f64::from(v);
                *sum += v;
                *square += v * v;
            }
        }
    }
}

multiversion! {
    fn scale_row(x: &[f32], y: &mut [f32], scale: &[f32], offset: &[f32]) {
        let channels = scale.len();
        for (out, pixel) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for (((out, &v), &a), &b) in out.iter_mut().zip(pixel).zip(scale).zip(offset) {
                *out = v * a + b;
            }
        }
    }
}

multiversion! {
    fn modulate_row(y: &mut [f32], yb: &[f32], columns: &[usize], channels: usize) {
        for (out, &column) in y.chunks_exact_mut(channels).zip(columns) {
            let (factor, offset) = yb[column * 2 * channels..][..2 * channels].split_at(channels);
            for ((out, &a), &b) in out.iter_mut().zip(factor).zip(offset) {
                *out = *out * a + b;
            }
        }
    }
}

multiversion! {
    fn silu_row(y: &mut [f32]) {
        for v in y.iter_mut() {
            *v = math::silu(*v);
        }
    }
}
