//! Filling memory of a device from the host, piece by piece.
//!
//! The pieces are made in two halves of pinned memory in turn: while one half is copied, the processor
//! makes the next piece in the other. Invariants: a half is written only when its last copy has ended, and
//! no copy is under way when a call returns.

use super::device::Device;
use super::event::Event;
use super::fault::CudaFault;
use super::library::Library;
use super::memory::{DeviceMemory, PinnedMemory};
use super::stream::{Priority, Stream};
use std::ops::Range;

/// Two halves of pinned memory with a queue of their own.
#[derive(Debug)]
pub struct Uploader {
    stream: Stream,
    halves: [Half; 2],
}

#[derive(Debug)]
struct Half {
    memory: PinnedMemory,
    /// Set behind the copy from the half.
    copied: Event,
}

impl Uploader {
    /// An uploader of pieces of `piece` bytes.
    ///
    /// # Errors
    /// When the driver fails or the host has no such memory left.
    pub fn new(device: &Device, piece: usize) -> Result<Self, CudaFault> {
        let half = || {
            Ok(Half {
                memory: device.pinned(piece.max(1))?,
                copied: device.event()?,
            })
        };
        Ok(Self {
            stream: device.stream(Priority::Normal)?,
            halves: [half()?, half()?],
        })
    }

    /// Fills the first `bytes` bytes of `dst`, of which `make` is told to write ranges, and returns when they
    /// are there.
    ///
    /// # Errors
    /// When `dst` is shorter, or the driver fails, or what `make` fails with.
    pub fn fill<E: From<CudaFault>>(
        &mut self,
        dst: &mut DeviceMemory,
        bytes: usize,
        make: impl FnMut(Range<usize>, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if bytes > dst.bytes() {
            return Err(CudaFault::Call {
                library: Library::Driver,
                call: "cuMemcpyHtoDAsync",
                reason: format!("{bytes} bytes do not fit in {}", dst.bytes()),
            }
            .into());
        }
        let sent = self.send(dst, bytes, make);
        // Also after a failure nothing may be under way.
        let ended = self.stream.synchronize();
        sent?;
        Ok(ended?)
    }

    fn send<E: From<CudaFault>>(
        &mut self,
        dst: &DeviceMemory,
        bytes: usize,
        mut make: impl FnMut(Range<usize>, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut start, mut turn) = (0, 0);
        while start < bytes {
            let half = &mut self.halves[turn];
            half.copied.synchronize()?;
            let end = bytes.min(start + half.memory.bytes().len());
            make(start..end, &mut half.memory.bytes_mut()[..end - start])?;
            // SAFETY: the range lies in `dst`, which is borrowed exclusively until `fill` has waited for the
            // queue; the half is not touched before its mark is reached.
            unsafe {
                self.stream
                    .upload(&half.memory, 0..end - start, dst.address().plus(start))
            }?;
            self.stream.record(&half.copied)?;
            (start, turn) = (end, 1 - turn);
        }
        Ok(())
    }
}
