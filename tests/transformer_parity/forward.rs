//! One forward. Every folder of `goldens/` that holds a transformer is run: one rank within 1e-5 of the
//! reference, other meshes bit for bit like one rank, or within 1e-5 where a ring merges partial
//! results in another order.

use crate::cases::{Case, Weights, cases, meshes, relative_error, run, try_plan};
use crate::device::{device, tolerance};
use terrace::Device;
use terrace_compiler::ir::Graph;
use terrace_compiler::ops::{Op, Output};
use terrace_compiler::{CompileError, SliceGranularity};
use terrace_models::config::ConfigFile;
use terrace_models::transformer::{ForwardShape, TransformerConfig};
use terrace_plan::{Mesh, PositionKind};

/// Relative L2 error of the CPU against the reference.
const TOLERANCE: f64 = 1e-5;

#[test]
fn one_rank_equals_the_reference() {
    let cases = cases();
    assert!(cases.len() >= 22, "{} cases", cases.len());
    for case in &cases {
        let sample = case.run(Mesh::ONE, SliceGranularity::Cell);
        let error = relative_error(&sample, case.expected());
        assert!(error <= tolerance(TOLERANCE), "{case}: {error:e}");
    }
}

#[test]
fn rotary_tables_equal_the_reference() {
    let mut compared = 0;
    for case in cases() {
        let (Some(cos), Some(sin)) = (case.tensor("rope_cos"), case.tensor("rope_sin")) else {
            continue;
        };
        let table = run_table(&case);
        let d = cos.shape()[1];
        let parts = [(cos, 0), (sin, d)];
        for (expected, first) in parts {
            let rows = table.chunks_exact(2 * d).map(|row| &row[first..first + d]);
            let found: Vec<f32> = rows.flatten().copied().collect();
            let expected = expected.as_f32().unwrap();
            assert_eq!(found.len(), expected.len(), "{case}");
            let worst = found
                .iter()
                .zip(expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 2e-6, "{case}: {worst:e}");
        }
        compared += 1;
    }
    assert!(compared >= 15, "{compared} tables");
}

/// Every mesh that the case has enough rows, cells, heads and videos for.
#[test]
fn every_mesh_equals_one_rank() {
    let compared: usize = cases().iter().map(compare_meshes).sum();
    let expected = match device() {
        Device::Cpu => 500,
        Device::Wgpu { .. } | Device::Cuda { .. } => 150,
    };
    assert!(compared > expected, "{compared} meshes");
}

/// The heads of 2b, which neither 4 nor 7 ranks divide, with made weights.
#[test]
fn thirty_heads_run_on_any_number_of_ranks() {
    let config = r#"{
        "_class_name": "CogVideoXTransformer3DModel", "num_attention_heads": 30,
        "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 24,
        "text_embed_dim": 20, "num_layers": 1, "max_text_seq_length": 7
    }"#;
    let file = ConfigFile::parse("config.json", config).unwrap();
    let shape = ForwardShape {
        batch: 1,
        frames: 2,
        height: 60,
        width: 4,
        text: 7,
    };
    let case = Case::made(TransformerConfig::from_config(file).unwrap(), shape);
    let single = case.run(Mesh::ONE, SliceGranularity::Cell);
    for ulysses in [4, 7, 8] {
        for granularity in [SliceGranularity::Row, SliceGranularity::Cell] {
            let mesh = Mesh {
                ulysses,
                ..Mesh::ONE
            };
            assert!(case.run(mesh, granularity) == single, "{ulysses} ranks");
        }
    }
}

fn compare_meshes(case: &Case) -> usize {
    let mut compared = 0;
    let single = case.run(Mesh::ONE, SliceGranularity::Cell);
    for mesh in meshes().filter(|m| m.ranks() > 1) {
        for granularity in [SliceGranularity::Row, SliceGranularity::Cell] {
            let legal = mesh.cfg <= case.batch()
                && mesh.ulysses <= case.config.num_attention_heads
                && mesh.ring * mesh.ulysses <= case.slices(granularity);
            let plan = match (try_plan(case.graph(), mesh, granularity), legal) {
                (Ok(plan), true) => plan,
                (Err(CompileError::TooManyRanks { .. }), false) => continue,
                (result, _) => panic!("{case} on {mesh:?}: {:?}", result.map(|p| p.mesh)),
            };
            let sample = run(plan, &case.weights, &case.inputs(), "sample");
            let error = relative_error(&sample, &single);
            let limit = if mesh.ring > 1 {
                tolerance(TOLERANCE)
            } else {
                0.0
            };
            assert!(
                error <= limit,
                "{case} on {mesh:?} by {granularity:?}: {error:e}"
            );
            compared += 1;
        }
    }
    compared
}

/// The rotary table of a case's graph, computed alone.
fn run_table(case: &Case) -> Vec<f32> {
    let graph = case.graph();
    let table = graph
        .order()
        .into_iter()
        .map(|id| graph.node(id).op.clone())
        .find_map(|op| match op {
            Op::PositionTable(t) if matches!(t.kind, PositionKind::Rotary { .. }) => Some(t),
            _ => None,
        })
        .expect("a rotary table");
    let host = vec![table.rows.clone(), table.out.clone()];
    let mut alone = Graph::new("table");
    let op = Op::PositionTable(table);
    let table = alone.add(op, &[], "table").unwrap();
    let name = "table".to_owned();
    let output = Op::Output(Output { name, host });
    alone.add(output, &[table], "table").unwrap();
    let plan = try_plan(alone, Mesh::ONE, SliceGranularity::Cell).unwrap();
    run(plan, &Weights::none(), &[], "table")
}
