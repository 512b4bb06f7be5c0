//! Checkpoint folders: whole, in parts, single components, embedded, and what is refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use tempfile::TempDir;
use terrace_models::folder::{Component, ModelFolder, Pipeline, WeightFiles};

const TRANSFORMER: &str = r#"{"_class_name": "CogVideoXTransformer3DModel"}"#;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// A refusal with the temporary folder's name taken out.
fn refusal(root: &TempDir, error: impl ToString) -> String {
    let name = root.path().display().to_string();
    error.to_string().replace(&name, "MODEL")
}

fn open_refusal(files: &[(&str, &str)]) -> String {
    let root = folder(files);
    let error = ModelFolder::open(root.path()).unwrap_err();
    refusal(&root, error)
}

fn index(class: &str) -> String {
    format!(
        r#"{{"_class_name": "{class}", "_diffusers_version": "0.42.1",
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKL"], "text_encoder": [null, null]}}"#
    )
}

#[test]
fn the_demo_has_every_component() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let model = ModelFolder::open(&demo).unwrap();
    assert_eq!(model.pipeline(), Some(Pipeline::TextToVideo));
    model.check_text_to_video().unwrap();
    for component in Component::ALL {
        let found = model.component(component).unwrap();
        let weights = WeightFiles::Folder(demo.join(component.name()).join(""));
        assert_eq!(found.weights(), weights);
    }
    let vae = model.component(Component::Vae).unwrap();
    let class = ["AutoencoderKLCogVideoX"];
    assert_eq!(
        vae.config("config.json").unwrap().class(&class).unwrap(),
        class[0]
    );
}

#[test]
fn embedded_files_are_a_folder_too() {
    let files: [(&str, &'static [u8]); 4] = [
        (
            "vae/config.json",
            b"{\"_class_name\": \"AutoencoderKLCogVideoX\"}",
        ),
        ("vae/diffusion_pytorch_model.safetensors", b"weights"),
        ("vae/notes/old.safetensors", b"not these"),
        ("transformer/other.safetensors", b"nor these"),
    ];
    let model = ModelFolder::embedded(files).unwrap();
    assert_eq!(model.pipeline(), None);
    let vae = model.component(Component::Vae).unwrap();
    assert_eq!(
        vae.weights(),
        WeightFiles::Embedded(vec![(
            "diffusion_pytorch_model.safetensors".into(),
            b"weights"
        )])
    );
    assert!(vae.has("config.json") && !vae.has("other.json"));
    insta::assert_snapshot!(
        vae.text("other.json").unwrap_err(),
        @"cannot read <embedded>/vae/other.json: entity not found"
    );
    insta::assert_snapshot!(
        model.component(Component::Transformer).unwrap_err(),
        @"the embedded model has no transformer; expected transformer/config.json"
    );
}

#[test]
fn a_transformer_config_alone_is_a_model() {
    let root = folder(&[("transformer/config.json", TRANSFORMER)]);
    let model = ModelFolder::open(root.path()).unwrap();
    assert_eq!(model.pipeline(), None);
    let transformer = model.component(Component::Transformer).unwrap();
    assert_eq!(transformer.text("config.json").unwrap(), TRANSFORMER);
    let error = model.component(Component::Tokenizer).unwrap_err();
    insta::assert_snapshot!(refusal(&root, error), @"MODEL has no tokenizer; expected tokenizer/tokenizer.json or tokenizer/spiece.model");
}

#[test]
fn a_component_folder_is_a_model_of_that_component() {
    let cases = [
        (Component::Transformer, "config.json", TRANSFORMER),
        (
            Component::Vae,
            "config.json",
            r#"{"_class_name": "AutoencoderKLCogVideoX"}"#,
        ),
        (
            Component::TextEncoder,
            "config.json",
            r#"{"model_type": "t5"}"#,
        ),
        (Component::Tokenizer, "spiece.model", ""),
        (Component::Scheduler, "scheduler_config.json", "{}"),
    ];
    for (component, file, text) in cases {
        let root = folder(&[(file, text)]);
        let model = ModelFolder::open(root.path()).unwrap();
        let found = model.component(component).unwrap();
        assert_eq!(found.text(file).unwrap(), text);
        let weights = WeightFiles::Folder(root.path().join(""));
        assert_eq!(found.weights(), weights);
        let other = match component {
            Component::Vae => Component::Transformer,
            _ => Component::Vae,
        };
        model.component(other).unwrap_err();
    }
}

#[test]
fn folders_without_a_model_are_refused() {
    insta::assert_snapshot!(open_refusal(&[("readme.md", "")]), @"MODEL: no model there; expected model_index.json, the config.json of one component, or component folders such as transformer");
    insta::assert_snapshot!(open_refusal(&[("config.json", r#"{"_class_name": "UNet"}"#)]), @"MODEL/config.json: expected the config of CogVideoXTransformer3DModel or AutoencoderKLCogVideoX, found UNet");
    insta::assert_snapshot!(open_refusal(&[("model_index.json", "[1]")]), @"MODEL/model_index.json: expected an object of config keys, found [1]");
}

#[test]
fn pipelines_are_known_by_class() {
    let siblings = [
        ("CogVideoXImageToVideoPipeline", Pipeline::ImageToVideo),
        ("CogVideoXVideoToVideoPipeline", Pipeline::VideoToVideo),
    ];
    for (class, pipeline) in siblings {
        let files = [
            ("model_index.json", &*index(class)),
            ("transformer/config.json", TRANSFORMER),
        ];
        let root = folder(&files);
        let model = ModelFolder::open(root.path()).unwrap();
        assert_eq!(model.pipeline(), Some(pipeline));
        model.component(Component::Transformer).unwrap();
        let message = refusal(&root, model.check_text_to_video().unwrap_err());
        assert_eq!(
            message,
            format!(
                "MODEL/model_index.json: videos are not generated with {class} yet, only with \
                 CogVideoXPipeline; one forward of its transformer is served"
            )
        );
    }
    insta::assert_snapshot!(open_refusal(&[("model_index.json", &index("WanPipeline"))]), @"MODEL/model_index.json: expected the config of CogVideoXPipeline or CogVideoXImageToVideoPipeline or CogVideoXVideoToVideoPipeline, found WanPipeline");
}

#[test]
fn classes_of_components_are_checked() {
    let files = [
        ("model_index.json", &*index("CogVideoXPipeline")),
        ("vae/config.json", "{}"),
        ("text_encoder/config.json", "{}"),
    ];
    let root = folder(&files);
    let model = ModelFolder::open(root.path()).unwrap();
    let refused = |c| refusal(&root, model.component(c).unwrap_err());
    insta::assert_snapshot!(refused(Component::Vae), @"MODEL/model_index.json: vae: expected the config of AutoencoderKLCogVideoX, found AutoencoderKL");
    insta::assert_snapshot!(refused(Component::TextEncoder), @"MODEL/model_index.json: text_encoder: expected the config of T5EncoderModel, found none");
    let extra = index("CogVideoXPipeline").replace("vae", "controlnet");
    insta::assert_snapshot!(open_refusal(&[("model_index.json", &extra)]), @r#"MODEL/model_index.json: unknown keys "controlnet"; CogVideoXPipeline of diffusers 0.42 has no such fields"#);
}
