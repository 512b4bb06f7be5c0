//! Tables that all ranks share: weights and model paths, each entry once.

use crate::CompileError;
use crate::ir::{Node, Path};
use crate::layout::{Layout, copies};
use crate::ops;
use std::collections::BTreeMap;
use terrace_plan::{Coords, Mesh, OriginId, Weight, WeightId};

/// Distinct weights in order of first use.
#[derive(Default)]
pub(super) struct Weights {
    ids: BTreeMap<Weight, WeightId>,
    list: Vec<Weight>,
}

/// Distinct model paths in order of first use.
#[derive(Default)]
pub(super) struct Origins {
    ids: BTreeMap<Path, OriginId>,
    list: Vec<String>,
}

impl Weights {
    /// The weight of `node` as the rank at `coords` holds it.
    pub(super) fn intern(
        &mut self,
        node: &Node,
        weight: &ops::Weight,
        mesh: &Mesh,
        coords: Coords,
    ) -> Result<WeightId, CompileError> {
        let held = hold(node, weight, mesh, coords)?;
        if let Some(&id) = self.ids.get(&held) {
            return Ok(id);
        }
        let id = WeightId(self.list.len());
        self.ids.insert(held.clone(), id);
        self.list.push(held);
        Ok(id)
    }

    pub(super) fn into_list(self) -> Vec<Weight> {
        self.list
    }
}

impl Origins {
    pub(super) fn intern(&mut self, path: &Path) -> OriginId {
        if let Some(&id) = self.ids.get(path) {
            return id;
        }
        let id = OriginId(self.list.len());
        self.ids.insert(path.clone(), id);
        self.list.push(path.to_string());
        id
    }

    pub(super) fn into_list(self) -> Vec<String> {
        self.list
    }
}

fn hold(
    node: &Node,
    weight: &ops::Weight,
    mesh: &Mesh,
    coords: Coords,
) -> Result<Weight, CompileError> {
    let (boxes, len) = if node.sharding.is_replicated() {
        (Vec::new(), node.ty.elements())
    } else {
        let whole = Layout::whole(&node.ty.dims);
        let part = Layout::part(&node.ty.dims, &node.sharding, mesh, coords);
        let boxes = copies(&whole, &part).ok_or_else(|| CompileError::Layout {
            path: node.path.to_string(),
            from: whole.to_string(),
            to: part.to_string(),
        })?;
        let local = node.sharding.localize(&node.ty, mesh, coords);
        (boxes, local.elements())
    };
    Ok(Weight {
        sources: weight.sources.clone(),
        dtype: node.ty.dtype,
        shape: node.ty.shape(),
        layout: weight.layout,
        boxes,
        len,
    })
}
