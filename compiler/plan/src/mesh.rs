//! The mesh of ranks and its named axes.
//!
//! Ranks are numbered with `cfg` outermost and `ulysses` innermost:
//! `rank = (cfg * ring_size + ring) * ulysses_size + ulysses`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A rank of the mesh, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub usize);

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A named axis of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Splits the batch of unconditional and conditional predictions.
    Cfg,
    /// Splits the sequence; keys and values rotate.
    Ring,
    /// Splits the sequence outside attention and the heads inside it; the fastest links.
    Ulysses,
}

impl Axis {
    /// All axes, outermost first.
    pub const ALL: [Self; 3] = [Self::Cfg, Self::Ring, Self::Ulysses];

    /// The lower-case name of the axis.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cfg => "cfg",
            Self::Ring => "ring",
            Self::Ulysses => "ulysses",
        }
    }

    /// The axis with this lower-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|axis| axis.name() == name)
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Sizes of the named axes; every size is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// Size of the `cfg` axis: 1 or 2.
    pub cfg: usize,
    /// Size of the `ring` axis.
    pub ring: usize,
    /// Size of the `ulysses` axis.
    pub ulysses: usize,
}

/// Position of a rank on every axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coords {
    /// Position on the `cfg` axis.
    pub cfg: usize,
    /// Position on the `ring` axis.
    pub ring: usize,
    /// Position on the `ulysses` axis.
    pub ulysses: usize,
}

impl Coords {
    /// Position on one axis.
    pub const fn on(&self, axis: Axis) -> usize {
        match axis {
            Axis::Cfg => self.cfg,
            Axis::Ring => self.ring,
            Axis::Ulysses => self.ulysses,
        }
    }
}

impl Mesh {
    /// The mesh of a single rank.
    pub const ONE: Self = Self {
        cfg: 1,
        ring: 1,
        ulysses: 1,
    };

    /// Size of one axis.
    pub const fn size(&self, axis: Axis) -> usize {
        match axis {
            Axis::Cfg => self.cfg,
            Axis::Ring => self.ring,
            Axis::Ulysses => self.ulysses,
        }
    }

    /// Number of ranks.
    pub const fn ranks(&self) -> usize {
        self.cfg * self.ring * self.ulysses
    }

    /// Position of `rank` on every axis.
    pub const fn coords(&self, rank: Rank) -> Coords {
        Coords {
            cfg: rank.0 / (self.ring * self.ulysses),
            ring: rank.0 / self.ulysses % self.ring,
            ulysses: rank.0 % self.ulysses,
        }
    }

    /// The rank at `coords`.
    pub const fn rank(&self, coords: Coords) -> Rank {
        Rank((coords.cfg * self.ring + coords.ring) * self.ulysses + coords.ulysses)
    }

    /// The ranks that differ from `rank` on `axis` alone, `rank` included, in axis order.
    pub fn group(&self, rank: Rank, axis: Axis) -> Vec<Rank> {
        let here = self.coords(rank);
        (0..self.size(axis))
            .map(|i| {
                let mut coords = here;
                match axis {
                    Axis::Cfg => coords.cfg = i,
                    Axis::Ring => coords.ring = i,
                    Axis::Ulysses => coords.ulysses = i,
                }
                self.rank(coords)
            })
            .collect()
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cfg={} ring={} ulysses={}",
            self.cfg, self.ring, self.ulysses
        )
    }
}
