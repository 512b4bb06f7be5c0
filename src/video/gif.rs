//! Animated gif that repeats for ever.
//!
//! Invariant: frame `i` ends at `100 * (i + 1) / fps` hundredths of a second, rounded, so that the whole
//! keeps its duration although a delay has no finer unit. Frames of up to 256 colours are exact.

use super::{Video, VideoError};
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, ImageError, RgbaImage};
use std::path::Path;

/// 1 is the best and slowest, 30 the fastest; above 10 flat colours begin to drift.
const SPEED: i32 = 10;

/// The bytes of the file.
pub(super) fn encode(path: &Path, video: &Video) -> Result<Vec<u8>, VideoError> {
    frames(video).map_err(|source| VideoError::Picture {
        path: path.to_owned(),
        source,
    })
}

fn frames(video: &Video) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, SPEED);
    encoder.set_repeat(Repeat::Infinite)?;
    for (index, frame) in video.iter().enumerate() {
        let image = with_alpha(video, frame);
        let hundredths = end(index + 1, video.fps()) - end(index, video.fps());
        let delay = Delay::from_numer_denom_ms(10 * hundredths, 1);
        encoder.encode_frame(Frame::from_parts(image, 0, 0, delay))?;
    }
    drop(encoder);
    Ok(bytes)
}

/// When the first `frames` frames are over, in hundredths of a second.
fn end(frames: usize, fps: u32) -> u32 {
    let fps = u64::from(fps);
    ((200 * frames as u64 + fps) / (2 * fps)) as u32
}

fn with_alpha(video: &Video, frame: &[u8]) -> RgbaImage {
    let (width, height) = super::pictures::sides(video);
    let mut pixels = frame.as_chunks::<3>().0.iter();
    RgbaImage::from_fn(width, height, |_, _| {
        let &[r, g, b] = pixels
            .next()
            .expect("a frame has a pixel for every position");
        image::Rgba([r, g, b, u8::MAX])
    })
}
