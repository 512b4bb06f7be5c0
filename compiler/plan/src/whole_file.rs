//! Files that appear under their name only when they are complete.
//!
//! A file is written beside its place and moved there, so that a failure leaves neither a part of
//! the new file nor anything of its making, and the old file as it was.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// A complete file beside its place, deleted when dropped.
#[derive(Debug)]
pub struct WaitingFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl WaitingFile {
    /// Writes a file that waits to be put at `path`.
    ///
    /// # Errors
    /// What the system said; nothing has changed then. A path that is a folder is
    /// [`io::ErrorKind::IsADirectory`].
    pub fn write(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let mut file = beside(path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file at its place, replacing an older one.
    ///
    /// # Errors
    /// What the system said; the older file is as it was.
    pub fn place(self) -> io::Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Writes a file as a whole, replacing an older one.
///
/// # Errors
/// As for [`WaitingFile::write`] and [`WaitingFile::place`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    WaitingFile::write(path, bytes)?.place()
}

/// Refuses a path that [`write_whole`] could not write, and leaves the file system as it was.
///
/// # Errors
/// As for [`WaitingFile::write`].
pub fn check_writable(path: &Path) -> io::Result<()> {
    // Made and removed at once: the only sure test of permissions.
    beside(path).map(drop)
}

/// An empty file in the folder of `path`, deleted when dropped.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    if path.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a folder",
        ));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Asked first, because errors of temporary files name these instead.
    folder.metadata()?;
    builder().tempfile_in(folder)
}

/// Temporary files are private by default; results get the permissions that the user's mask gives.
#[cfg(unix)]
fn builder() -> Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut builder = Builder::new();
    builder
        .prefix(".terrace")
        .permissions(std::fs::Permissions::from_mode(0o666));
    builder
}

#[cfg(not(unix))]
fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".terrace");
    builder
}
