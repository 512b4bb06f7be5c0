//! The joint sequence: text rows, then video rows, with a position table added.
//!
//! Invariants: elementwise. Refused: operands whose lengths disagree.

use super::check;
use super::split::{for_rows, multiversion};
use crate::KernelError;

const KERNEL: &str = "join";

/// `y` `[batch, text_rows + video_rows, width]` = concatenation of text and video, plus positions.
#[derive(Debug)]
pub struct Join<'a> {
    /// Batch items.
    pub batch: usize,
    /// Text rows of a batch item.
    pub text_rows: usize,
    /// Video rows of a batch item.
    pub video_rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// `[batch, text_rows, width]`.
    pub text: &'a [f32],
    /// `[batch, video_rows, width]`.
    pub video: &'a [f32],
    /// `[text_rows + video_rows, width]`, added to every batch item.
    pub positions: Option<&'a [f32]>,
    /// Output.
    pub y: &'a mut [f32],
}

impl Join<'_> {
    /// Computes `y`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let Self {
            batch,
            text_rows,
            video_rows,
            width,
            text,
            video,
            positions,
            y,
        } = self;
        let size = |rows| check::product(KERNEL, "batch, rows, width", &[batch, rows, width]);
        check::length(KERNEL, "text", size(text_rows)?, text.len())?;
        check::length(KERNEL, "video", size(video_rows)?, video.len())?;
        let rows = check::sum(KERNEL, "text_rows, video_rows", [text_rows, video_rows])?;
        check::length(KERNEL, "y", size(rows)?, y.len())?;
        let entries = check::product(KERNEL, "rows, width", &[rows, width])?;
        check::optional_length(KERNEL, "positions", entries, positions)?;
        for_rows(y, width, |row, out| {
            let (b, row) = (row / rows, row % rows);
            let from = match row.checked_sub(text_rows) {
                None => &text[(b * text_rows + row) * width..],
                Some(row) => &video[(b * video_rows + row) * width..],
            };
            match positions {
                None => out.copy_from_slice(&from[..width]),
                Some(table) => sum_row(&from[..width], &table[row * width..][..width], out),
            }
        });
        Ok(())
    }
}

multiversion! {
    fn sum_row(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((out, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *out = a + b;
        }
    }
}
