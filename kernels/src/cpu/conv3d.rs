//! Convolution of channels-last video, causal in time, as a matrix product over the pixels.
//!
//! Invariants: stride 1; zeros surround a frame; what precedes the first frame is the cache, or that
//! frame again. A pixel's result is the sum over taps (time, row, column) and channels, in that order
//! and in fixed blocks (see `gemm`), whatever the frame's size. The input is copied tile by tile,
//! never unfolded whole. Refused: kernels of even height or width, operands whose lengths disagree.

use std::ops::Range;

use super::check;
use super::gemm::{Operands, Panels, Product, multiply};
use super::simd::{InstructionSet, instruction_set};
use super::split::multiversion;
use crate::KernelError;

const KERNEL: &str = "conv3d";

/// A weight `[cout, cin, kt, kh, kw]` in the layout of the matrix product; immutable and shared.
#[derive(Debug)]
pub struct PackedConv3d {
    cin: usize,
    kernel: [usize; 3],
    panels: Panels,
}

impl PackedConv3d {
    /// Packs a weight `[cout, cin, kt, kh, kw]`, as `torch.nn.Conv3d` holds it; `kernel` is
    /// `[kt, kh, kw]`.
    ///
    /// # Errors
    /// [`KernelError`] when the length does not fit the sizes, the kernel is empty, or its height or
    /// width even.
    pub fn pack(
        cout: usize,
        cin: usize,
        kernel: [usize; 3],
        weight: &[f32],
    ) -> Result<Self, KernelError> {
        Self::pack_as(Operands::F32, [cout, cin], kernel, weight)
    }

    /// Packs a weight `[cout, cin, kt, kh, kw]`, rounded to bf16; the convolution then rounds its input
    /// as well. See [`PackedLinear::pack_bf16`](super::PackedLinear::pack_bf16).
    ///
    /// # Errors
    /// As for [`PackedConv3d::pack`].
    pub fn pack_bf16(
        cout: usize,
        cin: usize,
        kernel: [usize; 3],
        weight: &[f32],
    ) -> Result<Self, KernelError> {
        Self::pack_as(Operands::Bf16, [cout, cin], kernel, weight)
    }

    fn pack_as(
        operands: Operands,
        [cout, cin]: [usize; 2],
        kernel: [usize; 3],
        weight: &[f32],
    ) -> Result<Self, KernelError> {
        check_kernel(kernel)?;
        let sizes = [cout, cin, kernel[0], kernel[1], kernel[2]];
        let total = check::product(KERNEL, "cout, cin, kernel", &sizes)?;
        check::length(KERNEL, "weight", total, weight.len())?;
        let row = total.checked_div(cout).unwrap_or(0);
        let at = |column: usize, index: usize| weight[column * row + index];
        Self::pack_with(operands, [cout, cin], kernel, at)
    }

    /// Packs the weight whose element of an output channel is `at(channel, index)`, `index` counting
    /// `[cin, kt, kh, kw]`, as [`PackedConv3d::pack`] and its siblings do for `operands`.
    ///
    /// # Errors
    /// As for [`PackedConv3d::pack`], lengths apart.
    pub fn pack_with(
        operands: Operands,
        [cout, cin]: [usize; 2],
        kernel: [usize; 3],
        at: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Result<Self, KernelError> {
        check_kernel(kernel)?;
        let taps = check::product(KERNEL, "kernel", &kernel)?;
        let k = check::product(KERNEL, "cin, kernel", &[cin, taps])?;
        let panels = Panels::pack(KERNEL, operands, [cout, k], |column, index| {
            let (tap, channel) = (index / cin, index % cin);
            at(column, channel * taps + tap)
        })?;
        Ok(Self {
            cin,
            kernel,
            panels,
        })
    }

    /// Output channels.
    #[must_use]
    pub fn cout(&self) -> usize {
        self.panels.n()
    }

    /// Input channels.
    #[must_use]
    pub fn cin(&self) -> usize {
        self.cin
    }

    /// `[kt, kh, kw]`.
    #[must_use]
    pub fn kernel(&self) -> [usize; 3] {
        self.kernel
    }

    /// Bytes of the packed weight, its padding included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }
}

/// A kernel has a middle pixel.
fn check_kernel([kt, kh, kw]: [usize; 3]) -> Result<(), KernelError> {
    if kt == 0 || kh % 2 == 0 || kw % 2 == 0 {
        let expected = "at least 1 frame, an odd number of rows and of columns";
        let found = format!("{kt} x {kh} x {kw}");
        return Err(check::argument(KERNEL, "kernel", expected, found));
    }
    Ok(())
}

/// `y = residual + conv(cache ++ x) + bias`, causal in time.
///
/// Source: `CogVideoXCausalConv3d` of diffusers 0.42 with its padding mode `constant`.
#[derive(Debug)]
pub struct Conv3d<'a> {
    /// Batch items.
    pub batch: usize,
    /// Frames of `x` and `y`.
    pub frames: usize,
    /// Pixel rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// `[batch, frames, height, width, cin]`.
    pub x: &'a [f32],
    /// The frames before `x`, `[batch, kt - 1, height, width, cin]`; absent: its first frame repeated.
    pub cache: Option<&'a [f32]>,
    /// `[cout, cin, kt, kh, kw]`.
    pub weight: &'a PackedConv3d,
    /// `[cout]`.
    pub bias: Option<&'a [f32]>,
    /// Added to the result, shaped as `y`.
    pub residual: Option<&'a [f32]>,
    /// `[batch, frames, height, width, cout]`.
    pub y: &'a mut [f32],
}

impl Conv3d<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        self.run_with(instruction_set())
    }

    /// Computes `y` on a chosen instruction set.
    ///
    /// # Errors
    /// As for [`Conv3d::run`].
    pub fn run_with(self, set: InstructionSet) -> Result<(), KernelError> {
        let pixels = self.check()?;
        let product = Pixels {
            frames: self.frames,
            height: self.height,
            width: self.width,
            cin: self.weight.cin,
            cout: self.weight.cout(),
            kernel: self.weight.kernel,
            x: self.x,
            cache: self.cache,
            bias: self.bias,
            residual: self.residual,
        };
        multiply(set, pixels, &self.weight.panels, &product, self.y);
        Ok(())
    }

    /// The number of pixels of `y`.
    fn check(&self) -> Result<usize, KernelError> {
        let Self {
            batch,
            frames,
            height,
            width,
            ..
        } = *self;
        let (cin, cout) = (self.weight.cin, self.weight.cout());
        let shape = [batch, frames, height, width];
        let pixels = check::product(KERNEL, "batch, frames, height, width", &shape)?;
        let input = check::product(KERNEL, "pixels, cin", &[pixels, cin])?;
        let output = check::product(KERNEL, "pixels, cout", &[pixels, cout])?;
        let shape = [batch, self.weight.kernel[0] - 1, height, width, cin];
        let cached = check::product(KERNEL, "batch, kt - 1, height, width, cin", &shape)?;
        check::length(KERNEL, "x", input, self.x.len())?;
        check::optional_length(KERNEL, "cache", cached, self.cache)?;
        check::optional_length(KERNEL, "bias", cout, self.bias)?;
        check::optional_length(KERNEL, "residual", output, self.residual)?;
        check::length(KERNEL, "y", output, self.y.len())?;
        Ok(pixels)
    }
}

/// The pixels of a convolution as rows of a matrix product.
struct Pixels<'a> {
    frames: usize,
    height: usize,
    width: usize,
    cin: usize,
    cout: usize,
    kernel: [usize; 3],
    x: &'a [f32],
    cache: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

impl Pixels<'_> {
    /// The input channels under one tap of the kernel at a pixel, `None` outside the frame.
    #[inline(always)]
    fn under(&self, [b, frame, y, x]: [usize; 4], tap: usize) -> Option<&[f32]> {
        let [kt, kh, kw] = self.kernel;
        let (dt, dy, dx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
        let y = (y + dy).checked_sub(kh / 2).filter(|&y| y < self.height)?;
        let x = (x + dx).checked_sub(kw / 2).filter(|&x| x < self.width)?;
        let (frames, data) = match ((frame + dt).checked_sub(kt - 1), self.cache) {
            (Some(own), _) => (b * self.frames + own, self.x),
            (None, Some(cache)) => (b * (kt - 1) + frame + dt, cache),
            (None, None) => (b * self.frames, self.x),
        };
        let pixel = (frames * self.height + y) * self.width + x;
        Some(&data[pixel * self.cin..][..self.cin])
    }
}

impl Product for Pixels<'_> {
    fn pack(&self, row: usize, k: Range<usize>, out: &mut [f32]) {
        let (line, x) = (row / self.width, row % self.width);
        let (image, y) = (line / self.height, line % self.height);
        let pixel = [image / self.frames, image % self.frames, y, x];
        let (mut tap, mut channel) = (k.start / self.cin.max(1), k.start % self.cin.max(1));
        let mut rest = out;
        while !rest.is_empty() {
            let count = rest.len().min(self.cin - channel);
            let (out, behind) = rest.split_at_mut(count);
            match self.under(pixel, tap) {
                Some(channels) => out.copy_from_slice(&channels[channel..][..count]),
                None => out.fill(0.0),
            }
            (rest, tap, channel) = (behind, tap + 1, 0);
        }
    }

    fn finish(&self, row: usize, first: usize, sums: &mut [f32], y: &mut [f32]) {
        let columns = first..first + y.len();
        if let Some(bias) = self.bias {
            add(sums, &bias[columns]);
        }
        if let Some(residual) = self.residual {
            add(sums, &residual[row * self.cout + first..][..y.len()]);
        }
        y.copy_from_slice(sums);
    }
}

multiversion! {
    fn add(sums: &mut [f32], terms: &[f32]) {
        for (sum, &term) in sums.iter_mut().zip(terms) {
            *sum += term;
        }
    }
}
