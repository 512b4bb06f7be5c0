//! assign-slices: decides the height slices, and with them every other cut.
//!
//! The `(h w)` raster of the token grid is cut evenly over the ranks of ring x ulysses, at rows or
//! at cells; the text is cut so that it fills up the shorter slices; heads are cut over ulysses,
//! the batch over cfg. Nothing else in the compiler chooses a number.
//!
//! ```text
//! before  graph block {
//! after   mesh <cfg=1 ring=2 ulysses=2>
//!         graph block {   slices rows{txt: ring,ulysses[0 50 113 163 226], ...} heads{...}
//! ```
//!
//! Refuses meshes that have more ranks than there are rows, cells, heads or batch items to cut,
//! and graphs without a token grid on more than one rank.

use crate::ir::{Factor, Graph, Partition, Segment, Slices};
use crate::ops::Op;
use crate::partition::{even_offsets, fill_offsets, lengths, merge_parts};
use crate::{CompileError, CompileOptions, SliceGranularity};
use terrace_plan::{Axis, Mesh};

/// Runs the pass.
///
/// # Errors
/// The graph cannot be cut over the mesh.
pub fn run(graph: &mut Graph, options: &CompileOptions) -> Result<(), CompileError> {
    graph.mesh = options.mesh;
    graph.slices = Slices::default();
    if options.mesh.ranks() == 1 {
        return Ok(());
    }
    graph.slices = slices(&Extents::of(graph)?, options)?;
    Ok(())
}

/// What there is to cut.
struct Extents {
    batch: Factor,
    text: Option<Factor>,
    grid: Segment,
    heads: Factor,
}

impl Extents {
    fn of(graph: &Graph) -> Result<Self, CompileError> {
        let whole = || CompileError::NothingToSlice {
            graph: graph.name().into(),
            ranks: graph.mesh.ranks(),
        };
        let attention = graph
            .order()
            .into_iter()
            .find(|&id| matches!(graph.node(id).op, Op::Attention(_)))
            .ok_or_else(whole)?;
        let ty = &graph.node(attention).ty;
        let find = |name: &str| ty.factor(name).cloned();
        let grid = ty
            .dims
            .iter()
            .flat_map(|d| &d.segments)
            .find(|s| s.factors.iter().any(|f| &*f.name == "h"))
            .ok_or_else(whole)?;
        Ok(Self {
            batch: find("b").ok_or_else(whole)?,
            text: find("txt"),
            grid: grid.clone(),
            heads: find("n").ok_or_else(whole)?,
        })
    }

    /// The `(h, w)` factors and the tokens that every cell of their raster carries.
    fn raster(&self) -> (Vec<Factor>, usize) {
        let (plane, rest): (Vec<Factor>, Vec<Factor>) = self
            .grid
            .factors
            .iter()
            .cloned()
            .partition(|f| matches!(&*f.name, "h" | "w"));
        (plane, rest.iter().map(|f| f.size).product())
    }
}

fn slices(extents: &Extents, options: &CompileOptions) -> Result<Slices, CompileError> {
    let mesh = options.mesh;
    let parts = mesh.ring * mesh.ulysses;
    let (plane, tokens_per_cell) = extents.raster();
    let cells = cell_offsets(&plane, parts, options.granularity)?;
    let loads: Vec<usize> = lengths(&cells)
        .iter()
        .map(|n| n * tokens_per_cell)
        .collect();

    let mut slices = Slices::default();
    let mut cut = |factors: &[Factor], offsets: &[usize]| {
        push(
            &mut slices.rows,
            &mesh,
            factors,
            &[Axis::Ring, Axis::Ulysses],
            offsets.to_vec(),
        );
        let merged = merge_parts(offsets, mesh.ulysses);
        push(&mut slices.heads, &mesh, factors, &[Axis::Ring], merged);
    };
    cut(&plane, &cells);
    if let Some(text) = &extents.text {
        cut(std::slice::from_ref(text), &fill_offsets(text.size, &loads));
    }

    let batch = std::slice::from_ref(&extents.batch);
    let batch_offsets = enough(
        Axis::Cfg,
        mesh.cfg,
        "batch items (guided predictions)",
        extents.batch.size,
    )?;
    push(
        &mut slices.rows,
        &mesh,
        batch,
        &[Axis::Cfg],
        batch_offsets.clone(),
    );
    push(&mut slices.heads, &mesh, batch, &[Axis::Cfg], batch_offsets);
    let heads = std::slice::from_ref(&extents.heads);
    let head_offsets = enough(
        Axis::Ulysses,
        mesh.ulysses,
        "attention heads",
        extents.heads.size,
    )?;
    push(
        &mut slices.heads,
        &mesh,
        heads,
        &[Axis::Ulysses],
        head_offsets,
    );
    Ok(slices)
}

fn cell_offsets(
    plane: &[Factor],
    parts: usize,
    granularity: SliceGranularity,
) -> Result<Vec<usize>, CompileError> {
    let width: usize = plane.iter().skip(1).map(|f| f.size).product();
    let rows = plane.first().map_or(1, |f| f.size);
    let (units, unit, name) = match granularity {
        SliceGranularity::Row => (rows, width, "rows of the token grid"),
        SliceGranularity::Cell => (rows * width, 1, "cells of the token grid"),
    };
    if parts > units {
        return Err(CompileError::TooManyRanks {
            axis: "ring x ulysses".into(),
            degree: parts,
            what: name.into(),
            available: units,
        });
    }
    Ok(even_offsets(units, parts)
        .iter()
        .map(|o| o * unit)
        .collect())
}

fn enough(axis: Axis, degree: usize, what: &str, size: usize) -> Result<Vec<usize>, CompileError> {
    if degree > size {
        return Err(CompileError::TooManyRanks {
            axis: axis.name().into(),
            degree,
            what: what.into(),
            available: size,
        });
    }
    Ok(even_offsets(size, degree))
}

/// Adds a cut, leaving out axes of size one.
fn push(
    cuts: &mut Vec<(Vec<Factor>, Partition)>,
    mesh: &Mesh,
    factors: &[Factor],
    axes: &[Axis],
    offsets: Vec<usize>,
) {
    let axes: Vec<Axis> = axes.iter().copied().filter(|&a| mesh.size(a) > 1).collect();
    if !axes.is_empty() {
        cuts.push((factors.to_vec(), Partition::new(axes, offsets)));
    }
}
