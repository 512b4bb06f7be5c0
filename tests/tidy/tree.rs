//! The files of the repository, and what must not lie among them.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the repository, by their paths from its root with `/`, sorted.
/// Build results and the history are not part of it.
pub fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let skipped = [root().join("target"), root().join(".git")].contains(&path);
            if path.is_dir() && !skipped {
                open.push(path);
            } else if !skipped {
                found.push(relative(&path));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    let parts = path.strip_prefix(root()).unwrap().iter();
    parts
        .map(|part| part.to_str().unwrap())
        .collect::<Vec<_>>()
        .join("/")
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with all faults at once.
#[track_caller]
pub fn assert_none(faults: Vec<String>, remedy: &str) {
    assert!(faults.is_empty(), "{remedy}:\n  {}", faults.join("\n  "));
}

/// Whether a file is text that people write.
fn is_text(path: &str) -> bool {
    let extension = Path::new(path)
        .extension()
        .and_then(|extension| extension.to_str());
    match extension {
        Some(extension) => {
            ["rs", "toml", "md", "py", "json", "snap", "yml", "sh"].contains(&extension)
        }
        None => path.starts_with('.') || !path.contains('/'),
    }
}

#[test]
fn no_text_names_a_place_of_one_machine() {
    // In halves, since this file is searched as well.
    let words = [
        ["/wo", "rk/"],
        ["/tmp", "/"],
        ["/ho", "me/"],
        ["/ro", "ot/"],
        ["artifac", "tory"],
    ];
    let words = words.map(|halves| halves.concat());
    let mut faults = Vec::new();
    for path in files("").iter().filter(|path| is_text(path)) {
        // A vocabulary may hold any word.
        let Ok(text) = fs::read_to_string(root().join(path)) else {
            continue;
        };
        if path.starts_with("models/demo/tokenizer/") {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let found = words.iter().filter(|word| line.contains(word.as_str()));
            faults.extend(found.map(|word| format!("{path}:{}: {word}", index + 1)));
        }
    }
    assert_none(faults, "write a path that every reader has");
}

#[test]
fn every_snapshot_belongs_to_a_test() {
    let mut faults = Vec::new();
    for path in files("").iter().filter(|path| path.contains(".snap")) {
        if !path.ends_with(".snap") {
            faults.push(format!("{path}: not reviewed"));
        } else if let Err(fault) = owner(path) {
            faults.push(format!("{path}: {fault}"));
        }
    }
    assert_none(
        faults,
        "accept a snapshot with INSTA_UPDATE=always, or delete it",
    );
}

/// The test that a snapshot file names must exist and have the snapshot's name.
fn owner(path: &str) -> Result<(), String> {
    let text = read(path);
    let source = text.lines().find_map(|line| line.strip_prefix("source: "));
    let source = source.ok_or("no line `source: `")?.trim_matches('"');
    let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
    let name = stem.rsplit("__").next().unwrap_or(stem);
    // A test's second snapshot without a name of its own has the suffix -2.
    let (base, count) = name.rsplit_once('-').unwrap_or((name, ""));
    let base = if count.parse::<u32>().is_ok() {
        base
    } else {
        name
    };
    let code = fs::read_to_string(root().join(source)).map_err(|_| format!("no file {source}"))?;
    let named = [
        format!("fn {base}("),
        format!("fn test_{base}("),
        format!("\"{name}\""),
    ];
    if named.iter().any(|form| code.contains(form)) {
        Ok(())
    } else {
        Err(format!("nothing in {source} has the name {base}"))
    }
}

#[test]
fn the_manifest_lists_the_reference_cases() {
    let folder = "tests/goldens/";
    let manifest: Value = serde_json::from_str(&read("tests/goldens/MANIFEST.json")).unwrap();
    let listed: BTreeSet<&str> = manifest["sha256"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let own = ["MANIFEST.json", "README.md", "make_goldens.py"];
    let files = files(folder);
    let present: BTreeSet<&str> = files
        .iter()
        .map(|path| path.strip_prefix(folder).unwrap())
        .filter(|path| !own.contains(path))
        .collect();
    let faults = listed.symmetric_difference(&present).map(|path| {
        let fault = if listed.contains(path) {
            "is missing"
        } else {
            "is not listed"
        };
        format!("{folder}{path} {fault}")
    });
    assert_none(
        faults.collect(),
        "run tests/goldens/make_goldens.py, which writes files and manifest",
    );
}

#[test]
fn the_repository_has_the_documents_that_it_refers_to() {
    let missing = |path: &&str| !root().join(path).is_file();
    let needed = [
        ".ci/run",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "tests/goldens/README.md",
    ];
    let faults = needed
        .iter()
        .copied()
        .filter(|path| missing(path))
        .map(str::to_owned);
    assert_none(faults.collect(), "write these files");
}

/// Every relative link of a document leads to a file.
#[test]
fn links_in_documents_lead_somewhere() {
    let mut faults = Vec::new();
    for path in files("").iter().filter(|path| path.ends_with(".md")) {
        let text = read(path);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            let folder = root()
                .join(path)
                .parent()
                .map(Path::to_owned)
                .unwrap_or_default();
            let place: PathBuf = folder.join(file);
            if !target.contains("://") && !file.is_empty() && !place.exists() {
                faults.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none(faults, "correct the link");
}
