//! Checkpoints on disk: every storage type, joined and cut weights, and whatever can be wrong.

use crate::common::{
    boxed, counting, linear_plan, options, source, table_plan, text, through, weight,
};
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use terrace_plan::{DType, Plan, Weight, WeightLayout};
use terrace_runtime::{
    Checkpoint, Cpu, LoadedWeight, RuntimeError, Session, StoredDType, WeightCache,
};

const MODEL: &str = "model.safetensors";

/// A tensor to be stored.
struct Stored {
    dtype: StoredDType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(dtype: StoredDType, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|&v| match dtype {
        StoredDType::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
        StoredDType::BF16 => half::bf16::from_f32(v).to_le_bytes().to_vec(),
        StoredDType::F64 => f64::from(v).to_le_bytes().to_vec(),
        StoredDType::I64 => (v as i64).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    });
    Stored {
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.collect(),
    }
}

fn numbers(shape: &[usize]) -> Stored {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
    stored(StoredDType::F32, shape, &values)
}

fn serialized(tensors: &[(&str, Stored)]) -> Vec<u8> {
    let views: BTreeMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, t)| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
            (*name, view)
        })
        .collect();
    safetensors::serialize(views, None).unwrap()
}

/// A folder with files that goes away with the value.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self(folder)
    }

    /// One file with these tensors.
    fn of(tensors: &[(&str, Stored)]) -> Self {
        Self::new(&[(MODEL, serialized(tensors))])
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn open(&self) -> Result<Checkpoint, RuntimeError> {
        Checkpoint::open(self.path())
    }
}

fn session(plan: Plan, checkpoint: &Checkpoint) -> Result<Session, RuntimeError> {
    let cache = WeightCache::new();
    Session::new(Arc::new(Cpu), Arc::new(plan), checkpoint, &cache, options())
}

fn linear(weight: Weight) -> Plan {
    let (n, k) = (weight.shape[0], weight.shape[1]);
    linear_plan(n, k, weight, None)
}

/// `x W^T` for `x` of two rows that count and a `W` that counts.
fn product(n: usize, k: usize) -> Vec<f32> {
    let row = |row: usize, column: usize| -> f32 {
        (0..k)
            .map(|i| ((row * k + i) * (column * k + i)) as f32)
            .sum()
    };
    (0..2)
        .flat_map(|r| (0..n).map(move |c| row(r, c)))
        .collect()
}

#[test]
fn all_storage_types_give_the_same_weights() {
    for dtype in [
        StoredDType::F32,
        StoredDType::F64,
        StoredDType::F16,
        StoredDType::BF16,
    ] {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let folder = Folder::of(&[
            ("w", stored(dtype, &[3, 4], &values)),
            ("b", stored(dtype, &[3], &[0.5, -1.0, 2.0])),
        ]);
        let checkpoint = folder.open().unwrap();
        let plan = linear_plan(
            3,
            4,
            weight("w", &[3, 4], WeightLayout::Linear),
            Some(weight("b", &[3], WeightLayout::Plain)),
        );
        let mut session = session(plan, &checkpoint).unwrap();
        let bias = [0.5, -1.0, 2.0].repeat(2);
        let expected: Vec<f32> = product(3, 4)
            .iter()
            .zip(&bias)
            .map(|(y, b)| y + b)
            .collect();
        assert_eq!(
            through(&mut session, &counting(&[2, 4])),
            expected,
            "{dtype:?}"
        );
        assert_eq!(session.memory().weights, 4 * (12 + 3));
    }
}

#[test]
fn sources_are_joined_regrouped_and_known_by_other_names() {
    let part = |first: usize, rows: usize| {
        let values: Vec<f32> = (first * 4..(first + rows) * 4).map(|i| i as f32).collect();
        stored(StoredDType::BF16, &[rows, 4, 1, 1], &values)
    };
    let folder = Folder::of(&[("q", part(0, 2)), ("old_k", part(2, 1)), ("v", part(3, 3))]);
    let mut k = source("k", &[1, 4, 1, 1]);
    k.aliases = vec!["older_k".to_owned(), "old_k".to_owned()];
    let joined = Weight {
        sources: vec![source("q", &[2, 4, 1, 1]), k, source("v", &[3, 4, 1, 1])],
        dtype: DType::F32,
        shape: vec![6, 4],
        layout: WeightLayout::Linear,
        boxes: Vec::new(),
        len: 24,
    };
    let mut session = session(linear(joined), &folder.open().unwrap()).unwrap();
    assert_eq!(through(&mut session, &counting(&[2, 4])), product(6, 4));
}

#[test]
fn a_plain_weight_is_cut_to_what_the_rank_holds() {
    let folder = Folder::of(&[("positions", numbers(&[4, 3]))]);
    let mut table = weight("positions", &[4, 3], WeightLayout::Plain);
    // Rows 1 and 3.
    table.boxes = boxed(&[2, 3], (3, &[6, 1]), (0, &[3, 1]));
    table.len = 6;
    let mut session = session(table_plan(2, 3, table), &folder.open().unwrap()).unwrap();
    let y = through(&mut session, &counting(&[2, 3]));
    assert_eq!(y, [3.0, 5.0, 7.0, 12.0, 14.0, 16.0]);
}

#[test]
fn convolutions_are_packed_and_cut_weights_keep_their_layout() {
    let folder = Folder::of(&[("conv", numbers(&[2, 1, 3, 1, 1]))]);
    let conv = weight("conv", &[2, 1, 3, 1, 1], WeightLayout::Conv3d);
    let loaded = LoadedWeight::load(&folder.open().unwrap(), &conv).unwrap();
    assert!(matches!(loaded, LoadedWeight::Conv3d(_)));
}

#[test]
fn shards_are_found_through_their_index() {
    let index = br#"{"metadata": {}, "weight_map": {"w": "b.safetensors", "x": "a.safetensors"}}"#;
    let folder = Folder::new(&[
        ("model.safetensors.index.json", index.to_vec()),
        ("a.safetensors", serialized(&[("x", numbers(&[1]))])),
        (
            "b.safetensors",
            serialized(&[("w", numbers(&[3, 2])), ("rest", numbers(&[1]))]),
        ),
    ]);
    let checkpoint = folder.open().unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w", "x"]);
    let plan = linear(weight("w", &[3, 2], WeightLayout::Linear));
    let mut opened = session(plan, &checkpoint).unwrap();
    assert_eq!(through(&mut opened, &counting(&[2, 2])), product(3, 2));
    let plan = linear_plan(
        3,
        2,
        weight("w", &[3, 2], WeightLayout::Linear),
        Some(weight("rest", &[3], WeightLayout::Plain)),
    );
    assert_eq!(
        text(session(plan, &checkpoint)),
        format!(
            "tensor `rest` of {} is in {}, but the index does not list it there; download the \
             index again",
            folder.path().display(),
            folder.file("b.safetensors").display()
        )
    );
}

#[test]
fn a_file_and_embedded_bytes_are_checkpoints_too() {
    let bytes = serialized(&[("w", numbers(&[3, 2]))]);
    let folder = Folder::new(&[("any.safetensors", bytes.clone())]);
    let file = Checkpoint::open(folder.file("any.safetensors")).unwrap();
    let embedded: &'static [u8] = bytes.leak();
    let part = Checkpoint::from_bytes(&[("part", embedded)]).unwrap();
    for checkpoint in [file, part] {
        let plan = linear(weight("w", &[3, 2], WeightLayout::Linear));
        let mut session = session(plan, &checkpoint).unwrap();
        assert_eq!(through(&mut session, &counting(&[2, 2])), product(3, 2));
    }
}

#[test]
fn sessions_share_one_copy_of_each_weight() {
    let folder = Folder::of(&[("w", numbers(&[3, 2]))]);
    let (checkpoint, other) = (folder.open().unwrap(), folder.open().unwrap());
    let cache = WeightCache::new();
    let plan = Arc::new(linear(weight("w", &[3, 2], WeightLayout::Linear)));
    let open = |checkpoint| {
        let plan = Arc::clone(&plan);
        Session::new(Arc::new(Cpu), plan, checkpoint, &cache, options()).unwrap()
    };
    let load = |checkpoint| {
        let loaded = cache.load_all(checkpoint, &plan.weights, LoadedWeight::load);
        loaded.unwrap().remove(0)
    };
    assert_eq!(cache.missing(&checkpoint, &plan.weights).len(), 1);
    let (first, second) = (open(&checkpoint), open(&checkpoint));
    assert_eq!(cache.len(), 1);
    assert!(cache.missing(&checkpoint, &plan.weights).is_empty());
    assert!(Arc::ptr_eq(&load(&checkpoint), &load(&checkpoint)));
    // Another checkpoint is another weight, even when its files are the same.
    assert!(!Arc::ptr_eq(&load(&checkpoint), &load(&other)));
    assert_eq!(cache.len(), 2);
    cache.shrink();
    assert_eq!(cache.len(), 1);
    drop((first, second));
    cache.shrink();
    assert!(cache.is_empty());
}

#[test]
fn a_missing_tensor_is_named_with_what_comes_close() {
    let folder = Folder::of(&[
        ("blocks.0.ff.weight", numbers(&[3, 2])),
        ("b", numbers(&[3])),
    ]);
    let checkpoint = folder.open().unwrap();
    let open = |name| {
        text(session(
            linear(weight(name, &[3, 2], WeightLayout::Linear)),
            &checkpoint,
        ))
    };
    let path = folder.path().display();
    assert_eq!(
        open("blocks.0.ff.wight"),
        format!(
            "{path} has no tensor `blocks.0.ff.wight` among its 2; did you mean \
             `blocks.0.ff.weight`?"
        )
    );
    assert_eq!(
        open("proj_out"),
        format!("{path} has no tensor `proj_out` among its 2")
    );
    assert_eq!(
        text(session(
            linear(weight("w", &[3, 2], WeightLayout::Linear)),
            &Checkpoint::empty()
        )),
        "empty checkpoint has no tensor `w` among its 0"
    );
}

#[test]
fn a_tensor_of_another_shape_or_type_is_named_with_its_file() {
    let folder = Folder::of(&[
        ("w", numbers(&[2, 3])),
        ("ids", stored(StoredDType::I64, &[3, 2], &[0.0; 6])),
    ]);
    let checkpoint = folder.open().unwrap();
    let file = folder.file(MODEL);
    let mut aliased = weight("weight", &[3, 2], WeightLayout::Linear);
    aliased.sources[0].aliases = vec!["w".to_owned()];
    assert_eq!(
        text(session(linear(aliased), &checkpoint)),
        format!(
            "tensor `w` of {} has shape [2, 3], expected [3, 2]; the plan was compiled for another \
             checkpoint",
            file.display()
        )
    );
    assert_eq!(
        text(session(
            linear(weight("ids", &[3, 2], WeightLayout::Linear)),
            &checkpoint
        )),
        format!(
            "tensor `ids` of {} is i64, expected f32, f64, f16 or bf16",
            file.display()
        )
    );
}

#[test]
fn a_truncated_file_says_how_much_is_missing() {
    let whole = serialized(&[("w", numbers(&[3, 2])), ("x", numbers(&[5]))]);
    let header = whole.len() - 4 * 11;
    for (len, expected) in [
        (whole.len() - 1, whole.len()),
        (header - 3, header),
        (3, 8),
        (0, 8),
    ] {
        let folder = Folder::new(&[(MODEL, whole[..len].to_vec())]);
        assert_eq!(
            text(folder.open()),
            format!(
                "{} is truncated: its header promises {expected} bytes, it has {len}; download it \
                 again",
                folder.file(MODEL).display()
            )
        );
    }
}

#[test]
fn a_file_that_is_no_safetensors_file_is_refused() {
    let mut longer = serialized(&[("w", numbers(&[3, 2]))]);
    longer.push(0);
    for bytes in [vec![b'<'; 4000], longer] {
        let folder = Folder::new(&[(MODEL, bytes)]);
        let start = format!(
            "{} is not a legal safetensors file: ",
            folder.file(MODEL).display()
        );
        let message = text(folder.open());
        assert!(
            message.starts_with(&start) && message.len() > start.len(),
            "{message}"
        );
    }
}

#[test]
fn a_folder_without_weights_says_what_it_looked_for() {
    let folder = Folder::new(&[
        ("pytorch_model.bin", Vec::new()),
        ("config.json", Vec::new()),
    ]);
    let expected = format!(
        "{} holds no weights: expected `diffusion_pytorch_model.safetensors`, `model.safetensors` \
         or one of them with `.index.json`, found `pytorch_model.bin`",
        folder.path().display()
    );
    assert_eq!(text(folder.open()), expected);
    let empty = Folder::new(&[]);
    assert!(text(empty.open()).ends_with("found no weight file"));
    let missing = folder.file("transformer");
    assert_eq!(
        text(Checkpoint::open(&missing)),
        format!(
            "there is no checkpoint at {}: expected a folder or a safetensors file",
            missing.display()
        )
    );
}

#[test]
fn an_index_must_fit_its_shards() {
    let name = "diffusion_pytorch_model.safetensors.index.json";
    let folder = |index: &str| {
        Folder::new(&[
            (name, index.as_bytes().to_vec()),
            ("a.safetensors", serialized(&[("w", numbers(&[1]))])),
        ])
    };
    let check = |index: &str, expected: &str| {
        let folder = folder(index);
        let path = folder.file(name).display().to_string();
        assert_eq!(text(folder.open()), expected.replace("INDEX", &path));
    };
    check(
        r#"{"weight_map": {"w": "a.safetensors", "x": "a.safetensors"}}"#,
        "INDEX puts tensor `x` into `a.safetensors`, but it is not there; index and shards are of \
         different checkpoints",
    );
    check(
        r#"{"weight_map": {"w": "a.safetensors", "x": "b.safetensors", "y": "b.safetensors"}}"#,
        "INDEX puts 2 tensors into `b.safetensors`, but there is no such file; download it",
    );
    check(
        r#"{"weight_map": {"w": "../a.safetensors"}}"#,
        "INDEX names `../a.safetensors`, expected a file in its own folder",
    );
    check(
        r#"{"weights": {}}"#,
        "INDEX is not an index of shards: missing field `weight_map` at line 1 column 15",
    );
}

/// Bytes of the mapping of a file that lie in memory.
#[cfg(target_os = "linux")]
fn resident(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines();
    lines
        .find(|line| line.ends_with(path.to_str().unwrap()))
        .unwrap();
    let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    let kib: usize = rss.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn a_converted_tensor_is_held_once() {
    let (n, k) = (512, 1024);
    let folder = Folder::of(&[("w", numbers(&[n, k]))]);
    let checkpoint = folder.open().unwrap();
    let bytes = checkpoint.tensor("w").unwrap().bytes;
    assert_ne!(bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 0);
    let path = folder.file(MODEL).canonicalize().unwrap();
    assert!(resident(&path) >= bytes.len());
    let weight = weight("w", &[n, k], WeightLayout::Linear);
    LoadedWeight::load(&checkpoint, &weight).unwrap();
    assert!(resident(&path) < bytes.len() / 4, "{}", resident(&path));
    assert_eq!(bytes[4..8], 1f32.to_le_bytes());
}
