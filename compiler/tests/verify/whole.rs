//! A whole transformer step, on many meshes: the pipeline keeps every invariant, the parts of
//! ranks keep those of stage local, and every graph on the way has a text that comes back.

use crate::transformer::Step;
use terrace_compiler::ir::Stage;
use terrace_compiler::passes::{localize, pipeline};
use terrace_compiler::text::parse;
use terrace_compiler::verify::verify;
use terrace_compiler::{CompileOptions, SliceGranularity};
use terrace_plan::{DType, Mesh, Rank};

fn options(cfg: usize, ring: usize, ulysses: usize) -> CompileOptions {
    CompileOptions {
        mesh: Mesh { cfg, ring, ulysses },
        granularity: SliceGranularity::Cell,
        dtype: DType::F32,
        activations: DType::F32,
    }
}

#[test]
fn every_pass_keeps_the_invariants_and_the_text() {
    for options in [
        options(1, 1, 1),
        options(2, 3, 1),
        options(1, 2, 3),
        options(2, 2, 2),
    ] {
        let mut graph = Step::SMALL.graph();
        pipeline::run(&mut graph, &options, &mut |pass, graph| {
            let back = parse(&graph.to_string()).unwrap_or_else(|e| panic!("{pass}: {e}"));
            assert!(back == *graph, "{pass}");
        })
        .unwrap_or_else(|e| panic!("{}: {e}", options.mesh));
        for rank in (0..options.mesh.ranks()).map(Rank) {
            let local = localize::run(&graph, rank);
            verify(&local, Stage::Local).unwrap();
            assert!(parse(&local.to_string()).unwrap() == local);
        }
    }
}
