//! The joint sequence: text rows, then video rows, with a position table added.
//!
//! Invariants: elementwise. Refused: operands whose lengths or element types disagree.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, same_element, units};
use super::device::Device;
use super::operand::{Element, Operand, width};
use crate::{KernelError, check};

const KERNEL: &str = "join";

/// Units of a cube.
const UNITS: usize = 256;

/// `y` `[batch, text_rows + video_rows, width]` = concatenation of text and video, plus positions.
#[derive(Debug, Clone)]
pub struct Join<B> {
    /// Batch items.
    pub batch: usize,
    /// Text rows of a batch item.
    pub text_rows: usize,
    /// Video rows of a batch item.
    pub video_rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// `[batch, text_rows, width]`.
    pub text: Operand<B>,
    /// `[batch, video_rows, width]`.
    pub video: Operand<B>,
    /// `[text_rows + video_rows, width]` f32, added to every batch item.
    pub positions: Option<Operand<B>>,
    /// Output.
    pub y: Operand<B>,
}

impl<B: Clone> Join<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let Self {
            batch,
            text_rows,
            video_rows,
            text,
            video,
            positions,
            y,
            ..
        } = self;
        let others = [("video", video), ("y", y)];
        let element = same_element(KERNEL, ("text", text), &others)?;
        let size = |rows| check::product(KERNEL, "batch, rows, width", &[*batch, rows, self.width]);
        text.length(KERNEL, "text", size(*text_rows)?)?;
        video.length(KERNEL, "video", size(*video_rows)?)?;
        let rows = check::sum(KERNEL, "text_rows, video_rows", [*text_rows, *video_rows])?;
        y.length(KERNEL, "y", size(rows)?)?;
        if let Some(positions) = positions {
            let entries = check::product(KERNEL, "rows, width", &[rows, self.width])?;
            positions.length(KERNEL, "positions", entries)?;
            positions.is(KERNEL, "positions", Element::F32)?;
        }
        let table = positions.as_ref().map_or(0, |table| table.offset);
        let n = width([self.width, text.offset, video.offset, table, y.offset]);
        let count = y.len / n;
        let kernel = concatenate::Concatenate::<R>::new(
            units([UNITS as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            list(4),
            list(4),
            n,
            positions.is_some(),
            element.storage(),
        );
        Builder::new(KERNEL, device)
            .maybe((text.len > 0).then_some(text), y, n)
            .maybe((video.len > 0).then_some(video), y, n)
            .maybe(positions.as_ref(), y, n)
            .array(y, n)
            .u32s([count, *text_rows, *video_rows, self.width / n])
            .over(line(count.div_ceil(UNITS)), kernel)
    }
}

/// `sizes`: vectors of the result, text rows, video rows, vectors of a row.
#[cube(launch_unchecked)]
fn concatenate<E: Float, N: Size>(
    text: &Array<Vector<E, N>>,
    video: &Array<Vector<E, N>>,
    positions: &Array<Vector<f32, N>>,
    y: &mut Array<Vector<E, N>>,
    lead: &Sequence<u32>,
    sizes: &Sequence<u32>,
    #[comptime] placed: bool,
    #[define(E)] _element: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < sizes[0] as usize {
        let (text_rows, video_rows) = (sizes[1] as usize, sizes[2] as usize);
        let width = sizes[3] as usize;
        let (line, inner) = (i / width, i % width);
        let (item, row) = (
            line / (text_rows + video_rows),
            line % (text_rows + video_rows),
        );
        let mut value = Vector::<f32, N>::new(0.0f32);
        if row < text_rows {
            let from = (item * text_rows + row) * width + inner;
            value += Vector::cast_from(text[lead[0] as usize + from]);
        } else {
            let from = (item * video_rows + row - text_rows) * width + inner;
            value += Vector::cast_from(video[lead[1] as usize + from]);
        }
        if comptime!(placed) {
            value += positions[lead[2] as usize + row * width + inner];
        }
        let to = lead[3] as usize + i;
        y[to] = Vector::cast_from(value);
    }
}
