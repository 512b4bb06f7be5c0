//! Copies on the device and between host and device, as launches of one kernel.
//!
//! Only the elements that a copy concerns cross the bus, side by side; the device spreads and collects
//! them. Invariant: [`Boxes`] were checked when they were made, and each copy first compares their
//! ends with the views.

use super::{Device, Handle};
use crate::backend::View;
use crate::boxes::Boxes;
use crate::{ResolveFault, RuntimeError};
use terrace_kernels::cube::{CopyBox, Element, Operand, Queue};
use terrace_plan::BoxCopy;

/// Copies `boxes` from `src` to `dst`.
///
/// # Safety
/// As for [`crate::Backend::copy`].
pub(super) unsafe fn between(
    device: &Device,
    src: View,
    dst: View,
    boxes: &Boxes,
) -> Result<(), RuntimeError> {
    boxes.fits(src.len(), dst.len())?;
    if src.dtype() != dst.dtype() {
        return Err(ResolveFault::CopyDType {
            src: src.dtype(),
            dst: dst.dtype(),
        }
        .into());
    }
    let (src, dst) = (device.operand(src)?, device.operand(dst)?);
    // SAFETY: the boxes lie in the operands; the caller rules out other access.
    unsafe { device.spread(&src, &dst, boxes) }
}

/// Copies `boxes` from `host` to `dst`.
///
/// # Safety
/// As for [`crate::Backend::copy`].
pub(super) unsafe fn upload(
    device: &Device,
    host: &[u8],
    dst: View,
    boxes: &Boxes,
) -> Result<(), RuntimeError> {
    let size = dst.dtype().bytes();
    boxes.fits(host.len() / size, dst.len())?;
    if boxes.is_empty() {
        return Ok(());
    }
    let (pack, unpack) = boxes.halves()?;
    let mut bytes = vec![0; pack.elements() * size];
    pack.apply_bytes(size, host, &mut bytes)?;
    let dst = device.operand(dst)?;
    let src = device.constants(dst.element, &bytes)?;
    // SAFETY: the boxes lie in the operands; the caller rules out other access.
    unsafe { device.spread(&src, &dst, &unpack) }
}

/// Copies `boxes` from `src` to `host`.
///
/// # Safety
/// As for [`crate::Backend::copy`].
pub(super) unsafe fn download(
    device: &Device,
    src: View,
    host: &mut [u8],
    boxes: &Boxes,
) -> Result<(), RuntimeError> {
    let size = src.dtype().bytes();
    boxes.fits(src.len(), host.len() / size)?;
    if boxes.is_empty() {
        return Ok(());
    }
    let (pack, unpack) = boxes.halves()?;
    let src = device.operand(src)?;
    let dst = Operand {
        buffer: device.queue.empty(pack.elements() * size)?,
        offset: 0,
        len: pack.elements(),
        element: src.element,
    };
    // SAFETY: the boxes lie in the operands; the destination is new.
    unsafe { device.spread(&src, &dst, &pack) }?;
    let bytes = device.queue.download(dst.buffer)?;
    unpack.apply_bytes(size, &bytes, host)
}

impl Device {
    /// A buffer of `bytes` zeros.
    pub(super) fn zeros(&self, bytes: usize) -> Result<Handle, RuntimeError> {
        let len = bytes / 4;
        let zero = self.constants(Element::U32, &[0; 4])?;
        let buffer = self.queue.empty(bytes)?;
        let all = Operand {
            buffer: buffer.clone(),
            offset: 0,
            len,
            element: zero.element,
        };
        let repeat = Boxes::new(&[BoxCopy {
            extents: vec![len],
            src_offset: 0,
            src_strides: vec![0],
            dst_offset: 0,
            dst_strides: vec![1],
        }])?;
        // SAFETY: the destination is new and as long as the box.
        unsafe { self.spread(&zero, &all, &repeat) }?;
        Ok(buffer)
    }

    /// Launches the copies of `boxes`.
    ///
    /// # Safety
    /// The boxes lie in the operands; nobody else writes the elements read or touches the elements
    /// written until the launches have ended.
    unsafe fn spread(
        &self,
        src: &Operand<Handle>,
        dst: &Operand<Handle>,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        for copy in boxes.iter() {
            let calls = CopyBox {
                extents: &copy.extents,
                src: src.clone(),
                src_offset: copy.src_offset,
                src_strides: &copy.src_strides,
                dst: dst.clone(),
                dst_offset: copy.dst_offset,
                dst_strides: &copy.dst_strides,
            }
            .calls(self.queue.device())?;
            for call in &calls {
                let launch = self.queue.prepare(call)?;
                // SAFETY: the caller's promise.
                unsafe { self.queue.launch(&launch) }?;
            }
        }
        Ok(())
    }
}
