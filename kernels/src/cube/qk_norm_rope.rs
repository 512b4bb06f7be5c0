//! Layer norm of query and key heads and rotary embedding of the video rows, in place on packed qkv.
//!
//! Invariants: a group of units handles one head of one row, in an order that depends on the width of
//! a head alone; each unit rereads only elements that it writes itself, so in place is safe; values are
//! never touched. Refused: operands whose lengths or types disagree, fewer than two parts, an odd head
//! width with a table.

use cubecl::prelude::*;

use super::call::{Builder, Call, array, line, list, units};
use super::device::Device;
use super::fours::{Four, load, store, total};
use super::operand::{Element, Operand, width};
use crate::{KernelError, check};

const KERNEL: &str = "qk_norm_rope";

/// Units that share a head.
const LANES: usize = 16;

/// Heads of a cube.
const HEADS: usize = 8;

/// Normalises and rotates the queries (part 0) and keys (part 1) of packed
/// `[batch, rows, parts, heads, dim]` data; further parts stay as they are. See
/// [`cpu::QkNormRope`](crate::cpu::QkNormRope).
#[derive(Debug, Clone)]
pub struct QkNormRope<B> {
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
    pub q: Option<HeadNorm<B>>,
    /// Norm of the keys.
    pub k: Option<HeadNorm<B>>,
    /// f32 `[rows - text_rows, 2, dim]`, each row cosines then sines; `None` rotates nothing.
    pub table: Option<Operand<B>>,
    /// The packed rows, changed in place.
    pub qkv: Operand<B>,
}

/// Layer norm over the elements of a head. Weight and bias are f32.
#[derive(Debug, Clone)]
pub struct HeadNorm<B> {
    /// Added to the variance.
    pub eps: f32,
    /// `[dim]`, 1 when absent.
    pub weight: Option<Operand<B>>,
    /// `[dim]`, 0 when absent.
    pub bias: Option<Operand<B>>,
}

/// What a head goes through, chosen when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Steps {
    q: Affine,
    k: Affine,
    table: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Affine {
    norm: bool,
    weight: bool,
    bias: bool,
}

impl<B: Clone> QkNormRope<B> {
    /// The launch.
    ///
    /// # Errors
    /// [`KernelError`] when a length, an argument or an element type does not fit.
    pub fn calls<R: Runtime>(&self, device: &Device<R>) -> Result<Vec<Call<B>>, KernelError> {
        let element = self.check()?;
        let Self {
            heads, dim, qkv, ..
        } = self;
        let (q, q_eps, [q_weight, q_bias]) = parts(self.q.as_ref());
        let (k, k_eps, [k_weight, k_bias]) = parts(self.k.as_ref());
        let table = self.table.as_ref();
        let vectors = [q_weight, q_bias, k_weight, k_bias, table];
        let begins = vectors.into_iter().flatten().map(|operand| operand.offset);
        let n = width(begins.chain([qkv.offset, *dim]));
        let steps = Steps {
            q,
            k,
            table: table.is_some(),
        };
        let kernel = qk_norm_rope::QkNormRope::<R>::new(
            units([(LANES * HEADS) as u32, 1]),
            device.client(),
            array(),
            array(),
            array(),
            array(),
            array(),
            array(),
            list(6),
            (),
            (),
            (),
            (),
            (),
            (),
            (),
            (),
            n,
            steps,
            element.storage(),
        );
        let items = self.batch * self.rows * heads;
        let [x, y, _] = line(items.div_ceil(HEADS));
        let builder = Builder::new(KERNEL, device).array(qkv, n);
        vectors
            .into_iter()
            .fold(builder, |builder, vector| builder.maybe(vector, qkv, n))
            .u32s([items, self.rows, self.text_rows, self.parts, *heads, *dim])
            .f32(q_eps)
            .f32(k_eps)
            .over([x, y, 2], kernel)
    }

    fn check(&self) -> Result<Element, KernelError> {
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
            let found = parts.to_string();
            return Err(check::argument(KERNEL, "parts", "at least 2", found));
        }
        let video_rows = rows.checked_sub(text_rows).ok_or_else(|| {
            let expected = format!("at most {rows}");
            check::argument(KERNEL, "text_rows", expected, text_rows.to_string())
        })?;
        if self.table.is_some() && dim % 2 == 1 {
            let expected = "even, for a rotation";
            return Err(check::argument(KERNEL, "dim", expected, dim.to_string()));
        }
        let shape = [batch, rows, parts, heads, dim];
        let all = check::product(KERNEL, "batch, rows, parts, heads, dim", &shape)?;
        self.qkv.length(KERNEL, "qkv", all)?;
        let entries = check::product(KERNEL, "table", &[video_rows, 2, dim])?;
        vector("table", self.table.as_ref(), entries)?;
        for norm in [&self.q, &self.k].into_iter().flatten() {
            vector("norm.weight", norm.weight.as_ref(), dim)?;
            vector("norm.bias", norm.bias.as_ref(), dim)?;
        }
        self.qkv.float(KERNEL, "qkv")
    }
}

fn vector<B>(
    name: &'static str,
    operand: Option<&Operand<B>>,
    len: usize,
) -> Result<(), KernelError> {
    operand.map_or(Ok(()), |operand| {
        operand.is(KERNEL, name, Element::F32)?;
        operand.length(KERNEL, name, len)
    })
}

fn parts<B>(norm: Option<&HeadNorm<B>>) -> (Affine, f32, [Option<&Operand<B>>; 2]) {
    let weight = norm.and_then(|norm| norm.weight.as_ref());
    let bias = norm.and_then(|norm| norm.bias.as_ref());
    let affine = Affine {
        norm: norm.is_some(),
        weight: weight.is_some(),
        bias: bias.is_some(),
    };
    (affine, norm.map_or(0.0, |norm| norm.eps), [weight, bias])
}

#[cube(launch_unchecked)]
fn qk_norm_rope<E: Float, N: Size>(
    qkv: &mut Array<Vector<E, N>>,
    q_weight: &Array<Vector<f32, N>>,
    q_bias: &Array<Vector<f32, N>>,
    k_weight: &Array<Vector<f32, N>>,
    k_bias: &Array<Vector<f32, N>>,
    table: &Array<Vector<f32, N>>,
    lead: &Sequence<u32>,
    items: u32,
    rows: u32,
    text_rows: u32,
    parts: u32,
    heads: u32,
    dim: u32,
    q_eps: f32,
    k_eps: f32,
    #[comptime] steps: Steps,
    #[define(E)] _element: StorageType,
) {
    let is_q = CUBE_POS_Z == 0;
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let item = cube * comptime!(HEADS as u32) + UNIT_POS / comptime!(LANES as u32);
    // Groups behind the last head take part in the sums of the cube, with the last head's data.
    let head = min(item, items - 1);
    let (row, dim) = (head / heads, dim as usize);
    let place = (row * parts + CUBE_POS_Z) * heads + head % heads;
    let at = lead[0] as usize + place as usize * dim / N::value();
    let eps = select(is_q, q_eps, k_eps);
    let mut mean = 0.0f32;
    let mut factor = 1.0f32;
    if comptime!(steps.q.norm || steps.k.norm) {
        let (m, f) = statistics::<E, N>(qkv, at, dim, eps);
        let normed = select(is_q, comptime!(steps.q.norm), comptime!(steps.k.norm));
        mean = select(normed, m, 0.0f32);
        factor = select(normed, f, 1.0f32);
    }
    if item < items {
        let mut i = UNIT_POS as usize % LANES * 4;
        while i < dim {
            let mut v = load::<E, N>(qkv, at, i, dim, 0.0f32);
            v = (v - Four::new(mean)) * Four::new(factor);
            if is_q {
                let (w, b) = (lead[1] as usize, lead[2] as usize);
                v = affine::<N>(v, q_weight, w, q_bias, b, i, dim, steps.q);
            } else {
                let (w, b) = (lead[3] as usize, lead[4] as usize);
                v = affine::<N>(v, k_weight, w, k_bias, b, i, dim, steps.k);
            }
            if comptime!(steps.table) {
                let table_at = lead[5] as usize;
                v = rotate::<N>(v, table, table_at, row % rows, text_rows, i, dim);
            }
            store::<E, N>(qkv, at, i, dim, v);
            i += comptime!(4 * LANES);
        }
    }
}

/// Mean and 1 / sqrt(variance + eps) of a head, the same for all units of its group.
#[cube]
fn statistics<E: Float, N: Size>(
    qkv: &Array<Vector<E, N>>,
    at: usize,
    dim: usize,
    eps: f32,
) -> (f32, f32) {
    let mut lanes = SharedMemory::<f32>::new(LANES * HEADS);
    let count = dim as f32;
    let mean = head_sum::<E, N>(qkv, at, dim, 0.0f32, false, &mut lanes) / count;
    let squares = head_sum::<E, N>(qkv, at, dim, mean, true, &mut lanes);
    (mean, 1.0f32 / f32::sqrt(squares / count + eps))
}

/// The sum over a head of `x - base`, or of its square.
#[cube]
fn head_sum<E: Float, N: Size>(
    qkv: &Array<Vector<E, N>>,
    at: usize,
    dim: usize,
    base: f32,
    #[comptime] square: bool,
    lanes: &mut SharedMemory<f32>,
) -> f32 {
    let unit = UNIT_POS as usize;
    let mut sum = Four::new(0.0f32);
    let mut i = unit % LANES * 4;
    while i < dim {
        let v = load::<E, N>(qkv, at, i, dim, base) - Four::new(base);
        if comptime!(square) {
            sum += v * v;
        } else {
            sum += v;
        }
        i += comptime!(4 * LANES);
    }
    sync_cube();
    lanes[unit] = total(sum);
    sync_cube();
    let first = unit / LANES * LANES;
    let mut all = 0.0f32;
    for lane in 0..LANES {
        all += lanes[first + lane];
    }
    all
}

#[cube]
fn affine<N: Size>(
    value: Four,
    weight: &Array<Vector<f32, N>>,
    weight_at: usize,
    bias: &Array<Vector<f32, N>>,
    bias_at: usize,
    i: usize,
    dim: usize,
    #[comptime] affine: Affine,
) -> Four {
    let mut v = value;
    if comptime!(affine.weight) {
        v *= load::<f32, N>(weight, weight_at, i, dim, 0.0f32);
    }
    if comptime!(affine.bias) {
        v += load::<f32, N>(bias, bias_at, i, dim, 0.0f32);
    }
    v
}

/// Rotates the pairs (2i, 2i + 1) of a video row: x cos + (-x1, x0) sin.
#[cube]
fn rotate<N: Size>(
    v: Four,
    table: &Array<Vector<f32, N>>,
    table_at: usize,
    row: u32,
    text_rows: u32,
    i: usize,
    dim: usize,
) -> Four {
    let mut result = v;
    if row >= text_rows {
        let angles = table_at + (row - text_rows) as usize * 2 * dim / N::value();
        let cos = load::<f32, N>(table, angles, i, dim, 0.0f32);
        let sin = load::<f32, N>(table, angles + dim / N::value(), i, dim, 0.0f32);
        let mut turned = Four::new(0.0f32);
        turned[0] = -v[1];
        turned[1] = v[0];
        turned[2] = -v[3];
        turned[3] = v[2];
        result = v * cos + turned * sin;
    }
    result
}
