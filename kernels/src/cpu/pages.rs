//! Zeroed memory in pages of its own, for what is large and stays: packed weights, arenas.
//!
//! Invariants: memory is taken when it is first written, so threads that fill it share that work; Linux is
//! asked for large pages, since kernels read rows that lie far apart. Refused: more than the system gives.

use memmap2::MmapMut;
use std::io;

/// Zeroed memory, aligned to a page.
#[derive(Debug)]
pub struct Pages(Option<MmapMut>);

impl Pages {
    /// So many bytes of zeros.
    ///
    /// # Errors
    /// What the system says when it has no room for them.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        if bytes == 0 {
            return Ok(Self(None));
        }
        let pages = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        {
            // Small pages do as well, only slower.
            let _ = pages.advise(memmap2::Advice::HugePage);
        }
        Ok(Self(Some(pages)))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The bytes, to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}
