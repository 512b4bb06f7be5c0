//! Bytes on their way from rank to rank: aligned for every element type, and used again.

use std::sync::{Mutex, PoisonError};

/// Bytes that begin where any element may.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    words: Vec<u64>,
    len: usize,
}

impl Bytes {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// Makes it `len` bytes long; what is new has any value.
    pub(crate) fn resize(&mut self, len: usize) {
        let words = len.div_ceil(size_of::<u64>());
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.len = len;
    }
}

/// Bytes that nobody needs at present.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Bytes>>);

impl Spares {
    /// `len` bytes of any value.
    pub(crate) fn take(&self, len: usize) -> Bytes {
        let spare = self.lock().pop();
        let mut bytes = spare.unwrap_or_default();
        bytes.resize(len);
        bytes
    }

    pub(crate) fn give(&self, bytes: Bytes) {
        self.lock().push(bytes);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Bytes>> {
        // Contents of spares are meaningless, so a panic cannot have spoilt them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
