//! Output files of videos: refused early where that is possible, written as a whole.

use super::VideoError;
use std::io;
use std::path::{Path, PathBuf};
use terrace_plan::WaitingFile;

/// Writes a file in one step, replacing an older one.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), VideoError> {
    placed(path, terrace_plan::write_whole(path, bytes))
}

/// Writes a file that waits beside its place.
pub(super) fn write_beside(path: &Path, bytes: &[u8]) -> Result<WaitingFile, VideoError> {
    placed(path, WaitingFile::write(path, bytes))
}

/// Refuses what [`write_new`] would.
pub(super) fn check_writable(path: &Path) -> Result<(), VideoError> {
    placed(path, terrace_plan::check_writable(path))
}

fn placed<T>(path: &Path, result: io::Result<T>) -> Result<T, VideoError> {
    result.map_err(|source| {
        let (path, folder) = (path.to_owned(), folder_of(path));
        if path.is_dir() {
            VideoError::IsFolder { path }
        } else if !folder.is_dir() {
            VideoError::NoFolder { path, folder }
        } else {
            VideoError::Io { path, source }
        }
    })
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
