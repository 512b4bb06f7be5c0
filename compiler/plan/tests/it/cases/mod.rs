//! Valid plans with one edit each, and what the check says about them, word for word.

mod calls;
mod exchanges;
mod ranks;
mod steps;
mod tables;
mod weights;

use crate::build::Spec;
use terrace_plan::*;

/// An edited plan and every message that it must give.
pub struct Case {
    pub plan: Plan,
    pub expected: Vec<&'static str>,
}

/// Every case.
pub fn all() -> Vec<Case> {
    [
        tables::cases(),
        weights::cases(),
        ranks::cases(),
        exchanges::cases(),
        steps::cases(),
        calls::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Two ranks with an uneven exchange, edited.
fn two(edit: fn(&mut Plan), expected: &[&'static str]) -> Case {
    edited(Spec::two().plan(), edit, expected)
}

fn edited(mut plan: Plan, edit: fn(&mut Plan), expected: &[&'static str]) -> Case {
    assert_eq!(plan.check(), Ok(()));
    edit(&mut plan);
    Case {
        plan,
        expected: expected.to_vec(),
    }
}

/// Two ranks that do nothing: ports, steps and exchanges are gone.
fn bare() -> Plan {
    let mut plan = Spec::two().plan();
    plan.inputs.clear();
    plan.outputs.clear();
    plan.carries.clear();
    plan.collectives.clear();
    for rank in &mut plan.ranks {
        let empty = Buffer {
            region: Region::Arena,
            offset: 0,
            dtype: DType::F32,
            len: 0,
        };
        *rank = RankPlan {
            buffers: vec![empty.clone(), empty.clone(), empty],
            inputs: Vec::new(),
            outputs: Vec::new(),
            patterns: vec![Pattern::default()],
            init: Vec::new(),
            steps: Vec::new(),
            ..rank.clone()
        };
    }
    plan
}

/// An exchange among both ranks that moves nothing.
fn idle() -> Collective {
    Collective {
        kind: CollectiveKind::AllToAll,
        axis: Axis::Ulysses,
        members: vec![Rank(0), Rank(1)],
        bytes: vec![vec![0, 0], vec![0, 0]],
    }
}

/// Exchange `id` from buffer 0 to buffer `dst` of a bare plan.
fn begin(id: usize, dst: usize) -> Step {
    crate::build::step(
        0,
        Action::Exchange {
            collective: CollectiveId(id),
            pattern: PatternId(0),
            src: BufferId(0),
            dst: BufferId(dst),
        },
    )
}

fn wait(id: usize) -> Step {
    let collective = CollectiveId(id);
    crate::build::step(0, Action::Wait { collective })
}

fn free(buffer: BufferId) -> Step {
    crate::build::step(2, Action::Free { buffer })
}

fn call(plan: &mut Plan, step: usize) -> &mut KernelCall {
    match &mut plan.ranks[0].steps[step].action {
        Action::Launch(call) => call,
        other => panic!("step {step} is {other:?}"),
    }
}
