//! Whether a plan fits the GPUs, before anything of it is brought to them.
//!
//! Invariant: what is counted is the least that the plan needs; what libraries need of scratch is known and refused when
//! the memory of a rank is allocated. Every GPU has a copy of every weight.

use super::gpu::Gpu;
use crate::RuntimeError;
use std::fmt;
use std::sync::Arc;
use terrace_kernels::cuda::{CudaFault, WORKSPACE};
use terrace_plan::{DType, Plan, Rank, Weight, WeightLayout};

/// Bytes that a plan needs on one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    ranks: usize,
    weights: usize,
    activations: usize,
    state: usize,
}

/// Refuses a plan whose `weights`, those that are not on the GPUs yet, and `ranks` need more than is free.
pub(super) fn check(
    gpus: &[Arc<Gpu>],
    plan: &Plan,
    ranks: &[Rank],
    weights: &[&Weight],
) -> Result<(), RuntimeError> {
    for (index, gpu) in gpus.iter().enumerate() {
        let here = ranks.iter().filter(|rank| rank.0 % gpus.len() == index);
        let need = Need::of(plan, here.copied(), weights);
        let memory = gpu.device().memory()?;
        if need.bytes() > memory.free {
            return Err(CudaFault::OutOfMemory {
                ordinal: gpu.device().ordinal(),
                what: format!("the plan of `{}` ({need})", plan.header.graph),
                bytes: need.bytes(),
                free: memory.free,
                total: memory.total,
            }
            .into());
        }
    }
    Ok(())
}

impl Need {
    fn of(plan: &Plan, ranks: impl Iterator<Item = Rank>, weights: &[&Weight]) -> Self {
        let weights = weights.iter().map(|weight| of_weight(weight));
        let mut need = Self {
            ranks: 0,
            weights: weights.fold(0, usize::saturating_add),
            activations: 0,
            state: 0,
        };
        for rank in ranks.filter_map(|rank| plan.ranks.get(rank.0)) {
            need.ranks += 1;
            need.activations = need.activations.saturating_add(rank.arena_bytes);
            need.state = need.state.saturating_add(rank.state_bytes);
        }
        need
    }

    fn bytes(self) -> usize {
        let scratch = WORKSPACE.saturating_mul(self.ranks);
        [self.weights, self.activations, self.state]
            .into_iter()
            .fold(scratch, usize::saturating_add)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.ranks == 1 { "" } else { "s" };
        write!(
            f,
            "{} bytes of weights, {} of activations and {} of state of {} rank{plural}",
            self.weights, self.activations, self.state, self.ranks
        )
    }
}

/// Bytes of a weight as a GPU stores it.
fn of_weight(weight: &Weight) -> usize {
    let elements = |bytes: usize| weight.len.saturating_mul(bytes);
    match weight.layout {
        WeightLayout::Plain => elements(DType::F32.bytes()),
        WeightLayout::Linear => elements(weight.dtype.bytes()),
        // As cuDNN reads it, and as the kernel for f32 activations does.
        WeightLayout::Conv3d if weight.dtype != DType::F32 => elements(2 * weight.dtype.bytes()),
        WeightLayout::Conv3d => elements(weight.dtype.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Need, WORKSPACE, of_weight};
    use terrace_plan::{
        DType, Fingerprint, Header, Mesh, Plan, Rank, RankPlan, Weight, WeightLayout,
    };

    fn weight(layout: WeightLayout, dtype: DType, len: usize) -> Weight {
        Weight {
            sources: Vec::new(),
            dtype,
            shape: vec![len],
            layout,
            boxes: Vec::new(),
            len,
        }
    }

    fn plan(arenas: &[usize]) -> Plan {
        let ranks = arenas.iter().map(|&arena_bytes| RankPlan {
            arena_bytes,
            state_bytes: 10,
            buffers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            patterns: Vec::new(),
            init: Vec::new(),
            steps: Vec::new(),
        });
        Plan {
            header: Header {
                format: Header::FORMAT,
                producer: "test".to_owned(),
                graph: "test".to_owned(),
                fingerprint: Fingerprint {
                    model: String::new(),
                    shape: String::new(),
                    dtype: DType::Bf16,
                    mesh: Mesh::ONE.to_string(),
                    kernels: String::new(),
                },
                request: String::new(),
            },
            mesh: Mesh::ONE,
            partitions: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            carries: Vec::new(),
            weights: Vec::new(),
            collectives: Vec::new(),
            origins: Vec::new(),
            ranks: ranks.collect(),
        }
    }

    #[test]
    fn a_plan_needs_its_weights_once_and_the_memory_of_every_rank() {
        let (linear, plain) = (
            weight(WeightLayout::Linear, DType::Bf16, 1000),
            weight(WeightLayout::Plain, DType::Bf16, 10),
        );
        let plan = plan(&[100, 200, 400]);
        let need = Need::of(&plan, [Rank(0), Rank(2)].into_iter(), &[&linear, &plain]);
        assert_eq!(need.bytes(), 2040 + 500 + 20 + 2 * WORKSPACE);
        assert_eq!(
            need.to_string(),
            "2040 bytes of weights, 500 of activations and 20 of state of 2 ranks"
        );
        // Weights that are there already are not among those that are given.
        let again = Need::of(&plan, [Rank(1)].into_iter(), &[]);
        assert_eq!(again.bytes(), 210 + WORKSPACE);
    }

    #[test]
    fn narrow_convolutions_are_there_in_two_forms() {
        for (dtype, bytes) in [(DType::F32, 400), (DType::Bf16, 400), (DType::F16, 400)] {
            assert_eq!(of_weight(&weight(WeightLayout::Conv3d, dtype, 100)), bytes);
        }
    }
}
