//! The text encoder against transformers.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/device.rs"]
mod device;
#[path = "common/graphs.rs"]
mod graphs;

use graphs::{case, demo, goldens, relative_error, run};
use std::path::Path;
use terrace_models::config::ConfigFile;
use terrace_models::text_encoder::{TextEncoderConfig, TextShape, text_encoder};
use terrace_runtime::HostTensor;

/// Relative L2 error of the CPU against the reference.
const TOLERANCE: f64 = 1e-5;

fn encode(folder: &Path, ids: &HostTensor) -> HostTensor {
    let file = ConfigFile::read(&folder.join("config.json")).unwrap();
    let config = TextEncoderConfig::from_config(file).unwrap();
    let [batch, length] = *ids.shape() else {
        panic!("{:?}", ids.shape());
    };
    let graph = text_encoder(&config, &TextShape { batch, length }).unwrap();
    run(graph, folder, ("input_ids", ids), "prompt_embeds")
}

fn check(name: &str, found: &HostTensor, expected: &HostTensor) {
    let error = relative_error(found, expected);
    assert!(error <= device::tolerance(TOLERANCE), "{name}: {error:e}");
}

#[test]
fn random_encoders_follow_the_reference() {
    for folder in ["t5-v1.1", "t5-other-buckets"] {
        for length in ["length-17", "length-226"] {
            let name = format!("{folder}/{length}");
            let case = case(&name);
            let encoder = goldens().join(folder).join("text_encoder");
            let found = encode(&encoder, &case["input_ids"]);
            check(&name, &found, &case["last_hidden_state"]);
        }
    }
}

#[test]
fn the_demo_follows_the_reference() {
    let case = case("demo/golden");
    for side in ["cond", "uncond"] {
        let ids = &case[&format!("input_ids_{side}")];
        let found = encode(&demo().join("text_encoder"), ids);
        check(side, &found, &case[&format!("text_{side}")]);
    }
}
