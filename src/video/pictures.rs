//! One png file per frame.
//!
//! Invariant: all frames are encoded and on the disk before the first one gets its name; when a rename
//! fails, the frames that already had theirs are taken away again, and so is a folder made for them.

use super::destination::Pattern;
use super::file;
use super::{Video, VideoError};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::fs;
use std::path::PathBuf;

/// Writes the frames and returns their files in order.
pub(super) fn write(pattern: &Pattern, video: &Video) -> Result<Vec<PathBuf>, VideoError> {
    let made = make_folder(pattern)?;
    let written = write_frames(pattern, video);
    if written.is_err() && made {
        // The first error is the one to report; the folder is empty again.
        let _ = fs::remove_dir(&pattern.folder);
    }
    written
}

/// Makes the last folder of the path when it is missing, and says whether it was.
fn make_folder(pattern: &Pattern) -> Result<bool, VideoError> {
    let folder = &pattern.folder;
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(false);
    }
    file::check_writable(folder)?;
    fs::create_dir(folder).map_err(|source| VideoError::Io {
        path: folder.clone(),
        source,
    })?;
    Ok(true)
}

fn write_frames(pattern: &Pattern, video: &Video) -> Result<Vec<PathBuf>, VideoError> {
    let mut waiting = Vec::with_capacity(video.frames());
    for (index, frame) in video.iter().enumerate() {
        let path = pattern.path(index);
        let png = encode(&path, video, frame)?;
        waiting.push(file::write_beside(&path, &png)?);
    }
    let mut written = Vec::with_capacity(waiting.len());
    for file in waiting {
        let path = file.path().to_owned();
        if let Err(source) = file.place() {
            take_away(&written);
            return Err(VideoError::Io { path, source });
        }
        written.push(path);
    }
    Ok(written)
}

/// The rename's error is reported; one of the clean-up would say nothing more.
fn take_away(written: &[PathBuf]) {
    for path in written {
        let _ = fs::remove_file(path);
    }
}

fn encode(path: &std::path::Path, video: &Video, frame: &[u8]) -> Result<Vec<u8>, VideoError> {
    let fail = |source| VideoError::Picture {
        path: path.to_owned(),
        source,
    };
    let (width, height) = sides(video);
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(frame, width, height, ExtendedColorType::Rgb8)
        .map_err(fail)?;
    Ok(bytes)
}

/// Width and height; [`Destination::check_encodable`](super::destination::Destination) bounds them.
pub(super) fn sides(video: &Video) -> (u32, u32) {
    (video.width() as u32, video.height() as u32)
}
