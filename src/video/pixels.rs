//! Frames in memory: 8-bit RGB, rows of pixels, one frame after the other.
//!
//! Invariants: there is at least one frame, row and column, and the data fills the shape.

use super::VideoError;

/// A video as 8-bit RGB frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Video {
    frames: usize,
    height: usize,
    width: usize,
    fps: u32,
    data: Vec<u8>,
}

impl Video {
    /// A video of RGB bytes in the order `[frames, height, width, 3]`, shown at `fps` frames per second.
    pub fn from_rgb(
        frames: usize,
        height: usize,
        width: usize,
        fps: u32,
        data: Vec<u8>,
    ) -> Result<Self, VideoError> {
        check_shape([frames, 3, height, width], data.len())?;
        Ok(Self {
            frames,
            height,
            width,
            fps,
            data,
        })
    }

    /// A video of values as the VAE decodes them: shape `[frames, 3, height, width]`, -1 for black and
    /// 1 for full light, what lies outside cut off. Colours are `round(255 * clamp(x / 2 + 0.5, 0, 1))`,
    /// ties to even, in f32, as the reference pipeline computes them.
    pub fn from_model(shape: [usize; 4], fps: u32, values: &[f32]) -> Result<Self, VideoError> {
        check_shape(shape, values.len())?;
        let [frames, channels, height, width] = shape;
        let plane = height * width;
        let mut data = vec![0; values.len()];
        let planes = values.chunks_exact(plane).enumerate();
        for (index, source) in planes {
            let (frame, channel) = (index / channels, index % channels);
            if let Some(&found) = source.iter().find(|value| !value.is_finite()) {
                return Err(VideoError::NotFinite { frame, found });
            }
            let target = &mut data[frame * channels * plane..][..channels * plane];
            for (pixel, &value) in target.chunks_exact_mut(channels).zip(source) {
                pixel[channel] = to_byte(value);
            }
        }
        Self::from_rgb(frames, height, width, fps, data)
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Frames per second.
    pub fn fps(&self) -> u32 {
        self.fps
    }

    /// All bytes, `[frames, height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The frames in order, each `[height, width, 3]`.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.data.chunks_exact(self.height * self.width * 3)
    }
}

fn check_shape(shape: [usize; 4], found: usize) -> Result<(), VideoError> {
    if shape[1] != 3 || shape.contains(&0) {
        return Err(VideoError::Shape { found: shape });
    }
    let expected = shape
        .iter()
        .fold(1usize, |product, &size| product.saturating_mul(size));
    if expected != found {
        return Err(VideoError::Length {
            shape,
            expected,
            found,
        });
    }
    Ok(())
}

/// The cast cannot cut anything off: the value is finite and within 0..=255.
fn to_byte(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}
