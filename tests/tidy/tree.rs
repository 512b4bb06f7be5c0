//! The files of the repository, and what must not lie among them.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
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

/// A reference case that changed without its maker is no reference.
#[test]
fn reference_cases_are_those_of_the_manifest() {
    let folder = "tests/goldens/";
    let manifest: Value = serde_json::from_str(&read("tests/goldens/MANIFEST.json")).unwrap();
    let listed: BTreeMap<String, String> =
        serde_json::from_value(manifest["sha256"].clone()).unwrap();
    let own = [
        "MANIFEST.json",
        "README.md",
        "compare_random.py",
        "make_goldens.py",
    ];
    let paths = files(folder)
        .into_iter()
        .map(|path| path[folder.len()..].to_owned());
    let present: BTreeMap<String, String> = paths
        .filter(|path| !own.contains(&path.as_str()))
        .map(|path| {
            let bytes = fs::read(root().join(folder).join(&path)).unwrap();
            let digest = Sha256::digest(bytes);
            (
                path,
                digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            )
        })
        .collect();
    let all: BTreeSet<&String> = listed.keys().chain(present.keys()).collect();
    let wrong = all
        .into_iter()
        .filter(|&path| listed.get(path) != present.get(path));
    let faults = wrong.map(|path| match (listed.get(path), present.get(path)) {
        (Some(_), Some(_)) => format!("{folder}{path} has another SHA-256"),
        (Some(_), None) => format!("{folder}{path} is missing"),
        (None, _) => format!("{folder}{path} is not listed"),
    });
    assert_none(
        faults.collect(),
        "run make_goldens.py beside it, which writes files and manifest",
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
