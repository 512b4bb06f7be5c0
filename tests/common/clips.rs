//! Synthetic clips: one coloured disc that crosses a plain background.

use super::watch::{Background, Colour, Direction};
use terrace::video::Video;

/// Pixels of the shipped checkpoint's videos, height and width.
pub const SIZE: [usize; 2] = [96, 144];
/// Frames of the shipped checkpoint's videos.
pub const FRAMES: usize = 17;
/// Pixels per frame that the disc moves.
const SPEED: f32 = 2.5;
const RADIUS: f32 = 18.0;

/// A disc of this colour that passes the middle of the frame half way.
pub fn disc(colour: Colour, direction: Direction, background: Background) -> Video {
    let [dx, dy] = match direction {
        Direction::Left => [-SPEED, 0.0],
        Direction::Right => [SPEED, 0.0],
        Direction::Up => [0.0, -SPEED],
        Direction::Down => [0.0, SPEED],
    };
    path(colour, background, |time| [dx * time, dy * time])
}

/// A disc whose centre lies `offset(frames since half time)` to the right of and below the middle.
pub fn path(colour: Colour, background: Background, offset: impl Fn(f32) -> [f32; 2]) -> Video {
    let [height, width] = SIZE;
    let mut data = Vec::with_capacity(FRAMES * height * width * 3);
    for frame in 0..FRAMES {
        let [dx, dy] = offset(frame as f32 - (FRAMES - 1) as f32 / 2.0);
        for y in 0..height {
            for x in 0..width {
                let right = x as f32 + 0.5 - width as f32 / 2.0 - dx;
                let below = y as f32 + 0.5 - height as f32 / 2.0 - dy;
                let inside = right.hypot(below) < RADIUS;
                data.extend(if inside {
                    colour.rgb()
                } else {
                    background.rgb()
                });
            }
        }
    }
    Video::from_rgb(FRAMES, height, width, 8, data).unwrap()
}
