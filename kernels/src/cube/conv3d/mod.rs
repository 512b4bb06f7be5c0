//! Convolution of channels-last video, causal in time, as a matrix product over the pixels.
//!
//! Invariants: stride 1; zeros surround a frame; what precedes the first frame is the cache, or that
//! frame again. A pixel's result is one f32 sum over taps (time, row, column) and channels, in that
//! order, whatever the frame's size or the number of frames: the tile follows from `cout` alone. The
//! input is read tile by tile, never unfolded whole. Refused: kernels of even height or width, operands
//! whose lengths or element types disagree.

mod tiles;

use cubecl::prelude::*;

use tiles::{DEPTH, Form, Tile, UNITS, product};

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::operand::{Element, Operand, width};
use crate::{KernelError, check};

const KERNEL: &str = "conv3d";

/// A weight `[cout, cin, kt, kh, kw]` and its layout on the device: `[taps x cin, columns]`, where both
/// sides are filled up with zeros to whole tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvWeight {
    /// Output channels.
    pub cout: usize,
    /// Input channels.
    pub cin: usize,
    /// `[kt, kh, kw]`.
    pub kernel: [usize; 3],
}

impl ConvWeight {
    /// Elements on the device.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel is empty, its height or width even, or a count does not fit.
    pub fn elements(&self) -> Result<usize, KernelError> {
        let [kt, kh, kw] = self.kernel;
        if kt == 0 || kh % 2 == 0 || kw % 2 == 0 {
            let expected = "at least 1 frame, an odd number of rows and of columns";
            let found = format!("{kt} x {kh} x {kw}");
            return Err(check::argument(KERNEL, "kernel", expected, found));
        }
        let depth = check::product(KERNEL, "cin, kernel", &[self.cin, kt, kh, kw])?;
        let tile = Tile::of(self.cout).columns();
        let sizes = [depth.div_ceil(DEPTH), DEPTH, self.cout.div_ceil(tile), tile];
        check::product(KERNEL, "cout, cin, kernel", &sizes)
    }

    /// A weight `[cout, cin, kt, kh, kw]`, as `torch.nn.Conv3d` holds it, in the device's layout.
    ///
    /// # Errors
    /// As for [`ConvWeight::elements`], and when the weight has another length.
    pub fn pack(&self, weight: &[f32]) -> Result<Vec<f32>, KernelError> {
        let Self { cout, cin, kernel } = *self;
        let elements = self.elements()?;
        let taps: usize = kernel.iter().product();
        check::length(KERNEL, "weight", cout * cin * taps, weight.len())?;
        let mut packed = vec![0.0; elements];
        let tile = Tile::of(cout).columns();
        let columns = cout.div_ceil(tile) * tile;
        for (index, row) in packed.chunks_exact_mut(columns.max(1)).enumerate() {
            let (tap, channel) = (index / cin.max(1), index % cin.max(1));
            if tap < taps {
                for (column, value) in row[..cout].iter_mut().enumerate() {
                    *value = weight[(column * cin + channel) * taps + tap];
                }
            }
        }
        Ok(packed)
    }
}

/// `y = residual + conv(cache ++ x) + bias`, causal in time.
///
/// Source: `CogVideoXCausalConv3d` of diffusers 0.42 with its padding mode `constant`.
#[derive(Debug, Clone)]
pub struct Conv3d<B> {
    /// Batch items.
    pub batch: usize,
    /// Frames of `x` and `y`.
    pub frames: usize,
    /// Pixel rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Sizes of the weight.
    pub shape: ConvWeight,
    /// `[batch, frames, height, width, cin]`.
    pub x: Operand<B>,
    /// The frames before `x`, `[batch, kt - 1, height, width, cin]`; absent: its first frame repeated.
    pub cache: Option<Operand<B>>,
    /// As [`ConvWeight::pack`] makes it; of any floating-point type.
    pub weight: Operand<B>,
    /// `[cout]` f32.
    pub bias: Option<Operand<B>>,
    /// Added to the result, shaped as `y`.
    pub residual: Option<Operand<B>>,
    /// `[batch, frames, height, width, cout]`.
    pub y: Operand<B>,
}

impl<B: Clone> Conv3d<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let element = self.element()?;
        let pixels = self.lengths()?;
        let ConvWeight { cin, cout, kernel } = self.shape;
        let Self {
            x,
            y,
            cache,
            weight,
            ..
        } = self;
        let optional = |operand: &Option<Operand<B>>| operand.as_ref().map_or(0, |o| o.offset);
        let n = width([cin, x.offset, optional(cache)]);
        let outside = [optional(&self.bias), optional(&self.residual)];
        let m = width([cout, y.offset, outside[0], outside[1]]);
        let tile = Tile::of(cout);
        let form = Form {
            kernel,
            tile,
            cached: cache.is_some(),
            bias: self.bias.is_some(),
            residual: self.residual.is_some(),
        };
        let cubes = pixels.div_ceil(tile.pixels()) * cout.div_ceil(tile.columns());
        let kernel = product::Product::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(6),
            list(6),
            n,
            m,
            form,
            element.storage(),
            weight.element.storage(),
        );
        Builder::new(KERNEL, device)
            .array(x, n)
            .maybe(cache.as_ref(), x, n)
            .array(weight, 4)
            .maybe(self.bias.as_ref(), weight, m)
            .maybe(self.residual.as_ref(), y, m)
            .array(y, m)
            .u32s([pixels, self.frames, self.height, self.width, cin, cout])
            .over(line(cubes), kernel)
    }

    fn element(&self) -> Result<Element, KernelError> {
        let mut others = vec![("y", &self.y)];
        others.extend(self.cache.as_ref().map(|cache| ("cache", cache)));
        others.extend(
            self.residual
                .as_ref()
                .map(|residual| ("residual", residual)),
        );
        self.weight.float(KERNEL, "weight")?;
        if let Some(bias) = &self.bias {
            bias.is(KERNEL, "bias", Element::F32)?;
        }
        same_element(KERNEL, ("x", &self.x), &others)
    }

    /// The number of pixels of `y`.
    fn lengths(&self) -> Result<usize, KernelError> {
        let Self {
            batch,
            frames,
            height,
            width,
            shape,
            ..
        } = self;
        let ConvWeight { cin, cout, kernel } = *shape;
        self.weight.length(KERNEL, "weight", shape.elements()?)?;
        let sizes = [*batch, *frames, *height, *width];
        let pixels = check::product(KERNEL, "batch, frames, height, width", &sizes)?;
        let input = check::product(KERNEL, "pixels, cin", &[pixels, cin])?;
        let output = check::product(KERNEL, "pixels, cout", &[pixels, cout])?;
        let sizes = [*batch, kernel[0] - 1, *height, *width, cin];
        let cached = check::product(KERNEL, "batch, kt - 1, height, width, cin", &sizes)?;
        self.x.length(KERNEL, "x", input)?;
        for (name, operand, length) in [
            ("cache", &self.cache, cached),
            ("bias", &self.bias, cout),
            ("residual", &self.residual, output),
        ] {
            if let Some(operand) = operand {
                operand.length(KERNEL, name, length)?;
            }
        }
        self.y.length(KERNEL, "y", output)?;
        Ok(pixels)
    }
}
