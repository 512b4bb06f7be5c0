//! Rules for every Rust file.

use super::scan::{code, functions, matches};
use super::tree::{assert_none, files, read};

/// Lines of a file.
const FILE: usize = 500;
/// Lines of a function.
const FUNCTION: usize = 60;
/// Where numbers and memory are handled without the compiler's proof.
const UNSAFE: [&str; 2] = ["kernels/", "runtime/"];
/// Enums that grow with every op, as patterns name them.
const CLOSED: [&str; 2] = ["Op::", "KernelCall::"];

/// Path and text of every Rust file.
fn sources() -> Vec<(String, String)> {
    let paths = files("").into_iter().filter(|path| path.ends_with(".rs"));
    let sources: Vec<(String, String)> = paths.map(|path| (path.clone(), read(&path))).collect();
    assert!(
        sources.iter().any(|(path, _)| path == "src/lib.rs"),
        "the walk must see the sources"
    );
    sources
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "));
    assert_none(
        silent.map(|(path, _)| path).collect(),
        "begin the file with `//!`: what it is, its invariants, what it refuses",
    );
}

#[test]
fn files_are_short() {
    let lengths = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > FILE);
    assert_none(
        long.map(|(path, lines)| format!("{path}: {lines} lines"))
            .collect(),
        &format!("split these files, {FILE} lines are the most"),
    );
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let long = functions(&code(&text))
            .into_iter()
            .filter(|function| function.lines > FUNCTION);
        faults.extend(long.map(|f| format!("{path}:{}: {} has {} lines", f.line, f.name, f.lines)));
    }
    assert_none(
        faults,
        &format!("split these functions, {FUNCTION} lines are the most"),
    );
}

#[test]
fn ignored_tests_say_why() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let code = code(&text);
        let lines = code
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains("#[ignore]"));
        faults.extend(lines.map(|(index, _)| format!("{path}:{}", index + 1)));
    }
    assert_none(faults, "write #[ignore = \"reason\"], or run the test");
}

#[test]
fn unsafe_code_stays_with_kernels_and_devices() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if UNSAFE.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        let code = code(&text);
        let lines = code.lines().enumerate();
        let found = lines.filter(|(_, line)| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
        });
        faults.extend(found.map(|(index, _)| format!("{path}:{}", index + 1)));
    }
    assert_none(faults, &format!("keep unsafe code below {UNSAFE:?}"));
}

/// The sets of ops and kernel calls are closed: a new one must be a compile error wherever it matters.
#[test]
fn matches_on_ops_and_calls_name_every_one() {
    let mut faults = Vec::new();
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| !path.contains("tests/"))
    {
        for found in matches(&code(text)) {
            let closed = |pattern: &String| CLOSED.iter().any(|set| pattern.starts_with(set));
            if found.patterns.iter().any(closed) && found.patterns.iter().any(|p| p == "_") {
                faults.push(format!("{path}:{}", found.line));
            }
        }
    }
    assert_none(faults, "name every op or kernel call instead of `_ =>`");
}
