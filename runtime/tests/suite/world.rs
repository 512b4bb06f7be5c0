//! Processes that come together, or do not: threads stand for them, on ports of this machine.

use crate::common::worlds;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use terrace_plan::Rank;
use terrace_runtime::{HostTensor, Peers, RuntimeError, World, WorldFault};

const LONG: Duration = Duration::from_secs(20);

/// What happens to every rank that meets, rank `late` coming last.
fn meet<T: Send>(
    worlds: &[World],
    timeout: Duration,
    late: usize,
    program: impl Fn(usize) -> &'static str + Sync,
    then: impl Fn(&Arc<Peers>) -> Result<T, RuntimeError> + Sync,
) -> Vec<Result<T, RuntimeError>> {
    let (program, then) = (&program, &then);
    std::thread::scope(|scope| {
        let threads: Vec<_> = worlds
            .iter()
            .map(|world| {
                scope.spawn(move || {
                    if world.rank == Rank(late) {
                        std::thread::sleep(Duration::from_millis(150));
                    }
                    let peers = Peers::meet(world, program(world.rank.0), timeout)?;
                    then(&peers)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// The tensor that rank 0 makes; the others would fail.
fn shared(peers: &Arc<Peers>) -> Result<HostTensor, RuntimeError> {
    let data = (0..300_000).map(|i| i as f32).collect();
    peers.share_tensor(&[300, 1000], || match peers.world().rank {
        Rank(0) => HostTensor::f32([300, 1000], data),
        rank => panic!("rank {rank} makes a tensor"),
    })
}

fn same_program(_: usize) -> &'static str {
    "a program"
}

#[test]
fn all_ranks_get_what_rank_0_made() {
    for ranks in [1, 2, 5] {
        for late in [0, ranks - 1] {
            for found in meet(&worlds(ranks), LONG, late, same_program, shared) {
                let found = found.unwrap();
                assert_eq!(found.shape(), [300, 1000]);
                assert_eq!(found.as_f32().unwrap()[299_999], 299_999.0);
            }
        }
    }
}

#[test]
fn callers_of_other_languages_do_not_disturb() {
    let worlds = worlds(2);
    let port = worlds[0].port;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let end = Instant::now() + LONG;
            while Instant::now() < end {
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                    return;
                }
            }
        });
        for found in meet(&worlds, LONG, 1, same_program, shared) {
            assert_eq!(found.unwrap().shape(), [300, 1000]);
        }
    });
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let mut worlds = worlds(4);
    worlds.remove(2);
    let timeout = Duration::from_millis(600);
    let results = meet(&worlds, timeout, 0, same_program, shared);
    let expected = "ranks [2] have not come within 600ms";
    for (rank, result) in results.into_iter().enumerate() {
        let error = result.unwrap_err().to_string();
        // Whoever has called hears it from rank 0, or its own time is over a moment earlier.
        assert!(
            error.contains(expected) || rank > 0 && error.contains("600ms"),
            "{error}"
        );
    }
}

#[test]
fn a_rank_without_rank_0_ends_in_time() {
    let worlds = worlds(2);
    let since = Instant::now();
    let timeout = Duration::from_millis(300);
    let results = meet(&worlds[1..], timeout, 0, same_program, shared);
    let error = results[0].as_ref().unwrap_err();
    let fault = WorldFault::Unreachable {
        rank: Rank(1),
        address: format!("127.0.0.1:{}", worlds[0].port),
        after: timeout,
        reason: String::new(),
    };
    let expected = fault.to_string();
    let expected = expected.split_once(": ;").unwrap().0;
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(error.to_string().contains("MASTER_ADDR"));
    assert!(since.elapsed() < LONG);
}

#[test]
fn ranks_that_run_something_else_are_refused() {
    let program = |rank| ["a program", "another one"][rank];
    for found in meet(&worlds(2), LONG, 1, program, shared) {
        let error = found.unwrap_err().to_string();
        assert!(
            error.contains("rank 1 runs another one on 2 ranks, rank 0 a program on 2 ranks"),
            "{error}"
        );
    }
    let mut worlds = worlds(2);
    worlds[1].ranks = 3;
    for found in meet(&worlds, LONG, 1, same_program, shared) {
        let error = found.unwrap_err().to_string();
        assert!(
            error.contains("rank 1 runs a program on 3 ranks, rank 0 a program on 2 ranks"),
            "{error}"
        );
    }
}

#[test]
fn a_failure_of_rank_0_reaches_all() {
    let fail = |peers: &Arc<Peers>| {
        peers.share_tensor(&[1], || Err(RuntimeError::TensorMemory { shape: vec![7] }))
    };
    let results = meet(&worlds(3), LONG, 0, same_program, fail);
    let cause = "there is no memory for a tensor of shape [7]";
    for (rank, result) in results.into_iter().enumerate() {
        let error = result.unwrap_err().to_string();
        let prefix = match rank {
            0 => "",
            _ => "stopped, because another rank has failed: ",
        };
        assert_eq!(error, format!("{prefix}{cause}"));
    }
}

#[test]
fn whoever_needs_a_rank_that_has_left_says_so() {
    let leave = |peers: &Arc<Peers>| match peers.world().rank {
        Rank(0) => Ok(None),
        _ => shared(peers).map(Some),
    };
    for (rank, found) in meet(&worlds(3), LONG, 1, same_program, leave)
        .into_iter()
        .enumerate()
    {
        match found {
            Ok(None) => assert_eq!(rank, 0),
            Ok(Some(_)) => panic!("rank {rank} has a tensor that nobody made"),
            Err(error) => assert_eq!(
                error.to_string(),
                "rank 0 is gone: its connection has ended; see what its process says"
            ),
        }
    }
}

fn world(variables: &[(&str, &str)]) -> Result<Option<World>, WorldFault> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    World::from_variables(|name| variables.get(name).map(|&value| value.to_owned()))
}

#[test]
fn launchers_say_who_a_process_is() {
    let place = [("MASTER_ADDR", "host-a"), ("MASTER_PORT", "29500")];
    for names in [
        ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
        [
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
        ],
        ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"],
    ] {
        let mut variables = place.to_vec();
        variables.extend([(names[0], "5"), (names[1], "8"), (names[2], "1")]);
        let found = world(&variables).unwrap().unwrap();
        assert_eq!((found.rank, found.ranks, found.local), (Rank(5), 8, 1));
        assert_eq!((found.host.as_str(), found.port), ("host-a", 29501));
    }
    assert_eq!(world(&place).unwrap(), None);
    let alone = [("RANK", "0"), ("WORLD_SIZE", "1")];
    assert_eq!(world(&alone).unwrap(), Some(World::alone()));
}

#[test]
fn processes_of_one_host_need_no_place_to_meet() {
    let variables = |local_size| {
        [
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "3"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "2"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", local_size),
        ]
    };
    let found = world(&variables("3")).unwrap().unwrap();
    assert_eq!((found.rank, found.ranks, found.locals), (Rank(2), 3, 3));
    assert_eq!(found.host, "127.0.0.1");
    // All have the same parent.
    assert_eq!(world(&variables("3")).unwrap().unwrap().port, found.port);
    let error = world(&variables("2")).unwrap_err().to_string();
    assert!(error.contains("MASTER_ADDR is not set"), "{error}");
}

#[test]
fn launchers_say_how_many_processes_share_a_host() {
    for (text, expected) in [("2(x4)", 2), ("3", 3), ("?", 8)] {
        let variables = [
            ("SLURM_PROCID", "5"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_TASKS_PER_NODE", text),
            ("MASTER_ADDR", "host-a"),
            ("MASTER_PORT", "29500"),
        ];
        assert_eq!(world(&variables).unwrap().unwrap().locals, expected);
    }
}

#[test]
fn environments_that_make_no_sense_are_refused() {
    let all = [
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "host"),
        ("MASTER_PORT", "29500"),
    ];
    let with = |name: &str, value: Option<&'static str>| {
        let kept = all.iter().filter(|(n, _)| *n != name).copied();
        let variables: Vec<_> = kept.chain(value.map(|v| ("", v))).collect();
        let variables: Vec<(&str, &str)> = variables
            .into_iter()
            .map(|(n, v)| (if n.is_empty() { name } else { n }, v))
            .collect();
        world(&variables).unwrap_err().to_string()
    };
    assert!(world(&all).unwrap().is_some());
    assert!(with("LOCAL_RANK", None).contains("LOCAL_RANK is not set"));
    assert!(with("MASTER_ADDR", None).contains("MASTER_ADDR is not set"));
    assert!(with("MASTER_PORT", None).contains("MASTER_PORT is not set"));
    assert!(with("RANK", Some("2")).contains("rank 2 of 2 ranks"));
    assert!(with("RANK", Some("first")).contains("RANK must be a number, found `first`"));
    assert!(with("MASTER_PORT", Some("65535")).contains("1 to 65534, found 65535"));
    assert!(with("MASTER_PORT", Some("0")).contains("1 to 65534, found 0"));
}
