//! Frames as 8-bit RGB, and the files that they are written to: mp4, animated gif, png frames.
//!
//! Invariants: a file appears under its name only when it is complete, and nothing stays behind when
//! writing fails; the same frames give the same bytes. What can be refused before the frames exist is
//! refused by [`check_writable`] and [`check_encodable`], so that no long computation ends in an error
//! about its output. Refused are unknown extensions, sizes that a format cannot hold, and values that
//! are not finite.
//!
//! ```
//! use terrace::video::{self, Video};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("out.mp4");
//! video::check_writable(&path)?;
//! // Two frames of 16 x 32 pixels, black and white.
//! let mut values = vec![-1.0; 3 * 16 * 32];
//! values.extend(vec![1.0; 3 * 16 * 32]);
//! let video = Video::from_model([2, 3, 16, 32], 8, &values)?;
//! assert_eq!(video::write(&path, &video)?, [path]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod destination;
mod error;
mod file;
mod gif;
mod h264;
mod mp4;
mod pictures;
mod pixels;

pub use error::VideoError;
pub use pixels::Video;

use destination::Destination;
use std::path::{Path, PathBuf};

/// Refuses a path that [`write()`] could not write to, and leaves the file system as it was.
///
/// The extension chooses the format: `.mp4` (H.264), `.gif` (animated), or png frames: a pattern such
/// as `frames/%04d.png`, a name such as `out.png` (short for `out-%04d.png`), or a folder, named with a
/// `/` at the end unless it exists (short for `folder/%04d.png`). A folder of frames is made when it is
/// missing; the folder of any other file must exist.
pub fn check_writable(path: &Path) -> Result<(), VideoError> {
    Destination::new(path)?.check_writable()
}

/// Refuses a size (pixels) or frame rate (frames per second) that the format of `path` cannot hold.
pub fn check_encodable(
    path: &Path,
    height: usize,
    width: usize,
    fps: u32,
) -> Result<(), VideoError> {
    Destination::new(path)?.check_encodable(height, width, fps)
}

/// Writes the video and returns the files that hold it: one, or one per frame for png.
///
/// Existing files of the same names are replaced. The forms of `path` are those of [`check_writable`].
pub fn write(path: &Path, video: &Video) -> Result<Vec<PathBuf>, VideoError> {
    let destination = Destination::new(path)?;
    destination.check_encodable(video.height(), video.width(), video.fps())?;
    match destination {
        Destination::Mp4(path) => {
            file::write_new(&path, &mp4::encode(&path, video)?)?;
            Ok(vec![path])
        }
        Destination::Gif(path) => {
            file::write_new(&path, &gif::encode(&path, video)?)?;
            Ok(vec![path])
        }
        Destination::Pictures(pattern) => pictures::write(&pattern, video),
    }
}
