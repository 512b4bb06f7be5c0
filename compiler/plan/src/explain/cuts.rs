//! How the work is cut: partitions in the units that people think in, and the part of each rank.

use super::facts::{Balance, Cut, Part, Quantity, Tokens};
use crate::{NamedPartition, Plan, Rank};

/// Every partition of the plan; raster cuts that hit row borders only are counted in rows.
pub(super) fn cuts(plan: &Plan) -> Vec<Cut> {
    plan.partitions.iter().map(cut).collect()
}

fn cut(partition: &NamedPartition) -> Cut {
    let (quantity, cells) = quantity(partition);
    let offsets: Vec<usize> = partition.offsets.iter().map(|o| o / cells).collect();
    let lengths: Vec<usize> = offsets
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .collect();
    Cut {
        factors: partition.factors.clone(),
        sizes: partition.sizes.clone(),
        quantity,
        tokens_per_unit: match quantity {
            Quantity::Text | Quantity::Cells | Quantity::Rows => {
                cells.saturating_mul(partition.repeat)
            }
            Quantity::Heads | Quantity::Batch | Quantity::Other => 0,
        },
        axes: partition.axes.clone(),
        offsets,
        balance: Balance::of(&lengths),
    }
}

/// What a partition counts, and how many elements of its factors one unit is.
fn quantity(partition: &NamedPartition) -> (Quantity, usize) {
    match partition.factors.as_str() {
        "txt" => (Quantity::Text, 1),
        "n" => (Quantity::Heads, 1),
        "b" => (Quantity::Batch, 1),
        "h.w" => {
            let width = partition.sizes.get(1).copied().unwrap_or(1).max(1);
            if partition.offsets.iter().all(|offset| offset % width == 0) {
                (Quantity::Rows, width)
            } else {
                (Quantity::Cells, 1)
            }
        }
        _ => (Quantity::Other, 1),
    }
}

/// The rank's part of every cut.
pub(super) fn parts(plan: &Plan, cuts: &[Cut], rank: Rank) -> Vec<Option<Part>> {
    cuts.iter().map(|cut| part(plan, cut, rank)).collect()
}

fn part(plan: &Plan, cut: &Cut, rank: Rank) -> Option<Part> {
    // An unchecked plan may have a mesh without ranks, which has no coordinates.
    let mesh = plan.mesh;
    mesh.ring.checked_mul(mesh.ulysses).filter(|&n| n > 0)?;
    let coords = mesh.coords(rank);
    let mut index = 0usize;
    for &axis in &cut.axes {
        index = index
            .checked_mul(mesh.size(axis))?
            .checked_add(coords.on(axis))?;
    }
    Some(Part {
        start: *cut.offsets.get(index)?,
        end: *cut.offsets.get(index.checked_add(1)?)?,
    })
}

/// Tokens of one batch item on the rank, when the token grid is cut.
pub(super) fn tokens(cuts: &[Cut], parts: &[Option<Part>]) -> Option<Tokens> {
    let of = |wanted: &[Quantity]| {
        cuts.iter()
            .zip(parts)
            .find(|(cut, _)| wanted.contains(&cut.quantity))
            .and_then(|(cut, part)| Some((*part)?.len().saturating_mul(cut.tokens_per_unit)))
    };
    let video = of(&[Quantity::Cells, Quantity::Rows])?;
    Some(Tokens::new(of(&[Quantity::Text]).unwrap_or(0), video))
}
