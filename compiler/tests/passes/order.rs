//! The pipeline as a whole: its order, and every pass run twice at its place.

use crate::transformer::Step;
use crate::{mesh, options};
use terrace_compiler::ops::{Affine, Presence};
use terrace_compiler::passes::pipeline::{names, passes, run};
use terrace_compiler::text::{parse, print};
use terrace_compiler::{CompileOptions, SliceGranularity};
use terrace_plan::{DType, Mesh};

#[test]
fn the_order_is_this() {
    let names: Vec<&str> = names().collect();
    let expected = "canonicalize fold-constants dedup remove-dead fuse-qkv fuse-qk-norm-rope \
        fuse-modulate fuse-epilogue hoist-modulation choose-precision cast-activations assign-slices \
        propagate-sharding insert-reshards elide-reshards lower-attention lower-reshards schedule";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn every_pass_run_twice_is_the_pass_run_once() {
    let plain = Step {
        qk_norm: None,
        rotary: Presence::Absent,
        qkv_bias: Presence::Absent,
        ..Step::SMALL
    };
    let unaffine = Step {
        qk_norm: Some(Affine::None),
        ..Step::SMALL
    };
    for step in [Step::SMALL, plain, unaffine] {
        for mesh in [Mesh::ONE, mesh(1, 1, 3), mesh(2, 3, 2)] {
            for activations in [DType::F32, DType::F16] {
                let options = CompileOptions {
                    activations,
                    ..options(mesh, SliceGranularity::Cell)
                };
                let mut graph = step.graph();
                for pass in passes() {
                    pass.run(&mut graph, &options).unwrap();
                    let once = print(&graph);
                    pass.run(&mut graph, &options).unwrap();
                    assert_eq!(print(&graph), once, "{} twice on {mesh}", pass.name);
                }
            }
        }
    }
}

#[test]
fn every_pass_is_observed_and_its_graph_parses_back() {
    let mut graph = Step::SMALL.graph();
    let mut seen = Vec::new();
    let options = options(mesh(2, 2, 2), SliceGranularity::Row);
    run(&mut graph, &options, &mut |name, graph| {
        seen.push(name);
        let text = print(graph);
        assert_eq!(print(&parse(&text).unwrap()), text, "{name}");
    })
    .unwrap();
    assert!(seen.into_iter().eq(names()));
}
