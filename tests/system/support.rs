//! Running the program, and files for it.

use crate::common::device::device;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use terrace::{HostTensor, Model, Pipeline, Runner, SessionOptions};

/// The shipped checkpoint on the device of the tests.
pub fn demo() -> Pipeline {
    let options = SessionOptions::default();
    Pipeline::on(
        Model::demo().unwrap(),
        Runner::on(&device(), options).unwrap(),
    )
}

/// What a run of the program gave.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs the program in `folder`.
pub fn terrace(folder: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .args(args)
        .current_dir(folder)
        // Graphics drivers complain on standard error where there is none.
        .env("XDG_RUNTIME_DIR", folder)
        .output();
    ran(output.unwrap())
}

/// What a process of the program has given.
pub fn ran(output: Output) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    Ran {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// Runs the program, which must do its work.
pub fn succeed(folder: &Path, args: &[&str]) -> Ran {
    let ran = terrace(folder, args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
    ran
}

/// Runs the program, which must refuse with one message that contains `parts`, and leave no file
/// that was not there before.
pub fn refuse(folder: &Path, args: &[&str], parts: &[&str]) {
    let before = files(folder);
    let ran = terrace(folder, args);
    assert_eq!(ran.code, Some(2), "{args:?}: {}{}", ran.out, ran.err);
    assert_eq!(
        ran.err.matches("error: ").count(),
        1,
        "{args:?}: {}",
        ran.err
    );
    for part in parts {
        assert!(
            ran.err.contains(part),
            "{args:?}: no {part:?} in {}",
            ran.err
        );
    }
    assert_eq!(files(folder), before, "{args:?} left files behind");
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A folder of the reference cases.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(name)
}

/// Tensors of a reference file.
pub fn tensors(name: &str) -> BTreeMap<String, HostTensor> {
    terrace::tensors::read(&golden(name)).unwrap()
}

/// Copies a folder of the reference cases.
pub fn copy_golden(name: &str, to: &Path) {
    let from = golden(name);
    for file in files(&from) {
        let target = to.join(file.strip_prefix(&from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

/// Relative L2 error.
pub fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(expected);
    let difference: f64 = pairs.map(|(a, b)| square(f64::from(a - b))).sum();
    let size: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    (difference / size).sqrt()
}

/// Text of a path.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
