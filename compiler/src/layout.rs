//! Layouts: where the elements of a cut tensor lie, and the strided copies between two layouts.
//!
//! Two layouts of one tensor name the same factors, in any order of dimensions: a caller's
//! `[b, f, c, y=(h p), x=(w q)]` and a rank's `[b, seq=(t h.w), e=(c p q)]` are copied into each
//! other by matching names. A ragged cut of `h.w` becomes up to three boxes where the other side
//! does not lay rows one after the other.

use crate::ir::{Dim, Factor, Name, Sharding};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use terrace_plan::{BoxCopy, Coords, Mesh};

/// A dense tensor that holds a part of a global tensor.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// Dimensions of the global tensor, in the order of this layout.
    dims: &'a [Dim],
    /// Held ranges of cut groups; other factors are held whole.
    held: BTreeMap<Vec<Name>, Range<usize>>,
    /// A factor that is held once and read for every index.
    repeated: Option<Name>,
}

/// Adjacent factors that lie as one raster in a layout.
struct Unit {
    factors: Vec<Factor>,
    held: Range<usize>,
    stride: usize,
}

/// One loop of a strided copy.
#[derive(Clone, Copy)]
struct Loop {
    extent: usize,
    src: usize,
    dst: usize,
}

/// A box under construction.
#[derive(Clone, Default)]
struct Draft {
    src: usize,
    dst: usize,
    loops: Vec<Loop>,
}

impl<'a> Layout<'a> {
    /// The layout that holds everything.
    pub fn whole(dims: &'a [Dim]) -> Self {
        Self {
            dims,
            held: BTreeMap::new(),
            repeated: None,
        }
    }

    /// The layout of the part that the rank at `coords` holds.
    pub fn part(dims: &'a [Dim], sharding: &Sharding, mesh: &Mesh, coords: Coords) -> Self {
        let held = sharding
            .0
            .iter()
            .map(|(group, partition)| (group.0.clone(), partition.range(mesh, coords)))
            .collect();
        Self {
            dims,
            held,
            repeated: None,
        }
    }

    /// The same layout holding a range of one factor only.
    pub fn taking(mut self, factor: &Name, range: Range<usize>) -> Self {
        self.held.insert(vec![factor.clone()], range);
        self
    }

    /// The same layout holding one index of a factor, which stands for all of them.
    pub fn repeating(mut self, factor: &Name) -> Self {
        self.held.remove(std::slice::from_ref(factor));
        self.repeated = Some(factor.clone());
        self
    }

    /// All choices of one segment per dimension, as factor units with a base offset.
    fn blocks(&self) -> Vec<(usize, Vec<Unit>)> {
        let mut blocks = vec![(0, Vec::new())];
        let mut stride = 1;
        for dim in self.dims.iter().rev() {
            let mut next = Vec::new();
            let mut before = 0;
            for segment in &dim.segments {
                let (size, _) = self.units(&segment.factors, stride);
                for (base, units) in &blocks {
                    let mut all = self.units(&segment.factors, stride).1;
                    all.extend(units.iter().map(Unit::copy));
                    next.push((base + before * stride, all));
                }
                before += size;
            }
            stride *= before;
            blocks = next;
        }
        blocks
    }

    /// Local size of a segment and its units, outermost first.
    fn units(&self, factors: &[Factor], stride: usize) -> (usize, Vec<Unit>) {
        let mut units = Vec::new();
        let mut rest = factors;
        while let Some(first) = rest.first() {
            let cut = self
                .held
                .iter()
                .find(|(names, _)| names.first() == Some(&first.name) && names.len() <= rest.len());
            let (count, held) = match cut {
                Some((names, range)) => (names.len(), range.clone()),
                None => (1, 0..first.size),
            };
            units.push(Unit {
                factors: rest[..count].to_vec(),
                held,
                stride: 0,
            });
            rest = &rest[count..];
        }
        let mut size = 1;
        for unit in units.iter_mut().rev() {
            let repeated = self.repeated.as_ref() == unit.factors.first().map(|f| &f.name);
            if !repeated {
                unit.stride = stride * size;
                size *= unit.held.len();
            }
        }
        (size, units)
    }
}

impl fmt::Display for Layout<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.dims.iter().enumerate() {
            let gap = if i == 0 { "" } else { ", " };
            write!(f, "{gap}{dim}")?;
        }
        f.write_str("]")?;
        for (names, range) in &self.held {
            write!(f, " {}={}..{}", names.join("."), range.start, range.end)?;
        }
        Ok(())
    }
}

impl Unit {
    fn copy(&self) -> Self {
        Self {
            factors: self.factors.clone(),
            held: self.held.clone(),
            stride: self.stride,
        }
    }

    fn size(&self) -> usize {
        self.factors.iter().map(|f| f.size).product()
    }

    fn has(&self, name: &Name) -> bool {
        self.factors.iter().any(|f| f.name == *name)
    }
}

/// The copies that move every element held by both layouts, or `None` when the layouts do not
/// name the same factors or cut them in ways that have no common raster.
pub fn copies(src: &Layout<'_>, dst: &Layout<'_>) -> Option<Vec<BoxCopy>> {
    let sources = src.blocks();
    let mut boxes = Vec::new();
    let mut matched = false;
    for (dst_base, dst_units) in dst.blocks() {
        for (src_base, src_units) in &sources {
            if names(src_units) != names(&dst_units) {
                continue;
            }
            matched = true;
            let start = Draft {
                src: *src_base,
                dst: dst_base,
                loops: Vec::new(),
            };
            let drafts = match_units(start, src_units, &dst_units)?;
            boxes.extend(drafts.into_iter().map(finish));
        }
    }
    matched.then_some(boxes)
}

fn names(units: &[Unit]) -> Vec<&Name> {
    let mut names: Vec<&Name> = units
        .iter()
        .flat_map(|u| u.factors.iter().map(|f| &f.name))
        .collect();
    names.sort();
    names
}

fn match_units(start: Draft, src: &[Unit], dst: &[Unit]) -> Option<Vec<Draft>> {
    let mut drafts = vec![start];
    let mut done: Vec<&Name> = Vec::new();
    for unit in dst.iter().chain(src.iter().filter(|u| u.factors.len() > 1)) {
        if unit.factors.iter().any(|f| done.contains(&&f.name)) {
            continue;
        }
        let wider = src
            .iter()
            .find(|u| u.has(&unit.factors[0].name) && u.factors.len() > unit.factors.len())
            .unwrap_or(unit);
        done.extend(wider.factors.iter().map(|f| &f.name));
        let pieces = pieces(wider, src, dst)?;
        drafts = drafts
            .iter()
            .flat_map(|draft| pieces.iter().map(|piece| join(draft, piece)))
            .collect();
    }
    Some(drafts)
}

fn join(draft: &Draft, piece: &Draft) -> Draft {
    let mut joined = draft.clone();
    joined.src += piece.src;
    joined.dst += piece.dst;
    joined.loops.extend(&piece.loops);
    joined
}

/// The copies over the factors of one unit.
fn pieces(unit: &Unit, src: &[Unit], dst: &[Unit]) -> Option<Vec<Draft>> {
    let on = |units: &[Unit]| -> Option<Vec<Unit>> {
        let parts: Vec<Unit> = units
            .iter()
            .filter(|u| unit.factors.iter().any(|f| u.has(&f.name)))
            .map(Unit::copy)
            .collect();
        let covered: usize = parts.iter().map(|u| u.factors.len()).sum();
        (covered == unit.factors.len()).then_some(parts)
    };
    let (src, dst) = (as_raster(on(src)?, unit), as_raster(on(dst)?, unit));
    let range = intersect(held(&src, unit)?, held(&dst, unit)?);
    if range.is_empty() {
        return Some(Vec::new());
    }
    if let ([s], [d]) = (src.as_slice(), dst.as_slice()) {
        return Some(vec![Draft {
            src: (range.start - s.held.start) * s.stride,
            dst: (range.start - d.held.start) * d.stride,
            loops: vec![Loop {
                extent: range.len(),
                src: s.stride,
                dst: d.stride,
            }],
        }]);
    }
    let sizes: Vec<usize> = unit.factors.iter().map(|f| f.size).collect();
    let boxes = raster_boxes(range, &sizes);
    let drafts = boxes.into_iter().map(|(first, extents)| {
        let (src_offset, src_strides) = place(unit, &src, &first);
        let (dst_offset, dst_strides) = place(unit, &dst, &first);
        let loops = extents
            .iter()
            .zip(src_strides.iter().zip(&dst_strides))
            .map(|(&extent, (&src, &dst))| Loop { extent, src, dst })
            .collect();
        Draft {
            src: src_offset,
            dst: dst_offset,
            loops,
        }
    });
    Some(drafts.collect())
}

/// Where the box that begins at `first` lies on one side, and its strides by factor of `unit`.
fn place(unit: &Unit, side: &[Unit], first: &[usize]) -> (usize, Vec<usize>) {
    match side {
        [raster] => {
            let sizes: Vec<usize> = unit.factors.iter().map(|f| f.size).collect();
            let dense = raster_strides(&sizes, 1);
            let index: usize = first.iter().zip(dense).map(|(i, s)| i * s).sum();
            let strides = raster_strides(&sizes, raster.stride);
            ((index - raster.held.start) * raster.stride, strides)
        }
        split => {
            let stride = |f: &Factor| {
                let unit = split.iter().find(|u| u.has(&f.name));
                unit.map_or(0, |u| u.stride)
            };
            let strides: Vec<usize> = unit.factors.iter().map(stride).collect();
            let offset = first.iter().zip(&strides).map(|(i, s)| i * s).sum();
            (offset, strides)
        }
    }
}

/// Joins units that lie one after the other, in the order of `raster`, into one.
fn as_raster(units: Vec<Unit>, raster: &Unit) -> Vec<Unit> {
    let whole = units.iter().all(|u| u.held == (0..u.size()));
    let dense = units
        .windows(2)
        .all(|w| w[0].stride == w[1].stride * w[1].size());
    let ordered = units.iter().flat_map(|u| &u.factors).eq(&raster.factors);
    match units.last() {
        Some(last) if units.len() > 1 && whole && dense && ordered => vec![Unit {
            factors: raster.factors.clone(),
            held: 0..raster.size(),
            stride: last.stride,
        }],
        _ => units,
    }
}

/// The range of the unit's raster that one side holds.
fn held(side: &[Unit], unit: &Unit) -> Option<Range<usize>> {
    match side {
        [only] => Some(only.held.clone()),
        split => split
            .iter()
            .all(|u| u.factors.len() == 1 && u.held == (0..u.size()))
            .then(|| 0..unit.size()),
    }
}

fn intersect(a: Range<usize>, b: Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

fn raster_strides(sizes: &[usize], last: usize) -> Vec<usize> {
    let mut strides = vec![last; sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i] * sizes[i];
    }
    strides
}

/// Boxes `(first index, extents)` that cover a range of the raster over `sizes`.
fn raster_boxes(range: Range<usize>, sizes: &[usize]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let Some((_, inner)) = sizes.split_first() else {
        return Vec::new();
    };
    if inner.is_empty() {
        return vec![(vec![range.start], vec![range.len()])];
    }
    let row: usize = inner.iter().product();
    let mut boxes = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (index, inside) = (at / row, at % row);
        let rows = (range.end - at) / row;
        if inside == 0 && rows > 0 {
            let mut first = vec![0; sizes.len()];
            first[0] = index;
            let extents = std::iter::once(rows).chain(inner.iter().copied()).collect();
            boxes.push((first, extents));
            at += rows * row;
        } else {
            let end = range.end.min((index + 1) * row);
            for (first, extents) in raster_boxes(inside..end - index * row, inner) {
                let first = std::iter::once(index).chain(first).collect();
                let extents = std::iter::once(1).chain(extents).collect();
                boxes.push((first, extents));
            }
            at = end;
        }
    }
    boxes
}

/// Orders loops by stride, drops trivial ones and merges those that are one.
fn finish(mut draft: Draft) -> BoxCopy {
    draft.loops.retain(|l| l.extent != 1);
    draft
        .loops
        .sort_by_key(|l| std::cmp::Reverse((l.dst, l.src)));
    let mut merged: Vec<Loop> = Vec::new();
    for inner in draft.loops {
        match merged.last_mut() {
            Some(outer)
                if outer.src == inner.src * inner.extent
                    && outer.dst == inner.dst * inner.extent =>
            {
                *outer = Loop {
                    extent: outer.extent * inner.extent,
                    ..inner
                };
            }
            _ => merged.push(inner),
        }
    }
    if merged.is_empty() {
        merged.push(Loop {
            extent: 1,
            src: 1,
            dst: 1,
        });
    }
    BoxCopy {
        extents: merged.iter().map(|l| l.extent).collect(),
        src_offset: draft.src,
        src_strides: merged.iter().map(|l| l.src).collect(),
        dst_offset: draft.dst,
        dst_strides: merged.iter().map(|l| l.dst).collect(),
    }
}
