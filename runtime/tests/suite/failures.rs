//! Ranks that fail, panic or stall: one message, in bounded time, and no memory lost or freed early.

use crate::common::{Fault, Faulty, counting, gather_plan, options, positions_plan, text};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use terrace_plan::{Plan, Region};
use terrace_runtime::{Checkpoint, HostTensor, RuntimeError, Session, SessionOptions, WeightCache};

/// Longer than any of these runs may take, stalls included.
const BOUND: Duration = Duration::from_secs(10);

/// Limit of a wait in tests of stalls.
const TIMEOUT: Duration = Duration::from_secs(1);

fn faulty(plan: Plan, backend: Faulty, timeout: Duration) -> Session {
    let options = SessionOptions {
        timeout,
        ..options()
    };
    let mut session = Session::new(
        Arc::new(backend),
        Arc::new(plan),
        &Checkpoint::empty(),
        &WeightCache::new(),
        options,
    )
    .unwrap();
    let shape = session.plan().inputs[0].shape.clone();
    session.set("x", &counting(&shape)).unwrap();
    session
}

/// The error of a run that must end in time.
fn failure(session: &mut Session) -> String {
    let start = Instant::now();
    let message = text(session.run());
    assert!(start.elapsed() < BOUND);
    message
}

#[test]
fn a_kernel_that_fails_stops_all_ranks() {
    for rank in 0..3 {
        let backend = Faulty::new(rank, Some(0), Fault::Fail);
        let alive = Arc::clone(&backend.alive);
        let mut session = faulty(gather_plan(&[2, 3, 1]), backend, BOUND);
        let cause = format!(
            "rank {rank}, step 0 of 4, gate_add at `ff` failed: kernel gate_add: argument `fault` \
             must be absent, found injected"
        );
        assert_eq!(failure(&mut session), cause);
        let broken = format!(
            "this session has failed and cannot be used again; make a new one. It failed with: \
             {cause}"
        );
        assert_eq!(text(session.run()), broken);
        assert_eq!(text(session.set("x", &counting(&[6]))), broken);
        assert_eq!(text(session.get("y")), broken);
        drop(session);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_kernel_that_panics_stops_all_ranks() {
    let backend = Faulty::new(1, Some(0), Fault::Panic);
    let alive = Arc::clone(&backend.alive);
    let mut session = faulty(gather_plan(&[2, 3]), backend, BOUND);
    assert_eq!(
        failure(&mut session),
        "rank 1, step 0 of 4, gate_add at `ff` panicked: index 7 is out of range; this is a bug, \
         please report it"
    );
    drop(session);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_failure_of_the_first_list_says_so() {
    let backend = Faulty::new(0, Some(0), Fault::Fail);
    let mut session = faulty(positions_plan(Region::State), backend, BOUND);
    assert_eq!(
        failure(&mut session),
        "rank 0, init step 0 of 2, position_table at `pos_embed` failed: kernel gate_add: argument \
         `fault` must be absent, found injected"
    );
}

#[test]
fn a_copy_that_fails_names_the_exchange() {
    let cases = [
        (&[3, 2], "step 1 of 4, begin all_gather (collective 0)"),
        (&[3, 0], "step 2 of 4, wait for all_gather (collective 0)"),
    ];
    for (parts, step) in cases {
        let backend = Faulty::new(1, None, Fault::Copy);
        let mut session = faulty(gather_plan(parts), backend, BOUND);
        let expected = format!(
            "rank 1, {step} at `attn1` failed: kernel copy: argument `fault` must be absent, found \
             injected"
        );
        assert_eq!(failure(&mut session), expected);
    }
}

#[test]
fn a_stalled_exchange_prints_where_every_rank_is() {
    let backend = Faulty::new(1, Some(0), Fault::Stall);
    let (alive, release) = (Arc::clone(&backend.alive), Arc::clone(&backend.release));
    let mut session = faulty(gather_plan(&[2, 3]), backend, TIMEOUT);
    assert_eq!(
        failure(&mut session),
        "rank 0, step 2 of 4, wait for all_gather (collective 0) at `attn1` waits for rank 1 to \
         begin collective 0, but no rank has made progress for 1s. The ranks are at:\n  \
         rank 0, step 2 of 4, wait for all_gather (collective 0) at `attn1`\n  \
         rank 1, step 0 of 4, gate_add at `ff`"
    );
    let start = Instant::now();
    drop(session);
    assert!(start.elapsed() < BOUND);
    // The stuck rank still works on its memory, and peers' memory that it may read.
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    release.store(true, Ordering::SeqCst);
    while alive.load(Ordering::SeqCst) > 0 {
        assert!(start.elapsed() < BOUND);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_waiting_rank_stops_when_one_stalls() {
    let backend = Faulty::new(2, Some(0), Fault::Stall);
    let release = Arc::clone(&backend.release);
    let mut session = faulty(gather_plan(&[2, 1, 3, 2]), backend, TIMEOUT);
    let error = session.run().unwrap_err();
    let RuntimeError::Stalled { ranks, after, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*after, TIMEOUT);
    let stuck = ranks[2].to_string();
    assert_eq!(stuck, "rank 2, step 0 of 4, gate_add at `ff`");
    assert_eq!(ranks.len(), 4);
    release.store(true, Ordering::SeqCst);
}

#[test]
fn a_rank_with_more_work_is_no_stall() {
    let mut plan = gather_plan(&[2, 3]);
    let first = plan.ranks[1].steps[0].clone();
    for _ in 0..12 {
        plan.ranks[1].steps.insert(0, first.clone());
    }
    let slow = Fault::Slow(TIMEOUT / 10);
    let mut session = faulty(plan, Faulty::new(1, None, slow), TIMEOUT);
    session.run().unwrap();
    let y = session.get("y").unwrap();
    assert_eq!(y.as_f32().unwrap()[..5], [0.0, 2.0, 4.0, 6.0, 8.0]);
}

#[test]
fn ranks_share_the_cores_unless_told_otherwise() {
    let cores = std::thread::available_parallelism().unwrap().get();
    for (asked, ranks, expected) in [(3, 2, 3), (0, 1, cores), (0, 2 * cores, 1)] {
        let backend = Faulty::new(0, Some(9), Fault::Fail);
        let threads = Arc::clone(&backend.threads);
        let mut session = Session::new(
            Arc::new(backend),
            Arc::new(gather_plan(&vec![1; ranks])),
            &Checkpoint::empty(),
            &WeightCache::new(),
            SessionOptions {
                threads: asked,
                ..options()
            },
        )
        .unwrap();
        session.set("x", &counting(&[ranks])).unwrap();
        session.run().unwrap();
        assert_eq!(threads.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn a_failed_value_does_not_break_a_session() {
    let mut session = faulty(
        gather_plan(&[1, 1]),
        Faulty::new(0, Some(9), Fault::Fail),
        BOUND,
    );
    let wrong = HostTensor::u32([2], vec![1, 2]).unwrap();
    assert!(session.set("x", &wrong).is_err());
    session.run().unwrap();
}
