//! Plan files: reading, writing, and what is said about files that are no plans.

use crate::build::{Spec, mesh};
use proptest::prelude::*;
use std::path::Path;
use terrace_plan::*;

fn text() -> String {
    String::from_utf8(Spec::two().plan().to_json().unwrap()).unwrap()
}

fn message(json: &str) -> String {
    Plan::from_json(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_plan_comes_back_as_it_was() {
    let plan = Spec::eight().plan();
    let json = plan.to_json().unwrap();
    let read = Plan::from_json(&json).unwrap();
    assert_eq!(read, plan);
    assert_eq!(read.to_json().unwrap(), json);
}

#[test]
fn the_file_has_one_entry_per_line() {
    insta::assert_snapshot!(text());
}

#[test]
fn the_header_is_read_alone() {
    let json = text();
    let header = Header::from_json(json.as_bytes()).unwrap();
    assert_eq!(header, Spec::two().plan().header);
    let body = json.find("\"mesh\":{").unwrap();
    let cut = Header::from_json(&json.as_bytes()[..body]).unwrap();
    assert_eq!(cut, header);
}

#[test]
fn another_format_version_is_told_before_anything_else() {
    let json = r#"{"header": {"format": 7, "what": "nobody knows"}, "body": 1"#;
    let expected = "the plan has format version 7, this program reads version 2; \
                    compile it again with this program";
    assert_eq!(message(json), expected);
    let header = Header::from_json(json.as_bytes()).unwrap_err();
    assert_eq!(header.to_string(), expected);
}

#[test]
fn what_is_not_json_is_told() {
    assert_eq!(
        message("not a plan"),
        "not a plan: the text is not JSON (line 1, column 2: expected ident)"
    );
    assert_eq!(
        message(""),
        "not a plan: the text is not JSON (line 1, column 0: EOF while parsing a value)"
    );
}

#[test]
fn json_without_a_header_is_no_plan() {
    assert_eq!(
        message("[1, 2]"),
        "not a plan: invalid type: sequence, expected a JSON object; \
         expected a JSON object that begins with `header`"
    );
    assert_eq!(
        message(r#"{"weight_map": {}}"#),
        "not a plan: it has no `header`; expected a JSON object that begins with `header`"
    );
    assert_eq!(
        message(r#"{"header": {"producer": "x"}}"#),
        "not a plan: missing field `format`; \
         expected a JSON object that begins with `header`"
    );
}

#[test]
fn a_truncated_plan_is_told_with_its_end() {
    let json = text();
    let cut = &json[..json.len() - 3];
    let (line, last) = cut.lines().enumerate().last().unwrap();
    let (line, column) = (line + 1, last.len());
    assert_eq!(
        message(cut),
        format!("the plan is truncated: it ends at line {line}, column {column}; compile it again")
    );
    for end in (20..json.len() - 2).step_by(97) {
        let error = Plan::from_json(&json.as_bytes()[..end]).unwrap_err();
        assert!(
            matches!(error, PlanError::Truncated { .. }),
            "{end}: {error}"
        );
    }
}

#[test]
fn unknown_fields_are_refused() {
    let advice = "the plan was edited or written by another version: compile it again";
    let json = text().replacen("\n\"mesh\":", "\n\"extra\":1,\"mesh\":", 1);
    assert_eq!(
        message(&json),
        format!(
            "the plan is damaged at line 3, column 7: unknown field `extra`, expected one of \
             `header`, `mesh`, `partitions`, `inputs`, `outputs`, `carries`, `weights`, \
             `collectives`, `origins`, `ranks`; {advice}"
        )
    );
    let json = text().replacen("\"cfg\":1", "\"tp\":1,\"cfg\":1", 1);
    assert_eq!(
        message(&json),
        format!(
            "the plan is damaged at line 3, column 12: unknown field `tp`, expected one of \
             `cfg`, `ring`, `ulysses`; {advice}"
        )
    );
}

#[test]
fn nothing_may_follow_the_plan() {
    let error = Plan::from_json(format!("{}x", text()).as_bytes()).unwrap_err();
    assert!(
        matches!(&error, PlanError::Body { reason, .. } if reason == "trailing characters"),
        "{error}"
    );
}

#[test]
fn a_negative_size_is_refused() {
    let json = text().replacen("\"arena_bytes\":768", "\"arena_bytes\":-768", 1);
    let error = message(&json);
    assert!(error.contains("invalid value: integer `-768`"), "{error}");
}

#[test]
fn a_saved_plan_is_alone_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.plan.json");
    let plan = Spec::two().plan();
    plan.save(&path).unwrap();
    plan.save(&path).unwrap();
    assert_eq!(Plan::load(&path).unwrap(), plan);
    assert_eq!(Header::load(&path).unwrap(), plan.header);
    assert_eq!(files(folder.path()), ["x.plan.json"]);
}

#[test]
fn a_plan_is_not_saved_over_a_folder_or_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Spec::two().plan();
    let error = plan.save(folder.path()).unwrap_err().to_string();
    let path = folder.path().display();
    assert_eq!(
        error,
        format!("cannot write the plan {path}: it is a folder")
    );
    let missing = folder.path().join("no/x.plan.json");
    let error = plan.save(&missing).unwrap_err();
    assert!(matches!(error, PlanError::Write { .. }), "{error}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_missing_file_is_told() {
    let error = Plan::load(Path::new("no/such.plan.json")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read the plan no/such.plan.json: "),
        "{error}"
    );
}

#[test]
fn an_edited_file_is_refused_when_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.plan.json");
    std::fs::write(&path, text().replacen("\"output\":0", "\"output\":4", 1)).unwrap();
    assert_eq!(
        Plan::load(&path).unwrap_err().to_string(),
        "carry 0: output 4 does not exist, the plan has 1; \
         the plan was edited or written by another version: compile it again"
    );
}

fn files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn each_part_of_the_fingerprint_has_its_own_message() {
    let header = Spec::two().plan().header;
    assert!(header.expect(&header.fingerprint).is_ok());
    let mismatch = |edit: fn(&mut Fingerprint)| {
        let mut wanted = header.fingerprint.clone();
        edit(&mut wanted);
        header.expect(&wanted).unwrap_err().to_string()
    };
    assert_eq!(
        mismatch(|it| it.model = "other".into()),
        "the plan was compiled for model model, this is model other; \
         use the checkpoint that it was compiled for, or compile it again for this one"
    );
    assert_eq!(
        mismatch(|it| it.shape = "6 rows".into()),
        "the plan was compiled for shape 5 rows, 6 rows is asked for; \
         ask for the shape of the plan, or compile it again for this one"
    );
    assert_eq!(
        mismatch(|it| it.dtype = DType::Bf16),
        "the plan was compiled for element type f32, bf16 is asked for; \
         compile it again for this type"
    );
    assert_eq!(
        mismatch(|it| it.mesh = "cfg=1 ring=1 ulysses=1".into()),
        "the plan was compiled for mesh cfg=1 ring=1 ulysses=2, \
         mesh cfg=1 ring=1 ulysses=1 is asked for; \
         run it on the mesh of the plan, or compile it again for this one"
    );
    assert_eq!(
        mismatch(|it| it.kernels = "kernels 2".into()),
        "the plan was compiled for kernels kernels 1, this program has kernels 2; \
         compile it again with this program"
    );
}

/// Offsets of `parts` parts, some of them empty.
fn offsets(parts: usize, longest: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..=longest, parts).prop_map(|lengths| {
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        offsets
    })
}

/// Small plans of any mesh.
pub fn specs() -> impl Strategy<Value = Spec> {
    (1..=2usize, 1..=3usize, 1..=3usize)
        .prop_flat_map(|(cfg, ring, ulysses)| {
            let mesh = mesh(cfg, ring, ulysses);
            let rows = offsets(ring * ulysses, 4);
            // Without any heads there is no width.
            let heads = offsets(ulysses, 3).prop_filter("a width", |it| it[it.len() - 1] > 0);
            (Just(mesh), rows, heads, 1..=2usize, 1..=2usize)
        })
        .prop_map(|(mesh, rows, heads, half, blocks)| Spec {
            mesh,
            rows,
            heads,
            head_dim: 2 * half,
            blocks,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_plan_is_valid_and_comes_back_byte_for_byte(spec in specs()) {
        let plan = spec.plan();
        prop_assert_eq!(plan.check(), Ok(()));
        let json = plan.to_json().unwrap();
        let read = Plan::from_json(&json).unwrap();
        prop_assert_eq!(&read, &plan);
        prop_assert_eq!(read.to_json().unwrap(), json);
    }

    #[test]
    fn any_number_comes_back_bit_for_bit(start: f64, step: f64) {
        prop_assume!(start.is_finite() && step.is_finite());
        let mut plan = Spec::one().plan();
        let Action::Launch(KernelCall::PositionTable { columns, .. }) =
            &mut plan.ranks[0].init[0].action
        else {
            panic!("not a table");
        };
        (columns[0].start, columns[0].step) = (start, step);
        let json = plan.to_json().unwrap();
        let read = Plan::from_json(&json).unwrap();
        prop_assert_eq!(read.to_json().unwrap(), json);
        prop_assert_eq!(read, plan);
    }
}
