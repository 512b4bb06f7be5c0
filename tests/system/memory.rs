//! The memory that a run takes, as the system counts it.

use crate::support::{succeed, text};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use terrace::{Cut, ForwardInputs, Model};

/// What the program itself may take: its code, stacks, and what the kernels of a few threads copy.
const PROGRAM: u64 = 40 << 20;

/// Two blocks of 16 heads: about 150 MB in f32. The file is one hole, read as zeros.
fn write_checkpoint(folder: &Path) {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/configs");
    let config = fs::read(configs.join("transformer-2b.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["num_attention_heads"] = json!(16);
    config["num_layers"] = json!(2);
    let config = serde_json::to_vec(&config).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();

    let model = Model::open(folder).unwrap();
    let inputs = ForwardInputs::noise(&model.transformer().unwrap(), [1, 1, 2, 2], 226).unwrap();
    let plan = inputs.request(&model, &Cut::default()).unwrap();
    let plan = plan.compile().unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    for source in plan.weights.iter().flat_map(|weight| &weight.sources) {
        if header.contains_key(&source.name) {
            continue;
        }
        let begin = end;
        end += 4 * source.shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": source.shape, "data_offsets": [begin, end]});
        header.insert(source.name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

#[test]
fn weights_are_resident_once() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let size = ["--num-frames", "1", "--height", "128", "--width", "128"];
    for (dtype, ranks) in [("f32", "1"), ("f32", "2"), ("bf16", "1"), ("int8", "1")] {
        let model = ["bench", "forward", "--model", text(folder.path())];
        let run = ["--dtype", dtype, "--num-gpus", ranks, "--threads", "1"];
        let once = ["--runs", "1", "--json"];
        let args = [&model[..], &size, &run, &once].concat();
        let found = succeed(folder.path(), &args).out;
        let found: Value = serde_json::from_str(&found).unwrap();
        let bytes = |key: &str| found["memory"][key].as_u64().unwrap();
        let [peak, weights] = ["peak_bytes", "weights_bytes"].map(bytes);
        let scratch = bytes("arena_bytes") + bytes("state_bytes");
        assert!(weights > PROGRAM && peak > weights + scratch, "{found}");
        let most = weights + scratch + scratch / 10 + PROGRAM;
        assert!(peak <= most, "{dtype}, {ranks} ranks: {found}");
    }
}
