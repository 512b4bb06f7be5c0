//! Threads that stand for processes: each has a session of its own, and connections to the others.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use terrace_plan::{Plan, Rank};
use terrace_runtime::{
    Backend, Checkpoint, Peers, RuntimeError, Session, SessionOptions, WeightCache, World,
};

/// Processes of this host.
pub fn worlds(ranks: usize) -> Vec<World> {
    // The port is free again as soon as it was found.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let world = |rank| World {
        rank: Rank(rank),
        ranks,
        local: rank,
        locals: ranks,
        host: "127.0.0.1".to_owned(),
        port,
    };
    (0..ranks).map(world).collect()
}

/// What `run` makes of the session of every rank; `backend` and `plan` may differ from rank to rank.
pub fn among<B: Backend, T: Send>(
    ranks: usize,
    timeout: Duration,
    backend: impl Fn(usize) -> B + Sync,
    plan: impl Fn(usize) -> Plan + Sync,
    run: impl Fn(usize, &mut Session) -> Result<T, RuntimeError> + Sync,
) -> Vec<Result<T, RuntimeError>> {
    let (backend, plan, run) = (&backend, &plan, &run);
    let process = move |world: World| {
        let rank = world.rank.0;
        let peers = Peers::meet(&world, "a test", timeout)?;
        let options = SessionOptions {
            threads: 1,
            timeout,
            trace: None,
        };
        let mut session = Session::among(
            &peers,
            Arc::new(backend(rank)),
            Arc::new(plan(rank)),
            &Checkpoint::empty(),
            &WeightCache::new(),
            options,
        )?;
        run(rank, &mut session)
    };
    std::thread::scope(|scope| {
        let worlds = worlds(ranks).into_iter();
        let threads: Vec<_> = worlds
            .map(|world| scope.spawn(move || process(world)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}
