//! Convolution of channels-last video, causal in time, as matrix products: over the pixels, or over tiles of
//! 2 x 2 pixels by Winograd's algorithm, which needs 4/9 of the multiplications.
//!
//! Invariants: stride 1; zeros surround a frame; what precedes the first frame is the cache, or that
//! frame again. A pixel's result is the sum over taps (time, row, column) and channels, in that order
//! and in fixed blocks (see `gemm`), whatever the frame's size; in tiles, the sums are those of 16
//! combinations over times and channels, so that it also matters whether the pixel's row and column
//! are even. The input is copied block by block, never unfolded whole. Refused: kernels of even height or
//! width, operands whose lengths disagree.

mod pixels;
mod video;
mod winograd;

use super::check;
use super::gemm::{Operands, Panels, multiply};
use super::simd::{InstructionSet, instruction_set};
use crate::KernelError;
use pixels::Pixels;
use video::{Added, Video};

const KERNEL: &str = "conv3d";

/// A weight `[cout, cin, kt, kh, kw]` in the layout of the matrix product; immutable and shared.
#[derive(Debug)]
pub struct PackedConv3d {
    cout: usize,
    cin: usize,
    kernel: [usize; 3],
    form: Form,
}

/// What a weight is packed for.
#[derive(Debug)]
enum Form {
    /// Products over pixels: `[cout, kt kh kw cin]`.
    Pixels(Panels),
    /// Products over tiles of pixels: `[16 cout, kt cin]`, each combination's channels padded to panels.
    Tiles(Panels),
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
        Self::pack_with(operands, [cout, cin], kernel, |channel, out| {
            out.copy_from_slice(&weight[channel * row..][..row]);
        })
    }

    /// Packs the weight whose elements `[cin, kt, kh, kw]` of an output channel `read` writes, as
    /// [`PackedConv3d::pack`] and its siblings do for `operands`.
    ///
    /// # Errors
    /// As for [`PackedConv3d::pack`], lengths apart.
    pub fn pack_with(
        operands: Operands,
        [cout, cin]: [usize; 2],
        kernel: [usize; 3],
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, KernelError> {
        check_kernel(kernel)?;
        let taps = check::product(KERNEL, "kernel", &kernel)?;
        let k = check::product(KERNEL, "cin, kernel", &[cin, taps])?;
        // Combinations of numbers of few bits have more bits, so only f32 is worth combining.
        let form = if operands == Operands::F32 && kernel[1..] == [3, 3] {
            Form::Tiles(winograd::pack([cout, cin], kernel[0], read)?)
        } else {
            let packed = Panels::pack(KERNEL, operands, [cout, k], |channel, out| {
                let mut stored = vec![0.0; k];
                read(channel, &mut stored);
                for (tap, out) in out.chunks_exact_mut(cin.max(1)).enumerate() {
                    let elements = stored.iter().skip(tap).step_by(taps);
                    out.iter_mut().zip(elements).for_each(|(out, &v)| *out = v);
                }
            });
            Form::Pixels(packed?)
        };
        Ok(Self {
            cout,
            cin,
            kernel,
            form,
        })
    }

    /// Output channels.
    #[must_use]
    pub fn cout(&self) -> usize {
        self.cout
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
        match &self.form {
            Form::Pixels(panels) | Form::Tiles(panels) => panels.bytes(),
        }
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
        let video = Video {
            batch: self.batch,
            frames: self.frames,
            height: self.height,
            width: self.width,
            channels: self.weight.cin,
            before: self.weight.kernel[0] - 1,
            x: self.x,
            cache: self.cache,
        };
        let added = Added {
            channels: self.weight.cout(),
            bias: self.bias,
            residual: self.residual,
        };
        match &self.weight.form {
            Form::Pixels(weight) => {
                let kernel = self.weight.kernel;
                let product = Pixels {
                    video,
                    kernel,
                    added,
                };
                multiply(set, pixels, weight, &product, self.y);
            }
            Form::Tiles(weight) => winograd::convolve(set, &video, weight, &added, self.y),
        }
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
