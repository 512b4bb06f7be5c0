//! One rank per process, as a launcher starts them: the files of local ranks, and an end in any case.

use crate::support::{Ran, copy_golden, files, ran, refuse, succeed, text};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A small video of the shipped checkpoint.
const VIDEO: [&str; 13] = [
    "generate",
    "--prompt",
    "a red circle moving right on a black background",
    "--num-frames",
    "9",
    "--height",
    "32",
    "--width",
    "32",
    "--seed",
    "7",
    "--threads",
    "1",
];

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(60);

/// A port whose next one is free as well, or was a moment ago.
fn port() -> u16 {
    let next = TcpListener::bind("127.0.0.1:0").unwrap();
    next.local_addr().unwrap().port() - 1
}

/// A process as torchrun starts it.
fn process(folder: &Path, [rank, ranks]: [usize; 2], port: u16, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_terrace"))
        .args(args)
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", folder)
        .env("RANK", rank.to_string())
        .env("LOCAL_RANK", rank.to_string())
        .env("WORLD_SIZE", ranks.to_string())
        .env("LOCAL_WORLD_SIZE", ranks.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs as many processes, rank `r` with the arguments `args(r)`.
fn launch<'a>(folder: &Path, ranks: usize, args: impl Fn(usize) -> Vec<&'a str>) -> Vec<Ran> {
    let port = port();
    let start = |rank| process(folder, [rank, ranks], port, &args(rank));
    let children: Vec<Child> = (0..ranks).map(start).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output());
    outputs.map(|output| ran(output.unwrap())).collect()
}

/// Runs processes that must do their work; only rank 0 says what it did.
fn launched(folder: &Path, ranks: usize, args: &[&str]) -> String {
    let mut out = String::new();
    let all = launch(folder, ranks, |_| args.to_vec());
    for (rank, ran) in all.into_iter().enumerate() {
        assert_eq!(ran.code, Some(0), "rank {rank}: {}", ran.err);
        if rank > 0 {
            assert_eq!(
                (ran.out.as_str(), ran.err.as_str()),
                ("", ""),
                "rank {rank}"
            );
        } else {
            out = ran.out;
        }
    }
    out
}

fn read(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap()
}

/// The flags of a video of a few steps and its latents.
fn flags<'a>(video: &'a str, latents: &'a str) -> Vec<&'a str> {
    let outputs = [
        "--num-inference-steps",
        "3",
        "-o",
        video,
        "--save-latents",
        latents,
    ];
    [&VIDEO[..], &outputs].concat()
}

#[test]
fn processes_write_the_video_of_local_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let out = launched(at, 3, &flags("three.mp4", "three.safetensors"));
    assert!(out.contains("3 ranks (cfg=1 ring=1 ulysses=3)"), "{out}");
    let local = [
        &flags("local.mp4", "local.safetensors")[..],
        &["--num-gpus", "3"],
    ]
    .concat();
    succeed(at, &local);
    succeed(at, &flags("one.mp4", "one.safetensors"));
    for other in ["local", "one"] {
        for kind in ["mp4", "safetensors"] {
            let same = read(at, &format!("three.{kind}")) == read(at, &format!("{other}.{kind}"));
            assert!(same, "{other}.{kind}");
        }
    }
    assert_eq!(files(at).len(), 6);
}

#[test]
fn rings_and_plan_files_run_on_processes_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let size = &VIDEO[3..9];
    let cut = [
        "--ring-degree",
        "2",
        "--cfg-degree",
        "2",
        "-o",
        "x.plan.json",
    ];
    succeed(at, &[&["compile"][..], size, &cut].concat());
    let run = |video, trace| {
        let first = [
            "run",
            "x.plan.json",
            "--num-inference-steps",
            "2",
            "-o",
            video,
        ];
        [&first[..], &VIDEO[1..3], &VIDEO[9..], &["--trace", trace]].concat()
    };
    launched(at, 4, &run("processes.mp4", "trace.json"));
    succeed(at, &run("local.mp4", "local.json"));
    assert!(read(at, "processes.mp4") == read(at, "local.mp4"));
    for rank in 1..4 {
        assert!(at.join(format!("trace.rank{rank}.json")).is_file());
    }
    // Here is a plan of four ranks, there are three processes.
    for ran in launch(at, 3, |_| run("no.mp4", "no.json")) {
        assert_eq!(ran.code, Some(2));
        let expected = "the plan has 4 ranks, but 3 processes were started";
        assert!(ran.err.contains(expected), "{}", ran.err);
    }
    assert!(!at.join("no.mp4").exists());
}

#[test]
fn forwards_run_on_processes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    copy_golden("five-heads", at);
    let forward = |output| {
        let files = ["--inputs", "case.safetensors", "--output", output];
        [&["forward", "--model", ".", "--threads", "1"][..], &files].concat()
    };
    let two = [&forward("two.safetensors")[..], &["--ulysses-degree", "2"]].concat();
    launched(at, 2, &two);
    succeed(at, &forward("one.safetensors"));
    assert!(read(at, "two.safetensors") == read(at, "one.safetensors"));
}

#[test]
fn one_process_runs_with_and_without_the_fabric() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let plain = flags("plain.mp4", "plain.safetensors");
    launched(at, 1, &plain);
    let fabric = flags("tcp.mp4", "tcp.safetensors");
    succeed(at, &[&fabric[..], &["--fabric", "tcp"]].concat());
    assert!(read(at, "tcp.safetensors") == read(at, "plain.safetensors"));
    let nccl = [&fabric[..], &["--fabric", "nccl"]].concat();
    refuse(
        at,
        &nccl,
        &["--fabric nccl is for --device cuda, found --device cpu"],
    );
}

/// What ranks exchange goes from their adapters through the hosts.
#[cfg(feature = "wgpu")]
#[test]
fn devices_of_several_processes_give_the_bits_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    copy_golden("five-heads", at);
    let forward = |output| {
        let files = ["--inputs", "case.safetensors", "--output", output];
        [&["forward", "--model", ".", "--device", "wgpu"][..], &files].concat()
    };
    let three = [
        &forward("three.safetensors")[..],
        &["--ulysses-degree", "3"],
    ]
    .concat();
    launched(at, 3, &three);
    succeed(at, &forward("one.safetensors"));
    assert!(read(at, "three.safetensors") == read(at, "one.safetensors"));
}

#[test]
fn a_process_that_is_killed_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let (at, port) = (folder.path(), port());
    let steps = ["--num-inference-steps", "1000", "-o", "out.mp4", "--json"];
    let args = [&VIDEO[..], &steps].concat();
    let mut children: Vec<Child> = (0..3)
        .map(|rank| process(at, [rank, 3], port, &args))
        .collect();
    let mut out = BufReader::new(children[0].stdout.take().unwrap()).lines();
    let mut next = || out.next().unwrap().unwrap();
    while !next().contains("\"event\":\"step\"") {}
    children[2].kill().unwrap();
    let killed = Instant::now();
    let errors: Vec<String> = children
        .into_iter()
        .map(|child| ran(child.wait_with_output().unwrap()))
        .map(|ran| {
            assert_ne!(ran.code, Some(0));
            ran.err
        })
        .collect();
    assert!(killed.elapsed() < BOUND);
    for error in &errors[..2] {
        assert_eq!(error.matches("error: ").count(), 1, "{error}");
        // Which rank notices, at which step, and where the lost one was.
        for part in [
            "rank 2 is gone",
            "wait for ",
            "` failed: ",
            "last seen: rank 2",
        ] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    }
    assert_eq!(files(at).len(), 0);
}

#[test]
fn processes_that_were_started_differently_do_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let fast = [&flags("out.mp4", "l.safetensors")[..], &["--timeout", "20"]].concat();
    for (change, expected) in [
        (["--dtype", "bf16"], "the plan of rank "),
        (["--guidance-scale", "5"], "the request of rank "),
    ] {
        let args = |rank: usize| match rank {
            1 => [&fast[..], &change].concat(),
            _ => fast.clone(),
        };
        for ran in launch(at, 2, args) {
            assert_eq!(ran.code, Some(2), "{}", ran.err);
            for part in [expected, "start all processes with the same arguments"] {
                assert!(ran.err.contains(part), "no {part:?} in {}", ran.err);
            }
        }
    }
    let port = port();
    let children = [[0, 2], [1, 3]].map(|place| process(at, place, port, &fast));
    for child in children {
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(
            ran.err.contains("on 3 ranks, rank 0 terrace "),
            "{}",
            ran.err
        );
    }
    assert_eq!(files(at).len(), 0);
}

#[test]
fn degrees_that_do_not_make_all_processes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (given, expected) in [
        (
            ["--num-gpus", "2"],
            "2 ranks are asked for, but 3 processes were started",
        ),
        (
            ["--ulysses-degree", "2"],
            "make 2 ranks, but 3 ranks are asked for",
        ),
    ] {
        let args = [&flags("out.mp4", "l.safetensors")[..], &given].concat();
        let child = process(folder.path(), [0, 3], port(), &args);
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(2));
        assert!(ran.err.contains(expected), "{}", ran.err);
    }
}

#[test]
fn mpirun_needs_no_place_to_meet_on_one_host() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let args = flags("out.mp4", "out.safetensors");
    let start = |rank: usize| {
        Command::new(env!("CARGO_BIN_EXE_terrace"))
            .args(&args)
            .current_dir(at)
            .env("OMPI_COMM_WORLD_RANK", rank.to_string())
            .env("OMPI_COMM_WORLD_SIZE", "2")
            .env("OMPI_COMM_WORLD_LOCAL_RANK", rank.to_string())
            .env("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for child in [1, 0].map(start) {
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    assert!(Path::new(text(at)).join("out.mp4").is_file());
}
