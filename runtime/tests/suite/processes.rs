//! Sessions with one rank per process: the numbers of local ranks, and one error when something goes wrong.

use crate::common::{
    Fault, Faulty, among, counting, gather_plan, ring_plan, session, through, transpose_plan,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use terrace_plan::Plan;
use terrace_runtime::{Cpu, HostTensor, RuntimeError, Session};

/// Longer than any of these runs may take, stalls included.
const BOUND: Duration = Duration::from_secs(20);

/// Limit of a wait in tests of stalls.
const TIMEOUT: Duration = Duration::from_secs(1);

fn run(_: usize, session: &mut Session) -> Result<Vec<f32>, RuntimeError> {
    let shape = session.plan().inputs[0].shape.clone();
    session.set("x", &counting(&shape))?;
    // The second run finds nothing left of the first.
    session.run()?;
    session.run()?;
    Ok(session.get("y")?.as_f32()?.to_vec())
}

/// The output of local ranks, which is that of processes on every rank.
fn same_as_local(plan: &Plan) {
    let x = counting(&plan.inputs[0].shape);
    let local = through(&mut session(plan.clone()).unwrap(), &x);
    let ranks = plan.ranks.len();
    let found = among(ranks, BOUND, |_| Cpu, |_| plan.clone(), run);
    for (rank, found) in found.into_iter().enumerate() {
        let found = found.unwrap();
        assert!(found == local, "{} rank {rank}", plan.header.graph);
    }
}

#[test]
fn processes_compute_what_local_ranks_compute() {
    same_as_local(&gather_plan(&[2, 3, 1]));
    // A rank that has nothing sends nothing.
    same_as_local(&gather_plan(&[3, 0, 2, 0]));
    same_as_local(&transpose_plan(&[0, 3, 4, 9], &[0, 1, 5, 7]));
    same_as_local(&ring_plan(4, 5));
    same_as_local(&gather_plan(&[4]));
}

#[test]
fn transfers_beyond_what_the_network_holds_do_not_wait_for_each_other() {
    let edges = [0, 2000, 4000];
    same_as_local(&transpose_plan(&edges, &edges));
    same_as_local(&ring_plan(3, 3_000_000));
}

/// The error of every rank when one of three has a fault.
fn errors(fault: Fault, timeout: Duration) -> Vec<String> {
    let begun = Instant::now();
    let release = std::sync::Mutex::new(Vec::new());
    let backend = |rank| {
        // A fault of rank 3 is none.
        let backend = match rank {
            1 => Faulty::new(1, Some(0), fault),
            _ => Faulty::new(3, None, fault),
        };
        release.lock().unwrap().push(Arc::clone(&backend.release));
        backend
    };
    let plan = |_| gather_plan(&[2, 3, 1]);
    let run = |rank, session: &mut Session| {
        let result = run(rank, session);
        for release in &*release.lock().unwrap() {
            release.store(true, Ordering::SeqCst);
        }
        result
    };
    let found = among(3, timeout, backend, plan, run);
    assert!(begun.elapsed() < BOUND);
    let found = found.into_iter();
    found.map(|found| found.unwrap_err().to_string()).collect()
}

#[test]
fn a_rank_that_fails_stops_the_processes_of_all() {
    let found = errors(Fault::Fail, BOUND);
    let cause = "rank 1, step 0 of 4, gate_add at `ff` failed: kernel gate_add: argument `fault` must be \
                 absent, found injected";
    assert_eq!(found[1], cause);
    for rank in [0, 2] {
        let expected = format!("stopped, because another rank has failed: {cause}");
        assert_eq!(found[rank], expected);
    }
}

#[test]
fn a_rank_that_panics_stops_the_processes_of_all() {
    let found = errors(Fault::Panic, BOUND);
    let cause = "rank 1, step 0 of 4, gate_add at `ff` panicked: index 7 is out of range; this is a bug, \
                 please report it";
    assert_eq!(found[1], cause);
    assert!(found[0].ends_with(cause) && found[2].ends_with(cause));
}

#[test]
fn a_stalled_exchange_prints_where_the_ranks_of_all_processes_are() {
    let found = errors(Fault::Stall, TIMEOUT);
    let places = "no rank has made progress for 1s. The ranks are at:\n  \
                  rank 0, step 2 of 4, wait for all_gather (collective 0) at `attn1`\n  \
                  rank 1, step 0 of 4, gate_add at `ff`\n  \
                  rank 2, step 2 of 4, wait for all_gather (collective 0) at `attn1`";
    // One of those that wait notices first.
    for error in found {
        assert!(error.contains(places), "{error}");
    }
}

#[test]
fn a_process_that_leaves_in_the_middle_is_named() {
    let begun = Instant::now();
    let leave = |rank, session: &mut Session| {
        session.set("x", &counting(&[6]))?;
        session.run()?;
        match rank {
            2 => Ok(()),
            _ => session.run(),
        }
    };
    let found = among(3, BOUND, |_| Cpu, |_| gather_plan(&[2, 3, 1]), leave);
    assert!(begun.elapsed() < BOUND);
    for (rank, found) in found.into_iter().enumerate() {
        match found {
            Ok(()) => assert_eq!(rank, 2),
            Err(error) => {
                let error = error.to_string();
                let own = "wait for all_gather (collective 0) at `attn1` failed: rank 2 is gone: its \
                           connection has ended (last seen: rank 2";
                assert!(error.contains(own), "{error}");
            }
        }
    }
}

#[test]
fn processes_with_other_plans_are_refused() {
    let plan = |rank| match rank {
        1 => gather_plan(&[3, 2]),
        _ => gather_plan(&[2, 3]),
    };
    for found in among(2, BOUND, |_| Cpu, plan, run) {
        let error = found.unwrap_err().to_string();
        assert!(error.contains("the plan of rank "), "{error}");
        assert!(
            error.contains("start all processes with the same"),
            "{error}"
        );
    }
    for found in among(3, BOUND, |_| Cpu, plan, run) {
        let error = found.unwrap_err().to_string();
        assert!(
            error.contains("the plan has 2 ranks, but 3 processes were started"),
            "{error}"
        );
    }
}

#[test]
fn a_session_that_cannot_be_made_is_heard_of_everywhere() {
    let plan = |_| {
        let mut plan = gather_plan(&[2, 3]);
        plan.ranks[1].arena_bytes = usize::MAX / 2 / 64 * 64;
        plan
    };
    let found = among(2, BOUND, |_| Cpu, plan, run);
    for (rank, found) in found.into_iter().enumerate() {
        let error = found.unwrap_err().to_string();
        assert!(error.contains("rank 1: cannot allocate"), "{error}");
        assert_eq!(error.starts_with("stopped, because another"), rank == 0);
    }
}

#[test]
fn outputs_are_whole_in_every_process() {
    let tensor = |_, session: &mut Session| -> Result<HostTensor, RuntimeError> {
        session.set("x", &counting(&[6]))?;
        session.run()?;
        // It may be asked for again.
        session.get("y")?;
        session.get("y")
    };
    for found in among(3, BOUND, |_| Cpu, |_| gather_plan(&[2, 3, 1]), tensor) {
        let found = found.unwrap();
        let row = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0];
        assert_eq!(found.as_f32().unwrap(), row.repeat(3));
    }
}
