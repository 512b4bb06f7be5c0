//! Which crate may know which.

use super::tree::{assert_none, files, read};
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Our crates, by folder, and those of ours that each may depend on; the facade sees all.
const ALLOWED: [(&str, &str, &[&str]); 5] = [
    ("compiler/plan", "terrace-plan", &[]),
    ("compiler", "terrace-compiler", &["terrace-plan"]),
    (
        "models",
        "terrace-models",
        &["terrace-plan", "terrace-compiler"],
    ),
    (
        "runtime",
        "terrace-runtime",
        &["terrace-plan", "terrace-kernels"],
    ),
    ("kernels", "terrace-kernels", &[]),
];

fn manifest(folder: &str) -> Table {
    let path = if folder.is_empty() {
        "Cargo.toml".to_owned()
    } else {
        format!("{folder}/Cargo.toml")
    };
    read(&path)
        .parse()
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names under all tables of dependencies, those for tests, build scripts and targets included.
fn dependencies(table: &Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if key.ends_with("dependencies") => found.extend(names(inner)),
            Value::Table(inner) if key != "workspace" => found.extend(dependencies(inner)),
            _ => {}
        }
    }
    found
}

/// The packages behind the names; `package = ".."` renames one.
fn names(table: &Table) -> impl Iterator<Item = String> {
    table.iter().map(|(name, value)| {
        let package = value.get("package").and_then(Value::as_str);
        package.unwrap_or(name).to_owned()
    })
}

#[test]
fn crates_depend_in_one_direction() {
    let mut faults = Vec::new();
    for (folder, name, allowed) in ALLOWED {
        let ours = dependencies(&manifest(folder))
            .into_iter()
            .filter(|name| name.starts_with("terrace"));
        let wrong = ours.filter(|dependency| !allowed.contains(&dependency.as_str()));
        faults.extend(
            wrong.map(|dependency| format!("{name} depends on {dependency}, allowed {allowed:?}")),
        );
    }
    assert_none(
        faults,
        "move the code to the crate that may know both, see ARCHITECTURE.md",
    );
}

#[test]
fn only_the_compiler_knows_its_graph_library() {
    let users = ALLOWED
        .iter()
        .filter(|(folder, ..)| dependencies(&manifest(folder)).contains("petgraph"));
    assert_eq!(
        users.map(|(folder, ..)| *folder).collect::<Vec<_>>(),
        ["compiler"]
    );
    let outside = files("compiler/src").into_iter().filter(|path| {
        path.ends_with(".rs")
            && !path.starts_with("compiler/src/ir/")
            && read(path).contains("petgraph")
    });
    assert_none(outside.collect(), "use ir::Graph, which hides petgraph");
}

#[test]
fn the_rules_name_every_crate_of_the_workspace() {
    let root = manifest("");
    let members = root["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str);
    let members: BTreeSet<&str> = members.collect();
    let named: BTreeMap<&str, &str> = ALLOWED
        .iter()
        .map(|&(folder, name, _)| (folder, name))
        .collect();
    assert_eq!(
        members,
        named.keys().copied().collect(),
        "keep ALLOWED in step with the workspace"
    );
    for (folder, name) in named {
        assert_eq!(manifest(folder)["package"]["name"].as_str(), Some(name));
    }
}

#[test]
fn every_crate_takes_version_and_lints_from_the_workspace() {
    let mut faults = Vec::new();
    for folder in ALLOWED.map(|(folder, ..)| folder).into_iter().chain([""]) {
        let manifest = manifest(folder);
        for (section, key) in [
            ("lints", None),
            ("package", Some("version")),
            ("package", Some("edition")),
        ] {
            let value = manifest.get(section);
            let value = key.map_or(value, |key| value.and_then(|section| section.get(key)));
            let taken = value
                .and_then(|value| value.get("workspace"))
                .and_then(Value::as_bool);
            if taken != Some(true) {
                faults.push(format!(
                    "{folder}/Cargo.toml: {section} {}",
                    key.unwrap_or_default()
                ));
            }
        }
    }
    assert_none(faults, "write `workspace = true`");
}
