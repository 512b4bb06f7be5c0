//! Group norm of channels-last video, with the spatial modulation of the CogVideoX decoder and an
//! activation.
//!
//! Three launches: every block of pixels gives the mean and the squared deviations of each group, one
//! cube per group joins the blocks to a factor and an offset per channel, and these are applied.
//! Invariants: blocks and the order of all sums follow from the sizes of one batch item alone; no
//! atomics. Refused: channels that the groups do not divide, a conditioning latent without the frames
//! that the frame rule needs, operands whose lengths or element types disagree.

mod apply;
mod statistics;

use cubecl::prelude::*;

use apply::{Last, affine_rows};
use statistics::{Layout, block_statistics, join_blocks};

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::math::Function;
use super::operand::{Element, Operand, width};
use crate::{KernelError, check};

const KERNEL: &str = "group_norm";

/// Units of a cube.
const UNITS: usize = 256;

/// Blocks that the pixels of a batch item are divided into for the statistics, at most.
const BLOCKS: usize = 1024;

/// Pixels of a block, at least.
const BLOCK_PIXELS: usize = 64;

/// Group norm of `x` `[batch, frames, height, width, channels]`, then the optional modulation, then
/// the activation.
#[derive(Debug, Clone)]
pub struct GroupNorm<B> {
    /// Sizes.
    pub shape: GroupShape,
    /// Added to the variance.
    pub eps: f32,
    /// `[channels]` f32, 1 when absent.
    pub weight: Option<Operand<B>>,
    /// `[channels]` f32, 0 when absent.
    pub bias: Option<Operand<B>>,
    /// Modulation by the latent.
    pub spatial: Option<Spatial<B>>,
    /// What is applied last.
    pub activation: Function,
    /// Input.
    pub x: Operand<B>,
    /// [`GroupShape::scratch`] elements f32 with any content.
    pub scratch: Operand<B>,
    /// Output, as large as the input; may be `x` itself.
    pub y: Operand<B>,
}

/// Sizes of a group norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupShape {
    /// Batch items; each has its own statistics.
    pub batch: usize,
    /// Frames, pixel rows, pixels of a row.
    pub grid: [usize; 3],
    /// Channels.
    pub channels: usize,
    /// Groups of consecutive channels that share statistics.
    pub groups: usize,
}

/// Multiplier and offset per pixel, at the resolution of the latent and read by nearest neighbour.
///
/// Source: `CogVideoXSpatialNorm3D` of diffusers 0.42. Its 1x1x1 convolutions commute with the
/// interpolation, so they are done at the latent's resolution.
#[derive(Debug, Clone)]
pub struct Spatial<B> {
    /// `[batch, frames, height, width, 2 * channels]`: the multipliers, then the offsets.
    pub yb: Operand<B>,
    /// Frames, rows and columns of the latent. If the video has an odd number of frames above 1, its
    /// first frame is read from the latent's first and the others from the latent's others, of which
    /// one must exist.
    pub grid: [usize; 3],
}

impl GroupShape {
    /// Elements of the memory between the launches: mean and squared deviations of every block and
    /// group, then factor and offset of every channel, each part rounded up to fours.
    ///
    /// # Errors
    /// [`KernelError`] when the groups do not divide the channels or a count does not fit.
    pub fn scratch(&self) -> Result<usize, KernelError> {
        let [partials, affine] = self.parts()?;
        check::sum(KERNEL, "scratch", [partials.next_multiple_of(4), affine])
    }

    fn parts(&self) -> Result<[usize; 2], KernelError> {
        let Self {
            batch,
            channels,
            groups,
            ..
        } = *self;
        if groups == 0 || !channels.is_multiple_of(groups) {
            let expected = format!("a divisor of the {channels} channels");
            let found = groups.to_string();
            return Err(check::argument(KERNEL, "groups", expected, found));
        }
        let blocks = self.pixels()?.div_ceil(self.block()?);
        let sizes = [batch, blocks, groups, 2];
        Ok([
            check::product(KERNEL, "batch, blocks, groups", &sizes)?,
            check::product(KERNEL, "batch, channels", &[batch, channels, 2])?,
        ])
    }

    /// Pixels of a batch item.
    fn pixels(&self) -> Result<usize, KernelError> {
        check::product(KERNEL, "frames, height, width", &self.grid)
    }

    /// Pixels of a block.
    fn block(&self) -> Result<usize, KernelError> {
        Ok(self.pixels()?.div_ceil(BLOCKS).max(BLOCK_PIXELS))
    }

    fn elements(&self) -> Result<usize, KernelError> {
        let sizes = [self.batch, self.pixels()?, self.channels];
        check::product(KERNEL, "batch, pixels, channels", &sizes)
    }
}

impl<B: Clone> GroupNorm<B> {
    /// The launches.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an argument or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let element = self.check()?;
        if self.x.len == 0 {
            return Ok(Vec::new());
        }
        let [partials, affine] = self.shape.parts()?;
        let part = |offset, len| Operand {
            offset: self.scratch.offset + offset,
            len,
            ..self.scratch.clone()
        };
        let (partials, affine) = (
            part(0, partials),
            part(partials.next_multiple_of(4), affine),
        );
        let mut calls = self.sums(device, element, &partials)?;
        calls.extend(self.joins(device, &partials, &affine)?);
        calls.extend(self.applies(device, element, &affine)?);
        Ok(calls)
    }

    fn check(&self) -> Result<Element, KernelError> {
        let Self { shape, x, y, .. } = self;
        let mut others = vec![("y", y)];
        others.extend(
            self.spatial
                .as_ref()
                .map(|spatial| ("spatial.yb", &spatial.yb)),
        );
        let element = same_element(KERNEL, ("x", x), &others)?;
        let total = shape.elements()?;
        x.length(KERNEL, "x", total)?;
        y.length(KERNEL, "y", total)?;
        self.scratch.is(KERNEL, "scratch", Element::F32)?;
        self.scratch.length(KERNEL, "scratch", shape.scratch()?)?;
        for (name, operand) in [("weight", &self.weight), ("bias", &self.bias)] {
            if let Some(operand) = operand {
                operand.is(KERNEL, name, Element::F32)?;
                operand.length(KERNEL, name, shape.channels)?;
            }
        }
        let Some(Spatial { yb, grid }) = &self.spatial else {
            return Ok(element);
        };
        let [t, h, w] = *grid;
        let sizes = [shape.batch, t, h, w, 2, shape.channels];
        yb.length(
            KERNEL,
            "spatial.yb",
            check::product(KERNEL, "spatial", &sizes)?,
        )?;
        let [frames, rows, columns] = shape.grid;
        let short = frames > 1 && frames % 2 == 1 && t < 2;
        if total > 0 && (short || t == 0 || h == 0 || w == 0) {
            let expected = format!(
                "a latent with pixels for {frames} x {rows} x {columns} (frames x rows x columns), \
                 and with 2 frames if the frames are odd and more than 1"
            );
            let found = format!("{t} x {h} x {w}");
            return Err(check::argument(KERNEL, "spatial", expected, found));
        }
        Ok(element)
    }

    /// The statistics of every block.
    fn sums<R: Runtime>(
        &self,
        device: &Device<R>,
        element: Element,
        partials: &Operand<B>,
    ) -> Result<Vec<Call<B>>, KernelError> {
        let shape = &self.shape;
        let (pixels, block) = (shape.pixels()?, shape.block()?);
        let layout = Layout::new(shape.channels / shape.groups, shape.groups);
        let n = width([layout.step, shape.channels, self.x.offset]);
        let tiles = shape.groups.div_ceil(layout.groups);
        let cubes = shape.batch * pixels.div_ceil(block) * tiles;
        let kernel = block_statistics::BlockStatistics::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            list(4),
            n,
            layout,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(&self.x, n)
            .array(partials, 1)
            .u32s([shape.batch, pixels, block, shape.groups])
            .over(line(cubes), kernel)
    }

    /// Factor and offset of every channel.
    fn joins<R: Runtime>(
        &self,
        device: &Device<R>,
        partials: &Operand<B>,
        affine: &Operand<B>,
    ) -> Result<Vec<Call<B>>, KernelError> {
        let shape = &self.shape;
        let kernel = join_blocks::JoinBlocks::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            list(4),
            list(5),
            (),
            [self.weight.is_some(), self.bias.is_some()],
        );
        let (pixels, block) = (shape.pixels()?, shape.block()?);
        Builder::new(KERNEL, device)
            .array(partials, 1)
            .maybe(self.weight.as_ref(), partials, 1)
            .maybe(self.bias.as_ref(), partials, 1)
            .array(affine, 1)
            .u32s([shape.batch, pixels, block, shape.groups, shape.channels])
            .f32(self.eps)
            .over(line(shape.batch * shape.groups), kernel)
    }

    fn applies<R: Runtime>(
        &self,
        device: &Device<R>,
        element: Element,
        affine: &Operand<B>,
    ) -> Result<Vec<Call<B>>, KernelError> {
        let Self { shape, x, y, .. } = self;
        let [frames, height, columns] = shape.grid;
        let spatial = self.spatial.as_ref();
        let latent = spatial.map_or([1; 3], |spatial| spatial.grid);
        let yb = spatial.map_or(x, |spatial| &spatial.yb);
        let n = width([shape.channels, x.offset, affine.offset, yb.offset, y.offset]);
        // Of an odd number of frames the first stands alone.
        let alone = usize::from(frames > 1 && frames % 2 == 1);
        let ratio = |from: usize, to: usize| from as f32 / to as f32;
        let count = x.len / n;
        let last = Last {
            spatial: spatial.is_some(),
            activation: self.activation,
        };
        let kernel = affine_rows::AffineRows::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            list(4),
            list(9),
            (),
            (),
            (),
            n,
            last,
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .array(affine, n)
            .array(yb, n)
            .array(y, n)
            .u32s([count, shape.channels / n, frames, height, columns])
            .u32s(latent)
            .u32(alone)
            .f32(ratio(latent[0] - alone.min(latent[0]), frames - alone))
            .f32(ratio(latent[1], height))
            .f32(ratio(latent[2], columns))
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}
