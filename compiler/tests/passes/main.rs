//! Tests of the passes, one module per family: text in, snapshot out, and every pass run twice.

#![allow(clippy::unwrap_used, clippy::panic)]

mod clean;
mod cut;
mod emit;
mod fuse;
mod machine;
mod movement;
mod order;
mod precision;
mod refusals;
#[path = "../transformer/mod.rs"]
mod transformer;

use terrace_compiler::ir::Graph;
use terrace_compiler::passes::pipeline::{Pass, passes};
use terrace_compiler::text::{parse, print};
use terrace_compiler::{CompileError, CompileOptions, Provenance, SliceGranularity};
use terrace_plan::{DType, Fingerprint, Mesh};

fn mesh(cfg: usize, ring: usize, ulysses: usize) -> Mesh {
    Mesh { cfg, ring, ulysses }
}

fn options(mesh: Mesh, granularity: SliceGranularity) -> CompileOptions {
    CompileOptions {
        mesh,
        granularity,
        dtype: DType::F32,
        activations: DType::F32,
    }
}

fn provenance(mesh: Mesh) -> Provenance {
    Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: "model".into(),
            shape: "shape".into(),
            dtype: DType::F32,
            mesh: mesh.to_string(),
            kernels: "none".into(),
        },
        request: "{}".into(),
    }
}

fn pass(name: &str) -> &'static Pass {
    let found = passes().iter().find(|pass| pass.name == name);
    found.unwrap_or_else(|| panic!("no pass {name}"))
}

/// A graph on one rank at the stage that the pass expects, from its lines.
fn graph(before: &str, lines: &str) -> Graph {
    let at = passes().iter().position(|pass| pass.name == before);
    let stage = match at.unwrap() {
        0 => "model",
        at => passes()[at - 1].stage.name(),
    };
    let text = format!("mesh <cfg=1 ring=1 ulysses=1>\ngraph g stage={stage} {{\n{lines}\n}}\n");
    parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// What a pass makes of a graph; a second run must change nothing.
fn run(name: &str, graph: Graph, mesh: Mesh) -> Result<String, CompileError> {
    run_with(name, graph, &options(mesh, SliceGranularity::Cell))
}

/// As [`run`], with all options.
fn run_with(
    name: &str,
    mut graph: Graph,
    options: &CompileOptions,
) -> Result<String, CompileError> {
    pass(name).run(&mut graph, options)?;
    let once = print(&graph);
    pass(name).run(&mut graph, options)?;
    assert_eq!(print(&graph), once, "{name} twice");
    Ok(once)
}

/// What a pass makes of lines on one rank.
fn after(name: &str, lines: &str) -> String {
    run(name, graph(name, lines), Mesh::ONE).unwrap()
}

/// What a pass, and all cutting passes before it, make of a fused graph on a mesh.
fn after_cut(name: &str, lines: &str, mesh: Mesh) -> Result<String, CompileError> {
    let mut graph = graph("assign-slices", lines);
    let from = passes()
        .iter()
        .position(|pass| pass.name == "assign-slices")
        .unwrap();
    for pass in passes()[from..].iter().take_while(|pass| pass.name != name) {
        pass.run(&mut graph, &options(mesh, SliceGranularity::Cell))?;
    }
    run(name, graph, mesh)
}
