//! Files that appear only when they are complete: written beside their place, then renamed.

use super::VideoError;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a file in one step, replacing an older one.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), VideoError> {
    let fail = |source| VideoError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = temporary_beside(path)?;
    file.write_all(bytes).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// An empty file in the folder of `path`, deleted when dropped. Refuses what [`write_new`] would.
pub(super) fn temporary_beside(path: &Path) -> Result<NamedTempFile, VideoError> {
    if path.is_dir() {
        return Err(VideoError::IsFolder {
            path: path.to_owned(),
        });
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(VideoError::NoFolder {
            path: path.to_owned(),
            folder,
        });
    }
    temporary()
        .tempfile_in(&folder)
        .map_err(|source| VideoError::Io {
            path: path.to_owned(),
            source,
        })
}

/// The folder that holds `path`.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Temporary files are private by default; results get the permissions that the user's mask gives.
#[cfg(unix)]
fn temporary() -> tempfile::Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::fs::Permissions::from_mode(0o666));
    builder
}

#[cfg(not(unix))]
fn temporary() -> tempfile::Builder<'static, 'static> {
    tempfile::Builder::new()
}
