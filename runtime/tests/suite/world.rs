//! Processes that come together, or do not: threads stand for them, on ports of this machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use terrace_plan::Rank;
use terrace_runtime::{World, WorldFault};

const LONG: Duration = Duration::from_secs(20);

fn worlds(ranks: usize) -> Vec<World> {
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
        host: "127.0.0.1".to_owned(),
        port,
    };
    (0..ranks).map(world).collect()
}

type Shared = Result<Vec<u8>, WorldFault>;

/// What every rank gets, rank `late` coming last.
fn share(
    worlds: &[World],
    timeout: Duration,
    late: usize,
    program: impl Fn(usize) -> &'static str + Sync,
) -> Vec<Shared> {
    let program = &program;
    std::thread::scope(|scope| {
        let threads: Vec<_> = worlds
            .iter()
            .map(|world| {
                scope.spawn(move || {
                    if world.rank == Rank(late) {
                        std::thread::sleep(Duration::from_millis(150));
                    }
                    let make = || Ok(vec![7; 128]);
                    world.share(program(world.rank.0), timeout, make)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn all_ranks_get_what_rank_0_made() {
    for ranks in [1, 2, 5] {
        for late in [0, ranks - 1] {
            for shared in share(&worlds(ranks), LONG, late, |_| "a plan") {
                assert_eq!(shared.unwrap(), [7; 128]);
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
        for shared in share(&worlds, LONG, 1, |_| "a plan") {
            assert_eq!(shared.unwrap(), [7; 128]);
        }
    });
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let mut worlds = worlds(4);
    worlds.remove(2);
    let results = share(&worlds, Duration::from_millis(600), 0, |_| "a plan");
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
    let results = share(&worlds[1..], Duration::from_millis(300), 0, |_| "a plan");
    let error = results[0].as_ref().unwrap_err();
    assert!(
        matches!(error, WorldFault::Unreachable { rank: Rank(1), .. }),
        "{error}"
    );
    assert!(error.to_string().contains("MASTER_ADDR"));
    assert!(since.elapsed() < LONG);
}

#[test]
fn ranks_that_run_something_else_are_refused() {
    let plan = |rank| ["a plan", "another plan"][rank];
    let errors: Vec<String> = share(&worlds(2), LONG, 1, plan)
        .into_iter()
        .map(|shared| shared.unwrap_err().to_string())
        .collect();
    for error in errors {
        assert!(
            error.contains("rank 1 runs another plan on 2 ranks, rank 0 a plan"),
            "{error}"
        );
    }
}

#[test]
fn a_failure_of_rank_0_reaches_all() {
    let worlds = worlds(3);
    std::thread::scope(|scope| {
        let share = |world: &World| world.share("a plan", LONG, || Err("no network".to_owned()));
        let threads: Vec<_> = worlds
            .iter()
            .map(|w| scope.spawn(move || share(w)))
            .collect();
        for thread in threads {
            let error = thread.join().unwrap().unwrap_err().to_string();
            assert!(
                error.contains("rank 0 has nothing to share: no network"),
                "{error}"
            );
        }
    });
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
    let alone = [("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")];
    assert_eq!(world(&alone).unwrap().unwrap().ranks, 1);
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
