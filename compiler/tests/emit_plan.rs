//! Plans of a small denoising step on many meshes: every one passes `Plan::check`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod transformer;

use std::collections::BTreeMap;
use terrace_compiler::ops::{Affine, Guidance, Presence};
use terrace_compiler::{CompileError, CompileOptions, Provenance, SliceGranularity, compile};
use terrace_plan::{
    Action, Collective, CollectiveKind, DType, Fingerprint, Mesh, Plan, Rank, Region,
};
use transformer::Step;

fn provenance(mesh: Mesh) -> Provenance {
    Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: "block".into(),
            shape: "small".into(),
            dtype: DType::F32,
            mesh: mesh.to_string(),
            kernels: "none".into(),
        },
        request: "{}".into(),
    }
}

fn plan(step: Step, mesh: Mesh, granularity: SliceGranularity) -> Result<Plan, CompileError> {
    plan_of(step, mesh, granularity, DType::F32)
}

/// A plan whose products and activations have the type `dtype`.
fn plan_of(
    step: Step,
    mesh: Mesh,
    granularity: SliceGranularity,
    dtype: DType,
) -> Result<Plan, CompileError> {
    let options = CompileOptions {
        mesh,
        granularity,
        dtype,
        activations: dtype,
    };
    compile(step.graph(), &options, &provenance(mesh), &mut |_, _| {})
}

fn mesh(cfg: usize, ring: usize, ulysses: usize) -> Mesh {
    Mesh { cfg, ring, ulysses }
}

fn small(mesh: Mesh) -> Plan {
    plan(Step::SMALL, mesh, SliceGranularity::Cell).unwrap()
}

fn meshes() -> impl Iterator<Item = Mesh> {
    let pairs = (1..=4).flat_map(|ring| (1..=5).map(move |ulysses| (ring, ulysses)));
    pairs.flat_map(|(ring, ulysses)| [mesh(1, ring, ulysses), mesh(2, ring, ulysses)])
}

#[test]
fn activations_of_16_bits_halve_what_is_exchanged() {
    for mesh in meshes() {
        let of = |dtype| plan_of(Step::SMALL, mesh, SliceGranularity::Cell, dtype).unwrap();
        let (single, half) = (of(DType::F32), of(DType::F16));
        assert_eq!(half.check(), Ok(()), "{mesh}");
        let bytes = |plan: &Plan| -> Vec<Vec<Vec<u64>>> {
            let moved = |c: &Collective| c.kind != CollectiveKind::AllGather;
            plan.collectives
                .iter()
                .filter(|c| moved(c))
                .map(|c| c.bytes.clone())
                .collect()
        };
        let doubled: Vec<Vec<Vec<u64>>> = bytes(&half)
            .into_iter()
            .map(|rows| {
                rows.into_iter()
                    .map(|row| row.into_iter().map(|b| 2 * b).collect())
                    .collect()
            })
            .collect();
        assert_eq!(bytes(&single), doubled, "{mesh}");
        assert_eq!(half.carries, single.carries);
        assert_eq!(
            (&half.inputs, &half.outputs),
            (&single.inputs, &single.outputs)
        );
    }
}

#[test]
fn every_mesh_gives_a_valid_plan_and_equal_bytes() {
    let rows = Step::SMALL.grid[1];
    for mesh in meshes() {
        for granularity in [SliceGranularity::Row, SliceGranularity::Cell] {
            let first = match plan(Step::SMALL, mesh, granularity) {
                Err(CompileError::TooManyRanks { .. }) if mesh.ring * mesh.ulysses > rows => {
                    assert_eq!(granularity, SliceGranularity::Row, "{mesh}");
                    continue;
                }
                other => other.unwrap_or_else(|e| panic!("{mesh} {granularity:?}: {e}")),
            };
            assert_eq!(first.check(), Ok(()), "{mesh} {granularity:?}");
            assert_eq!(first.ranks.len(), mesh.ranks());
            let second = plan(Step::SMALL, mesh, granularity).unwrap();
            assert!(
                first.to_json().unwrap() == second.to_json().unwrap(),
                "{mesh}"
            );
        }
    }
}

#[test]
fn every_variant_gives_a_valid_plan() {
    for guidance in [Guidance::None, Guidance::ClassifierFree] {
        for qk_norm in [None, Some(Affine::None), Some(Affine::WeightBias)] {
            for rotary in [Presence::Absent, Presence::Present] {
                for qkv_bias in [Presence::Absent, Presence::Present] {
                    let step = Step {
                        guidance,
                        qk_norm,
                        rotary,
                        qkv_bias,
                        ..Step::SMALL
                    };
                    for mesh in [Mesh::ONE, mesh(1, 2, 3)] {
                        plan(step, mesh, SliceGranularity::Cell).unwrap();
                    }
                }
            }
        }
    }
}

fn launches(plan: &Plan) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    let rank = &plan.ranks[0];
    for step in rank.init.iter().chain(&rank.steps) {
        if let Action::Launch(call) = &step.action {
            *counts.entry(call.name()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn a_step_needs_few_kernels() {
    let expected = [
        ("advance", 1),
        ("attention", 2),
        ("denoise", 1),
        ("join", 1),
        // Two embeddings, two of the time step, one modulation, four per block, the projection.
        ("linear", 2 + 2 + 1 + 2 * 4 + 1),
        ("norm_modulate", 2 * 2 + 2),
        ("position_table", 1),
        ("qk_norm_rope", 2),
        ("timestep_embedding", 1),
    ];
    assert_eq!(launches(&small(Mesh::ONE)), BTreeMap::from(expected));
}

#[test]
fn the_latents_carry_over() {
    let plan = small(Mesh::ONE);
    assert_eq!(plan.carries.len(), 1);
    assert_eq!(plan.outputs[plan.carries[0].output].name, "latents");
    assert_eq!(plan.inputs[plan.carries[0].input].name, "latents");
}

#[test]
fn tables_of_positions_are_computed_once() {
    let plan = small(Mesh::ONE);
    let init = &plan.ranks[0].init;
    assert!(matches!(&init[0].action, Action::Launch(call) if call.name() == "position_table"));
    assert_eq!(init.len(), 1);
}

#[test]
fn a_ring_shift_travels_during_an_attention_step() {
    let step = Step {
        blocks: 1,
        ..Step::SMALL
    };
    let plan = plan(step, mesh(1, 3, 1), SliceGranularity::Cell).unwrap();
    let kinds: Vec<&str> = plan.ranks[1]
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Launch(call) if call.name().starts_with("attention") => Some(call.name()),
            Action::Exchange { .. } => Some("exchange"),
            Action::Wait { .. } => Some("wait"),
            Action::Launch(_) | Action::Copy { .. } | Action::Free { .. } => None,
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "exchange",
            "attention_step",
            "wait",
            "exchange",
            "attention_step",
            "wait",
            "attention_step",
            "attention_finish",
        ]
    );
}

#[test]
fn buffers_of_the_arena_are_reused() {
    let plan = small(Mesh::ONE);
    let rank = &plan.ranks[0];
    let stacked: usize = rank
        .buffers
        .iter()
        .filter(|b| b.region == Region::Arena)
        .filter_map(terrace_plan::Buffer::bytes)
        .sum();
    assert!(
        rank.arena_bytes < stacked,
        "{} < {stacked}",
        rank.arena_bytes
    );
}

/// Guidance is the only exchange over cfg: latents stay where they are from step to step.
#[test]
fn nothing_but_predictions_crosses_the_cfg_axis() {
    let plan = small(mesh(2, 1, 1));
    let video: usize = Step::SMALL.grid.iter().product();
    let prediction = (video * 16 * 4) as u64;
    assert_eq!(plan.collectives.len(), 1);
    assert_eq!(plan.collectives[0].members, [Rank(0), Rank(1)]);
    assert_eq!(
        plan.collectives[0].bytes,
        [[0, prediction], [prediction, 0]]
    );
}

/// 17 776 tokens on four ranks: 4444 each, although 226, 30 and 17 550 do not divide by four.
#[test]
fn the_text_makes_uneven_slices_equal() {
    let step = Step {
        blocks: 1,
        heads: 30,
        text: 226,
        grid: [13, 30, 45],
        ..Step::SMALL
    };
    let plan = plan(step, mesh(1, 2, 2), SliceGranularity::Cell).unwrap();
    let offsets = |name: &str| {
        let found = plan.partitions.iter().find(|p| p.factors == name).unwrap();
        (&found.offsets, found.repeat)
    };
    let ((text, _), (cells, frames)) = (offsets("txt"), offsets("h.w"));
    let tokens =
        |rank: usize| text[rank + 1] - text[rank] + frames * (cells[rank + 1] - cells[rank]);
    assert_eq!([0, 1, 2, 3].map(tokens), [4444; 4]);
}

/// One word on eight ranks: those without text still take part in every exchange.
#[test]
fn ranks_may_be_without_text() {
    let step = Step {
        text: 1,
        ..Step::SMALL
    };
    let plan = plan(step, mesh(1, 4, 2), SliceGranularity::Row).unwrap();
    let text = plan.partitions.iter().find(|p| p.factors == "txt").unwrap();
    assert_eq!(text.offsets.windows(2).filter(|w| w[0] == w[1]).count(), 7);
}

/// The whole of the largest model on many ranks: what grows is linear in blocks and ranks.
#[test]
fn forty_two_blocks_compile_for_sixty_four_ranks() {
    let step = Step {
        blocks: 42,
        heads: 48,
        head_dim: 64,
        text: 226,
        grid: [13, 30, 45],
        ..Step::SMALL
    };
    let plan = plan(step, mesh(2, 4, 8), SliceGranularity::Cell).unwrap();
    let steps: Vec<usize> = plan.ranks.iter().map(|rank| rank.steps.len()).collect();
    assert_eq!(steps.len(), 64);
    assert!(steps.iter().all(|&n| n < 42 * 60), "{steps:?}");
    assert_eq!(plan.collectives.len(), 42 * (2 * 8 + 3 * 16) + 32);
}
