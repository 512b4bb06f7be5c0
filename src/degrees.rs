//! Degrees: how many ranks go to which axis of the mesh, decided before anything is compiled.
//!
//! Rule for a number of ranks alone: cfg takes two when predictions and ranks are both even in number;
//! the rest is split into ring x ulysses with the least imbalance, and of equal splits the one
//! with the larger ulysses degree, whose result is bit-identical to one rank. The imbalance of a
//! split is that of the tokens of a rank, times that of its heads and of its block of keys.
//!
//! Refuses degrees that do not multiply to the number of ranks, and degrees that have nothing to cut.

use crate::Error;
use terrace_compiler::SliceGranularity;
use terrace_compiler::partition::{even_offsets, fill_offsets, lengths, merge_parts};
use terrace_plan::Mesh;

/// The most that the cfg axis divides: the conditional and the unconditional prediction.
const BRANCHES: usize = 2;

/// What there is to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Predictions per step: two with classifier-free guidance.
    pub batch: usize,
    /// Attention heads.
    pub heads: usize,
    /// Text tokens.
    pub text: usize,
    /// Token grid: frames, rows, columns.
    pub grid: [usize; 3],
    /// Where slices may be cut.
    pub granularity: SliceGranularity,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degrees {
    /// Ranks in all.
    pub ranks: Option<usize>,
    /// Degree of the cfg axis.
    pub cfg: Option<usize>,
    /// Degree of the ring axis.
    pub ring: Option<usize>,
    /// Degree of the ulysses axis.
    pub ulysses: Option<usize>,
}

impl Degrees {
    /// One rank.
    pub const ONE: Self = Self {
        ranks: Some(1),
        cfg: None,
        ring: None,
        ulysses: None,
    };

    /// The degrees of a mesh.
    pub const fn of(mesh: Mesh) -> Self {
        Self {
            ranks: None,
            cfg: Some(mesh.cfg),
            ring: Some(mesh.ring),
            ulysses: Some(mesh.ulysses),
        }
    }

    /// The degrees among so many processes, one rank each.
    ///
    /// # Errors
    /// [`Error::Processes`] for another number of ranks.
    pub const fn among(self, processes: usize) -> Result<Self, Error> {
        match self.ranks {
            Some(ranks) if ranks != processes => Err(Error::Processes { ranks, processes }),
            Some(_) | None => Ok(Self {
                ranks: Some(processes),
                ..self
            }),
        }
    }

    /// The mesh: given degrees are taken as they are, those left out are one; a number of ranks
    /// alone is split by the rule of this module.
    ///
    /// # Errors
    /// [`Error::Product`] for degrees that do not multiply to the number of ranks, [`Error::Degree`]
    /// for a degree that has nothing to cut, with the nearest legal choice.
    pub fn mesh(&self, extents: &Extents) -> Result<Mesh, Error> {
        let given = [self.cfg, self.ring, self.ulysses];
        if given.iter().chain([&self.ranks]).any(|d| *d == Some(0)) {
            return Err(Error::ZeroDegree);
        }
        if given.iter().all(Option::is_none) {
            return choose(self.ranks.unwrap_or(1), extents);
        }
        let mesh = Mesh {
            cfg: self.cfg.unwrap_or(1),
            ring: self.ring.unwrap_or(1),
            ulysses: self.ulysses.unwrap_or(1),
        };
        let product = mesh
            .cfg
            .checked_mul(mesh.ring)
            .and_then(|n| n.checked_mul(mesh.ulysses));
        match (product, self.ranks) {
            (Some(product), Some(ranks)) if product != ranks => {
                return Err(Error::Product {
                    mesh,
                    product,
                    ranks,
                });
            }
            (None, _) => return Err(too_many(usize::MAX, extents)),
            (Some(_), _) => {}
        }
        check(mesh, extents)?;
        Ok(mesh)
    }
}

/// The most even legal mesh of exactly `ranks` ranks.
fn choose(ranks: usize, extents: &Extents) -> Result<Mesh, Error> {
    meshes(ranks, extents)
        .into_iter()
        .min_by(|a, b| {
            let order = imbalance(a, extents).total_cmp(&imbalance(b, extents));
            b.cfg
                .cmp(&a.cfg)
                .then(order)
                .then(b.ulysses.cmp(&a.ulysses))
        })
        .ok_or_else(|| too_many(ranks, extents))
}

/// Every legal mesh of `ranks` ranks, in order of ulysses degree.
fn meshes(ranks: usize, extents: &Extents) -> Vec<Mesh> {
    let mut found = Vec::new();
    for cfg in (1..=even_branches(extents)).filter(|c| ranks.is_multiple_of(*c)) {
        let slices = ranks / cfg;
        if slices > units(extents).0 {
            continue;
        }
        for ulysses in (1..=extents.heads.min(slices)).filter(|u| slices.is_multiple_of(*u)) {
            found.push(Mesh {
                cfg,
                ring: slices / ulysses,
                ulysses,
            });
        }
    }
    found
}

/// Parts of equal size that the cfg axis can make of the batch: guidance has two branches.
fn even_branches(extents: &Extents) -> usize {
    if extents.batch > 0 && extents.batch.is_multiple_of(BRANCHES) {
        BRANCHES
    } else {
        1
    }
}

/// Highest load over mean load.
fn imbalance(mesh: &Mesh, extents: &Extents) -> f64 {
    let parts = mesh.ring * mesh.ulysses;
    let [t, _, _] = extents.grid;
    let (units, cells_per_unit, _) = units(extents);
    let cells: Vec<usize> = even_offsets(units, parts)
        .iter()
        .map(|o| o * cells_per_unit)
        .collect();
    let video: Vec<usize> = lengths(&cells).iter().map(|n| n * t).collect();
    let text = fill_offsets(extents.text, &video);
    let tokens = |cells: &[usize], text: &[usize]| -> Vec<usize> {
        let pairs = lengths(cells).into_iter().zip(lengths(text));
        pairs.map(|(cells, text)| cells * t + text).collect()
    };
    let merged = |offsets: &[usize]| merge_parts(offsets, mesh.ulysses);
    let rows = spread(&tokens(&cells, &text));
    let blocks = spread(&tokens(&merged(&cells), &merged(&text)));
    let heads = spread(&lengths(&even_offsets(extents.heads, mesh.ulysses)));
    rows.max(blocks * heads)
}

fn spread(loads: &[usize]) -> f64 {
    let total: usize = loads.iter().sum();
    let highest = loads.iter().max().copied().unwrap_or(0);
    if total == 0 {
        return 1.0;
    }
    (highest * loads.len()) as f64 / total as f64
}

/// How many units slices are cut from, cells per unit, and what the units are called.
fn units(extents: &Extents) -> (usize, usize, &'static str) {
    let [_, h, w] = extents.grid;
    match extents.granularity {
        SliceGranularity::Row => (h, w, "rows of the token grid"),
        SliceGranularity::Cell => (h * w, 1, "cells of the token grid"),
    }
}

fn check(mesh: Mesh, extents: &Extents) -> Result<(), Error> {
    let (units, _, unit) = units(extents);
    let refuse = |axis, degree, available, what| Error::Degree {
        axis,
        degree,
        available,
        what,
    };
    let branches = extents.batch.min(BRANCHES);
    if mesh.cfg > branches {
        let what = "predictions per step (two with guidance)";
        return Err(refuse("cfg", mesh.cfg, branches, what));
    }
    if mesh.ulysses > extents.heads {
        return Err(refuse(
            "ulysses",
            mesh.ulysses,
            extents.heads,
            "attention heads",
        ));
    }
    let slices = mesh.ring * mesh.ulysses;
    if slices > units {
        return Err(refuse("ring x ulysses", slices, units, unit));
    }
    Ok(())
}

fn too_many(ranks: usize, extents: &Extents) -> Error {
    let (units, _, unit) = units(extents);
    let batch = even_branches(extents);
    let most = batch * units;
    let nearest = (1..=ranks.min(most))
        .rev()
        .find(|&n| !meshes(n, extents).is_empty())
        .unwrap_or(1);
    Error::Ranks {
        ranks,
        nearest,
        units,
        unit,
        batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL_2B: Extents = Extents {
        batch: 1,
        heads: 30,
        text: 226,
        grid: [13, 30, 45],
        granularity: SliceGranularity::Cell,
    };

    fn ranks(n: usize) -> Degrees {
        Degrees {
            ranks: Some(n),
            ..Degrees::default()
        }
    }

    fn mesh(cfg: usize, ring: usize, ulysses: usize) -> Mesh {
        Mesh { cfg, ring, ulysses }
    }

    #[test]
    fn cfg_comes_first_then_the_least_imbalance() {
        let guided = Extents {
            batch: 2,
            ..FULL_2B
        };
        let chosen = |n, extents: &Extents| ranks(n).mesh(extents).unwrap();
        assert_eq!(chosen(2, &guided), mesh(2, 1, 1));
        assert_eq!(chosen(8, &guided), mesh(2, 2, 2));
        assert_eq!(chosen(3, &guided), mesh(1, 1, 3));
        assert_eq!(chosen(4, &FULL_2B), mesh(1, 2, 2));
        assert_eq!(chosen(5, &FULL_2B), mesh(1, 1, 5));
        assert_eq!(chosen(7, &FULL_2B), mesh(1, 7, 1));
    }

    #[test]
    fn batches_are_divided_by_two_at_most() {
        let three = Extents {
            batch: 3,
            ..FULL_2B
        };
        assert_eq!(ranks(6).mesh(&three).unwrap(), mesh(1, 1, 6));
        let given = |cfg| Degrees {
            cfg: Some(cfg),
            ..Degrees::default()
        };
        assert_eq!(given(2).mesh(&three).unwrap(), mesh(2, 1, 1));
        assert_eq!(
            given(3).mesh(&three).unwrap_err().to_string(),
            "cfg degree 3 cannot be served: there are 2 predictions per step (two with guidance); use \
             cfg degree 2 or less"
        );
        let four = Extents {
            batch: 4,
            ..FULL_2B
        };
        assert_eq!(ranks(4).mesh(&four).unwrap(), mesh(2, 1, 2));
    }

    #[test]
    fn more_ranks_than_heads_use_the_ring() {
        let few = Extents {
            heads: 2,
            ..FULL_2B
        };
        assert_eq!(ranks(5).mesh(&few).unwrap(), mesh(1, 5, 1));
    }

    #[test]
    fn too_many_ranks_name_the_nearest_legal_number() {
        let rows = Extents {
            batch: 2,
            granularity: SliceGranularity::Row,
            ..FULL_2B
        };
        let error = ranks(61).mesh(&rows).unwrap_err();
        assert_eq!(
            error.to_string(),
            "61 ranks cannot be served: 2 predictions per step (cfg) x 30 rows of the token grid \
             (ring x ulysses) are all there is to cut; use 60 ranks"
        );
    }

    #[test]
    fn degrees_must_multiply_to_the_ranks() {
        let degrees = Degrees {
            ulysses: Some(2),
            ..ranks(4)
        };
        assert_eq!(
            degrees.mesh(&FULL_2B).unwrap_err().to_string(),
            "degrees cfg=1 ring=1 ulysses=2 make 2 ranks, but 4 ranks are asked for; give degrees \
             whose product is 4, or the number of ranks alone"
        );
    }

    #[test]
    fn every_process_is_a_rank() {
        let guided = Extents {
            batch: 2,
            ..FULL_2B
        };
        let found = |degrees: Degrees| degrees.among(6)?.mesh(&guided);
        assert_eq!(found(Degrees::default()).unwrap(), mesh(2, 1, 3));
        assert_eq!(found(ranks(6)).unwrap(), mesh(2, 1, 3));
        let error = found(ranks(4)).unwrap_err().to_string();
        assert!(error.starts_with("4 ranks are asked for, but 6 processes were started"));
        let half = Degrees {
            ulysses: Some(3),
            ..Degrees::default()
        };
        let error = found(half).unwrap_err().to_string();
        assert!(
            error.contains("make 3 ranks, but 6 ranks are asked for"),
            "{error}"
        );
    }

    #[test]
    fn a_degree_beyond_what_it_cuts_names_the_limit() {
        let degrees = Degrees {
            ulysses: Some(31),
            ..Degrees::default()
        };
        assert_eq!(
            degrees.mesh(&FULL_2B).unwrap_err().to_string(),
            "ulysses degree 31 cannot be served: there are 30 attention heads; use ulysses degree \
             30 or less"
        );
    }
}
