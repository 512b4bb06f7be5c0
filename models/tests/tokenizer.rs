//! The tokenizer against recorded ids of the reference, from both of its files.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use terrace_models::config::ConfigFile;
use terrace_models::folder::{Component, ModelFolder};
use terrace_models::tokenizer::{Encoded, SpecialTokens, Tokenizer};

struct Case {
    text: String,
    ids: Vec<u32>,
    ids_32: Vec<u32>,
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/demo/tokens.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ids = |value: &Value| {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let cases = cases.as_array().unwrap().iter();
    cases
        .map(|case| Case {
            text: case["text"].as_str().unwrap().into(),
            ids: ids(&case["ids"]),
            ids_32: ids(&case["ids_32"]),
        })
        .collect()
}

fn special() -> SpecialTokens {
    SpecialTokens {
        extra_ids: 0,
        ..SpecialTokens::default()
    }
}

fn from_json() -> Tokenizer {
    let bytes = std::fs::read(demo().join("tokenizer/tokenizer.json")).unwrap();
    Tokenizer::from_json("tokenizer.json", &bytes, &special()).unwrap()
}

fn spiece() -> Vec<u8> {
    std::fs::read(demo().join("tokenizer/spiece.model")).unwrap()
}

fn from_spiece() -> Tokenizer {
    Tokenizer::from_spiece("spiece.model", &spiece(), &special()).unwrap()
}

fn check(tokenizer: &Tokenizer) {
    let cases = cases();
    assert!(cases.len() >= 20);
    for case in cases {
        let text = &case.text;
        let whole = tokenizer.encode(text, case.ids.len()).unwrap();
        assert_eq!(whole.ids, case.ids, "{text:?}");
        assert_eq!(whole.truncated, None, "{text:?}");
        let cut = tokenizer.encode(text, 32).unwrap();
        assert_eq!(cut.ids, case.ids_32, "{text:?}");
        assert_eq!(cut.truncated.is_some(), case.ids.len() > 32, "{text:?}");
    }
}

#[test]
fn tokenizer_json_gives_the_ids_of_the_reference() {
    check(&from_json());
}

#[test]
fn spiece_model_gives_the_ids_of_the_reference() {
    check(&from_spiece());
}

#[test]
fn a_checkpoint_folder_is_read_with_its_config() {
    let folder = ModelFolder::open(demo()).unwrap();
    let tokenizer = Tokenizer::open(&folder.component(Component::Tokenizer).unwrap()).unwrap();
    check(&tokenizer);
}

#[test]
fn a_folder_without_tokenizer_json_is_read_too() {
    let files: [(&str, &'static [u8]); 2] = [
        (
            "tokenizer/spiece.model",
            include_bytes!("../demo/tokenizer/spiece.model"),
        ),
        ("tokenizer/tokenizer_config.json", br#"{"extra_ids": 0}"#),
    ];
    let folder = ModelFolder::embedded(files).unwrap();
    let tokenizer = Tokenizer::open(&folder.component(Component::Tokenizer).unwrap()).unwrap();
    check(&tokenizer);
}

#[test]
fn the_text_that_does_not_fit_is_told() {
    for tokenizer in [from_json(), from_spiece()] {
        let text = "a red circle moving right on a black background";
        // a, red, circle, moving, the end; "circ" "le" and "mov" "ing" are two pieces each.
        let cut = tokenizer.encode(text, 7).unwrap();
        assert_eq!(cut.ids, [3, 33, 11, 6, 7, 10, 1]);
        assert_eq!(
            cut.truncated.as_deref(),
            Some("right on a black background")
        );
        let only_the_end = tokenizer.encode(text, 1).unwrap();
        assert_eq!(
            only_the_end,
            Encoded {
                ids: vec![1],
                truncated: Some(text.into()),
            }
        );
    }
}

#[test]
fn sentinels_follow_the_pieces_in_reverse() {
    let special = SpecialTokens {
        extra_ids: 3,
        ..SpecialTokens::default()
    };
    let tokenizer = Tokenizer::from_spiece("spiece.model", &spiece(), &special).unwrap();
    let ids = tokenizer
        .encode("<extra_id_0> <extra_id_2>", 3)
        .unwrap()
        .ids;
    assert_eq!(ids, [514, 512, 1]);
}

#[test]
fn special_tokens_are_read_from_the_config() {
    let text = r#"{"eos_token": {"content": "</end>", "lstrip": false}, "pad_token": "</s>",
        "model_max_length": 512}"#;
    let config = ConfigFile::parse("tokenizer_config.json", text).unwrap();
    let special = SpecialTokens::from_config(config).unwrap();
    assert_eq!(special.eos, "</end>");
    assert_eq!(special.pad, "</s>");
    assert_eq!(special.unknown, "<unk>");
    assert_eq!(special.extra_ids, 100);
    let error = Tokenizer::from_json(
        "tokenizer.json",
        &std::fs::read(demo().join("tokenizer/tokenizer.json")).unwrap(),
        &special,
    );
    insta::assert_snapshot!(
        error.unwrap_err(),
        @"tokenizer.json: not a T5 tokenizer: it has no token </end>"
    );
}

#[test]
fn damaged_files_are_refused() {
    let json = Tokenizer::from_json("tokenizer.json", b"{", &special());
    insta::assert_snapshot!(
        json.unwrap_err(),
        @"tokenizer.json: not a T5 tokenizer: EOF while parsing an object at line 1 column 1"
    );
    let bytes = spiece();
    let spiece = Tokenizer::from_spiece("spiece.model", &bytes[..bytes.len() / 2], &special());
    let message = spiece.unwrap_err().to_string();
    assert!(
        message.starts_with("spiece.model: not a T5 tokenizer: "),
        "{message}"
    );
    insta::assert_snapshot!(
        Tokenizer::from_spiece("spiece.model", b"", &special()).unwrap_err(),
        @"spiece.model: not a T5 tokenizer: it has no trainer_spec"
    );
    insta::assert_snapshot!(
        from_json().encode("text", 0).unwrap_err(),
        @"number of text tokens 0 is not served: expected at least 1"
    );
}
