//! The error of this module: why a video was not written.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a video cannot be written.
#[derive(Debug, Error)]
pub enum VideoError {
    /// The extension names no known format.
    #[error(
        "cannot write {}: unknown extension {found}; use .mp4, .gif, or png frames (`frames/%04d.png`, `out.png`, or a folder that ends with `/`)",
        path.display()
    )]
    Extension {
        /// The output path.
        path: PathBuf,
        /// The extension, or `(none)`.
        found: String,
    },
    /// The name of png frames does not say where the number goes.
    #[error(
        "cannot write {}: a pattern needs one number such as `%04d` (1 to 9 digits) in its file name, found {found}",
        path.display()
    )]
    Pattern {
        /// The output path.
        path: PathBuf,
        /// What the name holds instead.
        found: String,
    },
    /// The folder of the output is missing.
    #[error("cannot write {}: the folder {} does not exist; create it or choose another", path.display(), folder.display())]
    NoFolder {
        /// The output path.
        path: PathBuf,
        /// The missing folder.
        folder: PathBuf,
    },
    /// A folder has the name of the output file.
    #[error("cannot write {}: it is a folder; name a file in it", path.display())]
    IsFolder {
        /// The output path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The output path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The format cannot hold frames of this size.
    #[error(
        "{format} needs {expected}, found {height} x {width} pixels (height x width); choose another size or write png frames"
    )]
    Size {
        /// Name of the format.
        format: &'static str,
        /// Sizes that it holds.
        expected: &'static str,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// The format cannot hold this frame rate.
    #[error("{format} needs a frame rate of {expected} frames per second, found {found}")]
    FrameRate {
        /// Name of the format.
        format: &'static str,
        /// Frame rates that it holds.
        expected: &'static str,
        /// Frames per second that were asked for.
        found: u32,
    },
    /// The encoded frames are more than the container can address.
    #[error("cannot write {}: an mp4 file holds 4 GiB, the frames need {found} bytes; write png frames", path.display())]
    TooLong {
        /// The output path.
        path: PathBuf,
        /// Bytes of the encoded frames.
        found: u64,
    },
    /// The shape has no frame, no row or no column, or not three channels.
    #[error("a video needs the shape [frames, 3, height, width] without a zero, found {found:?}")]
    Shape {
        /// The shape that was given.
        found: [usize; 4],
    },
    /// The values do not fill the shape.
    #[error("a video of the shape {shape:?} needs {expected} values, found {found}")]
    Length {
        /// The shape that was given.
        shape: [usize; 4],
        /// Values that the shape implies.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// A value has no colour.
    #[error(
        "frame {frame} holds a value that is not finite ({found}); the weights or the latents are damaged, or the arithmetic overflowed"
    )]
    NotFinite {
        /// First frame with such a value.
        frame: usize,
        /// The value.
        found: f32,
    },
    /// The H.264 encoder refused.
    #[error("the H.264 encoder failed at frame {frame}: {source}")]
    H264 {
        /// The frame.
        frame: usize,
        /// What the encoder said.
        source: openh264::Error,
    },
    /// The H.264 encoder returned something that the container cannot hold. A bug here.
    #[error("the H.264 encoder returned frame {frame} without {expected}; please report this")]
    Stream {
        /// The frame.
        frame: usize,
        /// What was expected in it.
        expected: &'static str,
    },
    /// The gif or png encoder refused.
    #[error("cannot encode {}: {source}", path.display())]
    Picture {
        /// The output path.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}
