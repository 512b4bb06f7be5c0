//! Layer norm of query and key heads and rotary embedding of the video rows, in place on packed qkv.
//!
//! Invariants: each head of each row is normalised and rotated alone; the values are never touched.
//! Refused: operands whose lengths disagree, fewer than two parts, an odd head width with a table.

use super::check;
use super::math::layer_statistics;
use super::norm::affine;
use super::split::{for_rows, multiversion};
use crate::KernelError;

const KERNEL: &str = "qk_norm_rope";

/// Normalises and rotates the queries (part 0) and keys (part 1) of packed
/// `[batch, rows, parts, heads, dim]` data; further parts stay as they are.
///
/// Source: `CogVideoXAttnProcessor2_0` and `apply_rotary_emb(use_real=True,
/// use_real_unbind_dim=-1)` of diffusers 0.42.
#[derive(Debug)]
pub struct QkNormRope<'a> {
    /// Batch items.
    pub batch: usize,
    /// Rows of the joint sequence, text first.
    pub rows: usize,
    /// Leading rows that are not rotated.
    pub text_rows: usize,
    /// Parts of a row: 3 for query, key and value.
    pub parts: usize,
    /// Heads of a part.
    pub heads: usize,
    /// Elements of a head.
    pub dim: usize,
    /// Norm of the queries.
    pub q: Option<HeadNorm<'a>>,
    /// Norm of the keys.
    pub k: Option<HeadNorm<'a>>,
    /// `[rows - text_rows, 2, dim]`, each row cosines then sines; `None` rotates nothing.
    pub table: Option<&'a [f32]>,
    /// The packed rows, changed in place.
    pub qkv: &'a mut [f32],
}

/// Layer norm over the elements of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// `[dim]`, 1 when absent.
    pub weight: Option<&'a [f32]>,
    /// `[dim]`, 0 when absent.
    pub bias: Option<&'a [f32]>,
}

impl QkNormRope<'_> {
    /// Changes `qkv` in place.
    ///
    /// # Errors
    /// [`KernelError`] when a length or an argument does not fit; then nothing was written.
    pub fn run(self) -> Result<(), KernelError> {
        let row_width = self.check()?;
        let Self {
            rows,
            text_rows,
            heads,
            dim,
            q,
            k,
            table,
            qkv,
            ..
        } = self;
        for_rows(qkv, row_width, |row, data| {
            let position = (row % rows).checked_sub(text_rows);
            let angles = match (table, position) {
                (Some(table), Some(p)) => table[p * 2 * dim..][..2 * dim].split_at_checked(dim),
                _ => None,
            };
            let (queries, rest) = data.split_at_mut(heads * dim);
            heads_of_row(queries, dim, q, angles);
            heads_of_row(&mut rest[..heads * dim], dim, k, angles);
        });
        Ok(())
    }

    /// Checks every argument and returns the width of a packed row.
    fn check(&self) -> Result<usize, KernelError> {
        let Self {
            batch,
            rows,
            text_rows,
            parts,
            heads,
            dim,
            ..
        } = *self;
        if parts < 2 {
            return Err(check::argument(
                KERNEL,
                "parts",
                "at least 2",
                parts.to_string(),
            ));
        }
        let video_rows = rows.checked_sub(text_rows).ok_or_else(|| {
            check::argument(
                KERNEL,
                "text_rows",
                format!("at most {rows}"),
                text_rows.to_string(),
            )
        })?;
        if self.table.is_some() && dim % 2 == 1 {
            return Err(check::argument(
                KERNEL,
                "dim",
                "even, for a rotation",
                dim.to_string(),
            ));
        }
        let shape = [batch, rows, parts, heads, dim];
        let total = check::product(KERNEL, "batch, rows, parts, heads, dim", &shape)?;
        check::length(KERNEL, "qkv", total, self.qkv.len())?;
        let entries = check::product(KERNEL, "table", &[video_rows, 2, dim])?;
        check::optional_length(KERNEL, "table", entries, self.table)?;
        for norm in [self.q, self.k].into_iter().flatten() {
            check::optional_length(KERNEL, "norm.weight", dim, norm.weight)?;
            check::optional_length(KERNEL, "norm.bias", dim, norm.bias)?;
        }
        check::product(KERNEL, "parts, heads, dim", &[parts, heads, dim])
    }
}

multiversion! {
    fn heads_of_row(
        data: &mut [f32],
        dim: usize,
        norm: Option<HeadNorm<'_>>,
        angles: Option<(&[f32], &[f32])>,
    ) {
        for head in data.chunks_exact_mut(dim) {
            if let Some(HeadNorm { eps, weight, bias }) = norm {
                let (mean, factor) = layer_statistics(head, eps);
                for v in head.iter_mut() {
                    *v = (*v - mean) * factor;
                }
                affine(head, weight, bias);
            }
            if let Some((cos, sin)) = angles {
                rotate(head, cos, sin);
            }
        }
    }
}

/// Rotates the pairs (2i, 2i + 1): x cos + (-x1, x0) sin.
#[inline(always)]
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = head.as_chunks_mut::<2>().0;
    let (cos, sin) = (cos.as_chunks::<2>().0, sin.as_chunks::<2>().0);
    for ((pair, cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
        let [real, imaginary] = *pair;
        *pair = [
            real * cos[0] - imaginary * sin[0],
            imaginary * cos[1] + real * sin[1],
        ];
    }
}
