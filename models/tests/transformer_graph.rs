//! Graphs of published checkpoints as op counts, ports and parameters.

#![allow(clippy::unwrap_used)]

mod common;

use common::config;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use terrace_compiler::ir::{Graph, Type};
use terrace_compiler::ops::Op;
use terrace_models::transformer::{ForwardShape, Guidance, NoiseSource, Solver, StepShape};
use terrace_models::transformer::{denoise_step, forward};

/// Ports, op counts, and the number of distinct parameters.
fn summary(graph: &Graph) -> String {
    let mut text = String::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut parameters = 0;
    for id in graph.order() {
        let node = graph.node(id);
        let host = |dims: &[_]| Type::new(node.ty.dtype, dims.to_vec());
        *counts.entry(node.op.name()).or_default() += 1;
        if let Op::Input(input) = &node.op {
            writeln!(text, "in  {} {}", input.name, host(&input.host)).unwrap();
        } else if let Op::Output(output) = &node.op {
            writeln!(text, "out {} {}", output.name, host(&output.host)).unwrap();
        } else if let Op::Weight(weight) = &node.op {
            assert!(names.insert(weight.sources[0].name.clone()), "read once");
            parameters += node.ty.elements();
        }
    }
    for (op, count) in counts {
        writeln!(text, "{op} {count}").unwrap();
    }
    writeln!(text, "{parameters} parameters in {} tensors", names.len()).unwrap();
    text
}

fn forward_of(model: &str, batch: usize, frames: usize) -> Graph {
    let config = config(model);
    let shape = ForwardShape {
        batch,
        frames,
        height: config.sample_height,
        width: config.sample_width,
        text: config.max_text_seq_length,
    };
    forward(&config, &shape).unwrap()
}

fn step_of(model: &str, frames: usize, guidance: Guidance, solver: Solver) -> Graph {
    let config = config(model);
    let shape = StepShape {
        frames,
        height: config.sample_height,
        width: config.sample_width,
        text: config.max_text_seq_length,
        guidance,
        solver,
    };
    denoise_step(&config, &shape).unwrap()
}

#[test]
fn forward_of_2b() {
    insta::assert_snapshot!(summary(&forward_of("2b", 1, 13)));
}

#[test]
fn forward_of_5b_image_to_video() {
    insta::assert_snapshot!(summary(&forward_of("5b-i2v", 2, 13)));
}

#[test]
fn forward_of_1_5_image_to_video() {
    insta::assert_snapshot!(summary(&forward_of("1.5-5b-i2v", 1, 22)));
}

#[test]
fn guided_step_of_5b() {
    let graph = step_of("5b", 13, Guidance::ClassifierFree, Solver::Ddim);
    insta::assert_snapshot!(summary(&graph));
}

#[test]
fn guided_step_of_1_5_with_made_noise() {
    let solver = Solver::Dpm(NoiseSource::Generated);
    let graph = step_of("1.5-5b", 22, Guidance::ClassifierFree, solver);
    insta::assert_snapshot!(summary(&graph));
}

#[test]
fn step_of_2b_with_given_noise() {
    let solver = Solver::Dpm(NoiseSource::Given);
    let graph = step_of("2b", 13, Guidance::None, solver);
    insta::assert_snapshot!(summary(&graph));
}

#[test]
fn another_length_than_the_stored_positions_has_computed_ones() {
    let reads = |frames| {
        let text = summary(&forward_of("5b-i2v", 1, frames));
        text.lines()
            .find_map(|line| line.strip_prefix("position_table "))
            .map(str::to_owned)
    };
    assert_eq!(reads(13), Some("1".into()));
    assert_eq!(reads(5), Some("2".into()));
}
