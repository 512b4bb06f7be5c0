//! Machine code kept between runs: one file per kernel in the user's cache folder.
//!
//! The key is a hash of all that decides the code: source, architecture, compiler version, options. An
//! entry carries a hash of itself; a damaged one counts as absent. Entries are written beside their
//! place and renamed, so that several processes may share the folder. The cache never fails: what it
//! cannot read or write is compiled again.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a hash.
const HASH: usize = 32;

/// Distinguishes the temporary files of one process.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// The key of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CubinKey([u8; HASH]);

impl CubinKey {
    /// The key of the code of `source`; `parts` are all else that decides it.
    pub fn new(source: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(&source).chain(parts) {
            // With its length before it, no two lists of parts read alike.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash.finalize().into())
    }

    fn file(self) -> String {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}.cubin")
    }
}

/// A folder of entries.
#[derive(Clone, Debug)]
pub struct CubinCache {
    folder: Option<PathBuf>,
}

impl CubinCache {
    /// The cache of the user: `$XDG_CACHE_HOME/terrace/cubin` or `~/.cache/terrace/cubin`.
    pub fn of_user() -> Self {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let root = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Self {
            folder: root.map(|root| root.join("terrace").join("cubin")),
        }
    }

    /// A cache in `folder`, which is made when it is first written to.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
        }
    }

    /// The code of `key`, if there is a sound entry.
    pub fn get(&self, key: CubinKey) -> Option<Vec<u8>> {
        let entry = fs::read(self.folder.as_ref()?.join(key.file())).ok()?;
        let (hash, code) = entry.split_at_checked(HASH)?;
        (Sha256::digest(code).as_slice() == hash).then(|| code.to_vec())
    }

    /// Keeps `code`, if the folder can be written.
    pub fn put(&self, key: CubinKey, code: &[u8]) {
        let Some(folder) = &self.folder else { return };
        // Without the entry the kernel is compiled again; that is all.
        let _ = write(folder, &key.file(), code);
    }
}

fn write(folder: &Path, name: &str, code: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!("{name}.{}-{number}", std::process::id()));
    let mut entry = Sha256::digest(code).to_vec();
    entry.extend_from_slice(code);
    let written = fs::write(&temporary, entry);
    let renamed = written.and_then(|()| fs::rename(&temporary, folder.join(name)));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::{CubinCache, CubinKey};
    use std::fs;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn entries_come_back_and_leave_no_temporary_files() {
        let folder = folder();
        let (cache, key) = (
            CubinCache::at(folder.path().join("new")),
            CubinKey::new("a", &[]),
        );
        assert_eq!(cache.get(key), None);
        cache.put(key, b"code");
        cache.put(key, b"other code");
        assert_eq!(cache.get(key), Some(b"other code".to_vec()));
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_entry_is_absent() {
        let folder = folder();
        let (cache, key) = (
            CubinCache::at(folder.path()),
            CubinKey::new("a", &["sm_90a"]),
        );
        cache.put(key, b"code");
        let file = fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        for damage in [&b""[..], b"short", &[7; 40]] {
            fs::write(&file, damage).unwrap();
            assert_eq!(cache.get(key), None);
        }
        cache.put(key, b"code");
        assert_eq!(cache.get(key), Some(b"code".to_vec()));
    }

    #[test]
    fn everything_that_decides_the_code_is_in_the_key() {
        let key = CubinKey::new("source", &["sm_90a", "13000"]);
        assert_ne!(key, CubinKey::new("source ", &["sm_90a", "13000"]));
        assert_ne!(key, CubinKey::new("source", &["sm_90a", "13010"]));
        assert_ne!(key, CubinKey::new("source", &["sm_90", "a13000"]));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = folder();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let (cache, key) = (CubinCache::at(&file), CubinKey::new("a", &[]));
        cache.put(key, b"code");
        assert_eq!(cache.get(key), None);
    }
}
