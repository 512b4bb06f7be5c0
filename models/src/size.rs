//! Sizes of videos: pixels and frames to latents, and which of them are legal.
//!
//! Height and width are multiples of the VAE's ratio times the patch size. Frames are `u N + 1`:
//! the VAE makes one latent frame of the first frame and one of each `r` (its temporal ratio)
//! that follow, and decodes latent frames in pairs after the first, so their number is odd and
//! `u` is `2 r`; where patches span `s` latent frames `u` is `2 r s`, so 8 for CogVideoX and 16
//! for CogVideoX 1.5. Other numbers would come out as another length or as noise, so they are
//! refused with the nearest legal ones.

use crate::ModelError;
use crate::transformer::TransformerConfig;

/// Size of a video in frames and pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoSize {
    /// Frames.
    pub frames: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

/// How much smaller latents are than the video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaeRatios {
    /// Pixels per latent row or column.
    pub space: usize,
    /// Frames per latent frame after the first.
    pub time: usize,
}

/// Size of the latents of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentSize {
    /// Latent frames, padding included.
    pub frames: usize,
    /// Leading latent frames that are dropped before decoding.
    pub padding: usize,
    /// Latent rows.
    pub height: usize,
    /// Latent columns.
    pub width: usize,
}

impl VideoSize {
    /// The size that a checkpoint is made for.
    pub fn native(config: &TransformerConfig, ratios: VaeRatios) -> Self {
        Self {
            frames: config.sample_frames,
            height: config.sample_height.saturating_mul(ratios.space),
            width: config.sample_width.saturating_mul(ratios.space),
        }
    }

    /// The latents of a video of this size.
    ///
    /// # Errors
    /// A side or the number of frames is not legal; the nearest legal ones are named.
    pub fn latents(
        &self,
        config: &TransformerConfig,
        ratios: VaeRatios,
    ) -> Result<LatentSize, ModelError> {
        let unit = ratios.space.saturating_mul(config.patch_size);
        check_side("height", self.height, unit)?;
        check_side("width", self.width, unit)?;
        let patch = config.patch_frames();
        check_frames(self.frames, ratios.time.saturating_mul(2 * patch))?;
        let frames = (self.frames - 1) / ratios.time.max(1) + 1;
        let padded = frames.next_multiple_of(patch);
        Ok(LatentSize {
            frames: padded,
            padding: padded - frames,
            height: self.height / ratios.space.max(1),
            width: self.width / ratios.space.max(1),
        })
    }
}

impl LatentSize {
    /// Tokens of the video at the config's patch size.
    pub fn tokens(&self, config: &TransformerConfig) -> usize {
        let patch = config.patch_size;
        self.frames / config.patch_frames() * (self.height / patch) * (self.width / patch)
    }
}

fn check_side(what: &'static str, size: usize, unit: usize) -> Result<(), ModelError> {
    let unit = unit.max(1);
    if size > 0 && size.is_multiple_of(unit) {
        return Ok(());
    }
    Err(ModelError::Size {
        what,
        found: size,
        expected: format!("a multiple of {unit}; nearest: {}", nearest(size, unit, 0)),
    })
}

fn check_frames(frames: usize, unit: usize) -> Result<(), ModelError> {
    let unit = unit.max(1);
    if frames % unit == 1 % unit && frames > 0 {
        return Ok(());
    }
    Err(ModelError::Size {
        what: "number of frames",
        found: frames,
        expected: format!("{unit}N + 1; nearest: {}", nearest(frames, unit, 1)),
    })
}

/// The legal sizes `unit * n + rest` on both sides of an illegal one.
fn nearest(size: usize, unit: usize, rest: usize) -> String {
    let below = match size.checked_sub(rest) {
        Some(over) => over / unit * unit + rest,
        None => 0,
    };
    match (below, below.checked_add(unit)) {
        (0, _) if rest > 0 => rest.to_string(),
        (0, _) => unit.to_string(),
        (below, Some(above)) => format!("{below} or {above}"),
        (below, None) => below.to_string(),
    }
}
