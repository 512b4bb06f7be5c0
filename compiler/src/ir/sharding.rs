//! Shardings: which mesh axes cut which factors, and where.
//!
//! A [`Partition`] is a list of offsets, so uneven parts are the normal case. A [`Group`] is a run
//! of adjacent factors cut as one raster: `h.w` is cut by cells, whether or not a cut falls on a
//! row. Factors that no entry names are replicated.

use super::{Factor, Name, Type};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use terrace_plan::{Axis, Coords, Mesh};

/// Adjacent factors of one segment, cut as one raster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub Vec<Name>);

/// Offsets of a group's raster over mesh axes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Axes that cut the group, outermost first; at least one.
    pub axes: Vec<Axis>,
    /// One more offset than there are parts, from zero to the size of the group.
    pub offsets: Vec<usize>,
    /// How far parts have travelled along the ring: the rank at ring position `r` holds the part
    /// of position `r - shift`. Zero outside ring attention.
    pub shift: usize,
}

/// The cut of one tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sharding(pub BTreeMap<Group, Partition>);

/// The cuts that assign-slices has decided for the whole graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    /// Cuts outside attention: batch over cfg, text and cells over ring and ulysses.
    pub rows: Vec<(Vec<Factor>, Partition)>,
    /// Cuts inside attention: batch over cfg, text and cells over ring, heads over ulysses.
    pub heads: Vec<(Vec<Factor>, Partition)>,
}

impl Group {
    /// A group from names, outermost first.
    pub fn new(names: &[&str]) -> Self {
        Self(names.iter().map(|&n| n.into()).collect())
    }
}

impl Partition {
    /// A partition without shift.
    pub fn new(axes: Vec<Axis>, offsets: Vec<usize>) -> Self {
        Self {
            axes,
            offsets,
            shift: 0,
        }
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The part held at `coords`, as an index.
    pub fn index(&self, mesh: &Mesh, coords: Coords) -> usize {
        self.axes.iter().fold(0, |index, &axis| {
            let size = mesh.size(axis);
            let at = match axis {
                Axis::Ring => (coords.on(axis) + size - self.shift % size) % size,
                Axis::Cfg | Axis::Ulysses => coords.on(axis),
            };
            index * size + at
        })
    }

    /// The part held at `coords`, as a range of the group's raster.
    pub fn range(&self, mesh: &Mesh, coords: Coords) -> Range<usize> {
        let index = self.index(mesh, coords);
        self.offsets[index]..self.offsets[index + 1]
    }
}

impl Sharding {
    /// The sharding of a tensor that every rank holds whole.
    pub fn replicated() -> Self {
        Self::default()
    }

    /// The entries of `cuts` whose factors, by name and size, are adjacent in a segment of `ty`.
    pub fn of(ty: &Type, cuts: &[(Vec<Factor>, Partition)]) -> Self {
        let mut entries = BTreeMap::new();
        for (factors, partition) in cuts {
            let present = ty
                .dims
                .iter()
                .flat_map(|d| &d.segments)
                .any(|s| s.factors.windows(factors.len()).any(|w| w == factors));
            if present {
                let names = factors.iter().map(|f| f.name.clone()).collect();
                entries.insert(Group(names), partition.clone());
            }
        }
        Self(entries)
    }

    /// The entry whose group begins with this factor.
    pub fn starting_at(&self, factor: &str) -> Option<(&Group, &Partition)> {
        self.0
            .iter()
            .find(|(g, _)| g.0.first().is_some_and(|n| &**n == factor))
    }

    /// The entry whose group contains this factor.
    pub fn cutting(&self, factor: &str) -> Option<(&Group, &Partition)> {
        self.0
            .iter()
            .find(|(g, _)| g.0.iter().any(|n| &**n == factor))
    }

    /// Whether nothing is cut.
    pub fn is_replicated(&self) -> bool {
        self.0.is_empty()
    }

    /// The type of the part held at `coords`: a cut group becomes one factor named after it.
    pub fn localize(&self, ty: &Type, mesh: &Mesh, coords: Coords) -> Type {
        let mut local = ty.clone();
        for segment in local.dims.iter_mut().flat_map(|d| &mut d.segments) {
            let mut factors = Vec::with_capacity(segment.factors.len());
            let mut rest = segment.factors.as_slice();
            while let Some(first) = rest.first() {
                match self.starting_at(&first.name) {
                    Some((group, partition)) => {
                        factors.push(Factor {
                            name: group.to_string().into(),
                            size: partition.range(mesh, coords).len(),
                        });
                        rest = rest.get(group.0.len()..).unwrap_or_default();
                    }
                    None => {
                        factors.push(first.clone());
                        rest = &rest[1..];
                    }
                }
            }
            segment.factors = factors;
        }
        local
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            write!(f, "{dot}{name}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, axis) in self.axes.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{axis}")?;
        }
        f.write_str("[")?;
        for (i, offset) in self.offsets.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{offset}")?;
        }
        f.write_str("]")?;
        if self.shift != 0 {
            write!(f, ">>{}", self.shift)?;
        }
        Ok(())
    }
}

impl fmt::Display for Sharding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("@{")?;
        for (i, (group, partition)) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { ", " };
            write!(f, "{gap}{group}: {partition}")?;
        }
        f.write_str("}")
    }
}
