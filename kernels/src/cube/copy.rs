//! Copies of strided boxes between buffers: layout changes, ports, and what the ranks exchange.
//!
//! Invariants: a box is checked against both operands before anything moves; the destination's elements
//! are distinct; bits are copied as they are. Refused: see [`CopyBox::calls`].

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::operand::{Element, Operand, width};
use crate::KernelError;
use crate::boxes::{BoxDims, Dim};

const KERNEL: &str = "copy_box";

/// Units of a cube.
const UNITS: usize = 256;

/// Copies a box of up to [`MAX_BOX_RANK`](crate::MAX_BOX_RANK) dimensions; element `i` of the box goes
/// from `src_offset + sum(i * src_strides)` to `dst_offset + sum(i * dst_strides)`.
///
/// Strides count elements. A source stride may be 0, which repeats; destination strides must nest as
/// those of a (permuted) box in a dense array do. The operands do not overlap.
#[derive(Debug, Clone)]
pub struct CopyBox<'a, B> {
    /// Elements along each dimension.
    pub extents: &'a [usize],
    /// Where the data come from.
    pub src: Operand<B>,
    /// First element of the box in `src`.
    pub src_offset: usize,
    /// Step of each dimension in `src`.
    pub src_strides: &'a [usize],
    /// Where the data go, of the same element type.
    pub dst: Operand<B>,
    /// First element of the box in `dst`.
    pub dst_offset: usize,
    /// Step of each dimension in `dst`.
    pub dst_strides: &'a [usize],
}

impl<B: Clone> CopyBox<'_, B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when the lists differ in length, the box has too many dimensions, leaves an
    /// operand, or would write an element twice, or when the element types differ.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self { src, dst, .. } = self;
        dst.is(KERNEL, "dst", src.element)?;
        let from_strides: Vec<u64> = self.src_strides.iter().map(|&s| s as u64).collect();
        let BoxDims { dims, elements, .. } = BoxDims::new(
            KERNEL,
            self.extents,
            (dst.len, self.dst_offset, self.dst_strides),
            (src.len as u64, self.src_offset as u64, &from_strides),
        )?;
        let begins = [src.offset, dst.offset, self.src_offset, self.dst_offset];
        let n = together(&dims, begins);
        let kernel = copy_box::CopyBox::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            list(2),
            (),
            (),
            (),
            list(3 * dims.len()),
            n,
            dims.len(),
            carrier(src.element).storage(),
        );
        let count = elements / n;
        Builder::new(KERNEL, device)
            .array(src, n)
            .array(dst, n)
            .u32s([count, self.src_offset / n, self.dst_offset / n])
            .u32s(dims.iter().flat_map(|dim| in_vectors(dim, n)))
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// Elements that can be copied at once.
fn together(dims: &[Dim], begins: [usize; 4]) -> usize {
    match dims.split_last() {
        Some((inner, outer)) if inner.to == 1 && inner.from == 1 => {
            let steps = outer.iter().flat_map(|dim| [dim.to, dim.from as usize]);
            width(steps.chain(begins).chain([inner.extent]))
        }
        Some(_) | None => 1,
    }
}

/// Extent and steps of a dimension in vectors of `n` elements; the inner one alone has steps of 1 that
/// `n` does not divide.
fn in_vectors(dim: &Dim, n: usize) -> [usize; 3] {
    let (to, from) = (dim.to, dim.from as usize);
    if to % n == 0 {
        [dim.extent, to / n, from / n]
    } else {
        [dim.extent / n, to, from]
    }
}

/// The type that carries the bits of an element through the kernel: 4 bytes are the same as any other.
fn carrier(element: Element) -> Element {
    match element {
        Element::F32 | Element::U32 => Element::U32,
        Element::F16 | Element::Bf16 => element,
    }
}

/// `dims`: per dimension, the outermost first, its extent and its steps in `dst` and `src`.
#[cube(launch_unchecked)]
fn copy_box<T: Numeric, N: Size>(
    src: &Array<Vector<T, N>>,
    dst: &mut Array<Vector<T, N>>,
    lead: &Sequence<u32>,
    count: u32,
    src_offset: u32,
    dst_offset: u32,
    dims: &Sequence<u32>,
    #[comptime] rank: usize,
    #[define(T)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let mut rest = i as u32;
        let mut from = src_offset;
        let mut to = dst_offset;
        #[unroll]
        for d in 0..rank {
            let dim = comptime!(3 * (rank - 1 - d));
            let index = rest % dims[dim];
            rest /= dims[dim];
            to += index * dims[comptime!(dim + 1)];
            from += index * dims[comptime!(dim + 2)];
        }
        let at = (lead[1] + to) as usize;
        dst[at] = src[(lead[0] + from) as usize];
    }
}
