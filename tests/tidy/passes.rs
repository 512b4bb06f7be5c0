//! Every pass is in the pipeline, says what it does, and has a test.

use super::tree::{assert_none, files, read};

const FOLDER: &str = "compiler/src/passes";

/// The modules of passes: the public ones, since helpers are private, but for the pipeline itself.
fn passes() -> Vec<String> {
    let text = read(&format!("{FOLDER}/mod.rs"));
    let modules = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let passes: Vec<String> = modules
        .filter(|module| *module != "pipeline")
        .map(str::to_owned)
        .collect();
    assert!(!passes.is_empty());
    passes
}

/// The name in dumps, errors and snapshots.
fn kebab(module: &str) -> String {
    module.replace('_', "-")
}

/// Whether the text holds the word, with nothing beside it that could belong to a longer one.
fn names(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn every_pass_is_named_in_the_pipeline() {
    let pipeline = read(&format!("{FOLDER}/pipeline.rs"));
    let missing = passes().into_iter().map(|module| kebab(&module));
    let missing = missing.filter(|pass| !names(&pipeline, pass));
    assert_none(
        missing.collect(),
        &format!("add these passes to {FOLDER}/pipeline.rs"),
    );
}

#[test]
fn every_pass_begins_with_its_name() {
    let sources = files(FOLDER);
    let mut faults = Vec::new();
    for module in passes() {
        let places = [
            format!("{FOLDER}/{module}.rs"),
            format!("{FOLDER}/{module}/mod.rs"),
        ];
        let place = places.iter().find(|place| sources.contains(place)).unwrap();
        let expected = format!("//! {}: ", kebab(&module));
        if !read(place).starts_with(&expected) {
            faults.push(format!("{place}: expected `{expected}...`"));
        }
    }
    assert_none(
        faults,
        "begin the file with the pass's name and what it does",
    );
}

#[test]
fn every_pass_has_a_test() {
    let sources = files("compiler/tests")
        .into_iter()
        .filter(|path| path.ends_with(".rs"));
    // A file may have the name of the pass that it tests.
    let tests: String = sources
        .map(|path| format!("{}\n{}\n", path, read(&path)))
        .collect();
    let untested = |module: &String| !names(&tests, &kebab(module)) && !names(&tests, module);
    let missing = passes()
        .into_iter()
        .filter(untested)
        .map(|module| kebab(&module));
    assert_none(
        missing.collect(),
        "test these passes by name under compiler/tests",
    );
}

#[test]
fn a_name_is_a_whole_word() {
    assert!(names("a fuse-qkv, b", "fuse-qkv"));
    assert!(!names("fuse-qkv-more pre-fuse-qkv", "fuse-qkv"));
}
