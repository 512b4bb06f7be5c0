//! Copies of strided boxes between buffers: layout changes and what the ranks exchange.
//!
//! Invariants: a box is checked against both buffers before anything moves; the destination's elements
//! are distinct. Refused: see [`CopyBox::run`].

use crate::KernelError;
use crate::boxes::BoxDims;

const KERNEL: &str = "copy_box";

/// Copies a box of up to [`MAX_BOX_RANK`](super::MAX_BOX_RANK) dimensions; element `i` of the box goes
/// from `src_offset + sum(i * src_strides)` to `dst_offset + sum(i * dst_strides)`.
///
/// Strides count elements. A source stride may be 0, which repeats; destination strides must nest as
/// those of a (permuted) box in a dense array do.
#[derive(Debug)]
pub struct CopyBox<'a, T> {
    /// Elements along each dimension.
    pub extents: &'a [usize],
    /// Where the data come from.
    pub src: &'a [T],
    /// First element of the box in `src`.
    pub src_offset: usize,
    /// Step of each dimension in `src`.
    pub src_strides: &'a [usize],
    /// Where the data go.
    pub dst: &'a mut [T],
    /// First element of the box in `dst`.
    pub dst_offset: usize,
    /// Step of each dimension in `dst`.
    pub dst_strides: &'a [usize],
}

impl<T: Copy + Send + Sync> CopyBox<'_, T> {
    /// Copies the box.
    ///
    /// # Errors
    /// [`KernelError`] when the lists differ in length, the box has too many dimensions, leaves a
    /// buffer, or would write an element twice; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let src = self.src;
        let from_strides: Vec<u64> = self.src_strides.iter().map(|&s| s as u64).collect();
        let walk = BoxDims::new(
            KERNEL,
            self.extents,
            (self.dst.len(), self.dst_offset, self.dst_strides),
            (src.len() as u64, self.src_offset as u64, &from_strides),
        )?;
        walk.run(self.dst, |out, from, dim| {
            // The walk was checked against `src`, so every index below is inside it.
            let from = &src[from as usize..];
            if dim.to == 1 && dim.from == 1 {
                out[..dim.extent].copy_from_slice(&from[..dim.extent]);
            } else if dim.from == 0 {
                out.iter_mut()
                    .step_by(dim.to)
                    .take(dim.extent)
                    .for_each(|v| *v = from[0]);
            } else {
                let from = from.iter().step_by(dim.from as usize);
                let out = out.iter_mut().step_by(dim.to).take(dim.extent);
                out.zip(from).for_each(|(v, &value)| *v = value);
            }
        });
        Ok(())
    }
}
