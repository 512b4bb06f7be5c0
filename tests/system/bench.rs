//! `terrace bench`: what is measured, and what is refused.

use crate::support::{golden, refuse, succeed, text};
use serde_json::Value;

/// The answer of `terrace bench` with few runs, whose figures must agree with each other.
fn measure(args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let args = [&["bench"], args, &["--runs", "2", "--json"]].concat();
    let ran = succeed(folder.path(), &args);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let number = |key: &str| found[key].as_f64().unwrap();
    assert_eq!(found["event"], "measured");
    assert_eq!(found["runs"], 2);
    let [min, median, max] = ["min_seconds", "median_seconds", "max_seconds"].map(number);
    assert!(0.0 < min && min <= median && median <= max, "{found}");
    let rate = number("flops") / median / 1e9;
    assert!((number("gflops") / rate - 1.0).abs() < 1e-9, "{found}");
    let share = rate / number("peak_gflops");
    assert!((number("peak_share") / share - 1.0).abs() < 1e-9, "{found}");
    found
}

#[test]
fn kernels_are_counted_by_their_sizes() {
    let sizes = ["--rows", "3", "--k", "40", "--n", "17", "--threads", "1"];
    for (dtype, name) in [
        ("f32", "f32"),
        ("bf16", "bf16"),
        ("int8", "i8"),
        ("fp8", "f8e4m3"),
    ] {
        let found = measure(&[&["gemm", "--dtype", dtype], &sizes[..]].concat());
        assert_eq!(found["flops"], 2 * 3 * 40 * 17);
        assert_eq!(found["threads"], 1);
        assert_eq!(found["dtype"], name);
    }
    let sizes = ["--tokens", "50", "--heads", "3", "--head-dim", "20"];
    let found = measure(&[&["attention"], &sizes[..]].concat());
    assert_eq!(found["flops"], 4 * 3 * 50 * 50 * 20);
}

#[test]
fn a_preset_is_measured_without_weights() {
    let size = ["--height", "16", "--width", "32"];
    let flops = |layers: &str| {
        let found = measure(&[&["forward", "--layers", layers], &size[..]].concat());
        found["flops"].as_u64().unwrap()
    };
    // Projections of width 1920 over 226 + 2 tokens, scores and values, and twice the modulation
    // that a time embedding of width 512 gives.
    let products = 2 * 228 * 1920 * 1920 * 12;
    let block = products + 4 * 30 * 228 * 228 * 64 + 2 * 512 * 6 * 1920 * 2;
    assert_eq!(flops("2") - flops("1"), block);
}

#[test]
fn a_checkpoint_is_measured_on_ranks() {
    let case = golden("rotary-native");
    let inputs = case.join("case.safetensors");
    let model = ["--model", text(&case), "--inputs", text(&inputs)];
    let ranks = ["--ulysses-degree", "2", "--threads", "1"];
    let found = measure(&[&["forward"], &model[..], &ranks].concat());
    assert_eq!(found["threads"], 2);
    assert_eq!(found["mesh"]["ulysses"], 2);
    let one = measure(&[&["forward"], &model[..]].concat());
    assert!(one["flops"].as_u64() <= found["flops"].as_u64());
}

#[test]
fn steps_and_decoders_are_measured() {
    let case = golden("rotary-native");
    let size = ["--frames", "1", "--height", "32", "--width", "32"];
    let step = ["step", "--model", text(&case)];
    let guided = measure(&[&step, &size[..]].concat());
    let plain = measure(&[&step, &size[..], &["--guidance-scale", "1"]].concat());
    assert!(guided["flops"].as_u64() > plain["flops"].as_u64());
    let case = golden("vae-four-blocks");
    let latents = case.join("frames-3.safetensors");
    let decode = ["decode", "--model", text(&case)];
    let found = measure(&[&decode[..], &["--latents", text(&latents)]].concat());
    assert!(found["flops"].as_u64().unwrap() > 0);
}

#[test]
fn people_read_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["bench", "gemm", "--rows", "2", "--k", "8", "--n", "8"];
    let shown = succeed(folder.path(), &args).out;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    for part in [
        "gemm rows=2 k=8 n=8, f32",
        "5 runs",
        "GFLOP/s",
        "% of a peak",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    refuse(
        path,
        &["bench", "forward", "--preset", "3b"],
        &["`3b`", "1.5-5b", "2b", "5b-i2v"],
    );
    refuse(path, &["bench", "gemm", "--runs", "0"], &["--runs"]);
    refuse(
        path,
        &["bench", "forward", "--height", "20"],
        &["height", "16 or 32"],
    );
    let most = usize::MAX.to_string();
    refuse(path, &["bench", "gemm", "--rows", &most], &["memory"]);
    let both = ["--preset", "2b", "--model", "."];
    refuse(
        path,
        &[&["bench", "step"], &both[..]].concat(),
        &["--model"],
    );
}
