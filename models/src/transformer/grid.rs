//! The token grid: how latents `[b, f, c, y, x]` become tokens `(t h w)` of patches, and back.
//!
//! Patchify is a change of order only: the caller's `f=(t s)`, `y=(h p)`, `x=(w q)` are the
//! factors of the tokens `v=(t h w)` and of their channels `e=(c s p q)`. The reference flattens
//! patches in this order on both sides, with and without `patch_size_t`.

use super::TransformerConfig;
use crate::ModelError;
use terrace_compiler::ir::{Dim, Segment};

/// Frames, rows or columns of latents; keeps the product of all three within 64 bits.
const LONGEST: usize = 1 << 20;

/// Tokens of a graph; keeps the products with all other sizes within 64 bits.
const MOST_TOKENS: usize = 1 << 24;

/// Videos of a graph.
const MOST_VIDEOS: usize = 1 << 10;

/// Sizes of the token grid and of its patches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) batch: usize,
    /// Text rows.
    pub(super) text: usize,
    pub(super) t: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Patch: frames, rows and columns. Flat patches have no factor of frames.
    frames: Option<usize>,
    patch: usize,
}

/// Latents that a graph works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latents {
    pub(super) batch: usize,
    pub(super) frames: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) text: usize,
}

impl Grid {
    pub(super) fn new(config: &TransformerConfig, size: Latents) -> Result<Self, ModelError> {
        within("batch", size.batch, MOST_VIDEOS)?;
        within("number of text rows", size.text, MOST_TOKENS)?;
        let t = patches("latent frames", size.frames, config.patch_frames())?;
        let h = patches("latent height", size.height, config.patch_size)?;
        let w = patches("latent width", size.width, config.patch_size)?;
        within("number of tokens", t * h * w + size.text, MOST_TOKENS)?;
        Ok(Self {
            batch: size.batch,
            text: size.text,
            t,
            h,
            w,
            frames: config.patch_size_t,
            patch: config.patch_size,
        })
    }

    /// The same grid with another batch.
    pub(super) fn with_batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    pub(super) fn b(&self) -> Dim {
        Dim::new("b", self.batch)
    }

    pub(super) fn txt(&self) -> Dim {
        Dim::new("txt", self.text)
    }

    /// The rows of video tokens.
    pub(super) fn v(&self) -> Dim {
        Dim::product("v", &self.cells())
    }

    /// The rows of the joint sequence.
    pub(super) fn seq(&self) -> Dim {
        let text = Segment::new(&[("txt", self.text)]);
        Dim::sum("seq", vec![text, Segment::new(&self.cells())])
    }

    /// The channels of a token's patch.
    pub(super) fn patch(&self, channels: usize) -> Dim {
        let mut factors = vec![("c", channels)];
        factors.extend(self.frames.map(|s| ("s", s)));
        factors.extend([("p", self.patch), ("q", self.patch)]);
        Dim::product("e", &factors)
    }

    /// Latents as tokens.
    pub(super) fn tokens(&self, channels: usize) -> Vec<Dim> {
        vec![self.b(), self.v(), self.patch(channels)]
    }

    /// Latents as the caller lays them out: `[b, f, c, y, x]`.
    pub(super) fn host(&self, channels: usize) -> Vec<Dim> {
        let mut frames = vec![("t", self.t)];
        frames.extend(self.frames.map(|s| ("s", s)));
        vec![
            self.b(),
            Dim::product("f", &frames),
            Dim::new("c", channels),
            Dim::product("y", &[("h", self.h), ("p", self.patch)]),
            Dim::product("x", &[("w", self.w), ("q", self.patch)]),
        ]
    }

    fn cells(&self) -> [(&'static str, usize); 3] {
        [("t", self.t), ("h", self.h), ("w", self.w)]
    }
}

/// Number of patches of size `patch` in `size`.
fn patches(what: &'static str, size: usize, patch: usize) -> Result<usize, ModelError> {
    within(what, size, LONGEST)?;
    if size.is_multiple_of(patch) {
        return Ok(size / patch);
    }
    let below = size / patch * patch;
    let nearest = match below {
        0 => format!("{patch}"),
        _ => format!("{below} or {}", below + patch),
    };
    Err(ModelError::Size {
        what,
        found: size,
        expected: format!("a multiple of the patch size {patch}, e.g. {nearest}"),
    })
}

fn within(what: &'static str, size: usize, most: usize) -> Result<(), ModelError> {
    if (1..=most).contains(&size) {
        return Ok(());
    }
    Err(ModelError::Size {
        what,
        found: size,
        expected: format!("1 to {most}"),
    })
}
