//! Reference cases of the transformer, and how tests run graphs.

use crate::device;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use terrace::{Device, Runner};
use terrace_compiler::ir::{Dim, Graph};
use terrace_compiler::ops::Op;
use terrace_compiler::{CompileError, CompileOptions, Provenance, SliceGranularity, compile};
use terrace_models::transformer::{ForwardShape, TransformerConfig, forward};
use terrace_plan::{DType, Fingerprint, Mesh, Plan};
use terrace_runtime::{Checkpoint, HostTensor, Session, read_tensors, write_tensors};

/// A checkpoint and what runs with it.
pub struct Weights {
    checkpoint: Checkpoint,
    runner: Runner,
}

/// A forward of the reference.
pub struct Case {
    name: String,
    pub config: TransformerConfig,
    pub weights: Arc<Weights>,
    tensors: BTreeMap<String, HostTensor>,
}

impl Weights {
    pub fn open(folder: &Path) -> Self {
        Self {
            checkpoint: Checkpoint::open(folder).unwrap(),
            runner: device::runner(),
        }
    }

    pub fn none() -> Self {
        Self {
            checkpoint: Checkpoint::empty(),
            runner: device::runner(),
        }
    }
}

impl Case {
    /// A case without a reference, with made weights and inputs.
    pub fn made(config: TransformerConfig, shape: ForwardShape) -> Self {
        let graph = forward(&config, &shape).unwrap();
        let mut weights = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for id in graph.order() {
            let seed = id.0;
            if let Op::Weight(weight) = &graph.node(id).op {
                for source in &weight.sources {
                    weights.insert(source.name.clone(), values(&source.shape, seed));
                }
            } else if let Op::Input(input) = &graph.node(id).op {
                let shape: Vec<usize> = input.host.iter().map(Dim::size).collect();
                tensors.insert(input.name.clone(), values(&shape, seed));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        write_tensors(folder.path().join("model.safetensors"), &weights).unwrap();
        Self {
            name: "made".into(),
            config,
            weights: Arc::new(Weights::open(folder.path())),
            tensors,
        }
    }

    pub fn tensor(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.get(name)
    }

    pub fn expected(&self) -> &[f32] {
        self.tensors["sample"].as_f32().unwrap()
    }

    pub fn batch(&self) -> usize {
        self.shape().batch
    }

    pub fn shape(&self) -> ForwardShape {
        let shape = self.tensors["hidden_states"].shape();
        let [batch, frames, _, height, width] = *shape else {
            panic!("hidden_states {shape:?}");
        };
        ForwardShape {
            batch,
            frames,
            height,
            width,
            text: self.tensors["encoder_hidden_states"].shape()[1],
        }
    }

    /// Rows or cells of the token grid.
    pub fn slices(&self, granularity: SliceGranularity) -> usize {
        let (shape, patch) = (self.shape(), self.config.patch_size);
        match granularity {
            SliceGranularity::Row => shape.height / patch,
            SliceGranularity::Cell => (shape.height / patch) * (shape.width / patch),
        }
    }

    pub fn graph(&self) -> Graph {
        forward(&self.config, &self.shape()).unwrap()
    }

    pub fn inputs(&self) -> Vec<(&str, HostTensor)> {
        ["hidden_states", "encoder_hidden_states", "timestep", "ofs"]
            .into_iter()
            .filter_map(|name| Some((name, to_f32(self.tensor(name)?))))
            .collect()
    }

    pub fn run(&self, mesh: Mesh, granularity: SliceGranularity) -> Vec<f32> {
        self.run_in(DType::F32, mesh, granularity)
    }

    /// The sample with products of another type.
    pub fn run_in(&self, dtype: DType, mesh: Mesh, granularity: SliceGranularity) -> Vec<f32> {
        let plan = plan_in(dtype, self.graph(), mesh, granularity)
            .unwrap_or_else(|e| panic!("{self} on {mesh:?} in {dtype}: {e}"));
        run(plan, &self.weights, &self.inputs(), "sample")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// Every forward of the reference, in order of name.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for folder in sorted(&goldens()) {
        let transformer = folder.join("transformer");
        if transformer.is_dir() {
            cases.extend(cases_in(&folder, &transformer));
        }
    }
    cases
}

fn cases_in(folder: &Path, transformer: &Path) -> Vec<Case> {
    let config = TransformerConfig::read(&transformer.join("config.json")).unwrap();
    let weights = Arc::new(Weights::open(transformer));
    sorted(folder)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "safetensors"))
        .map(|file| Case {
            name: format!("{}", file.strip_prefix(goldens()).unwrap().display()),
            config: config.clone(),
            weights: Arc::clone(&weights),
            tensors: read_tensors(&file).unwrap(),
        })
        .collect()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every split of 1 to 8, 12 and 16 ranks, of fewer on devices that ranks have to share.
pub fn meshes() -> impl Iterator<Item = Mesh> {
    let counts = match device::device() {
        Device::Cpu => vec![1, 2, 3, 4, 5, 6, 7, 8, 12, 16],
        Device::Wgpu { .. } | Device::Cuda { .. } => vec![1, 2, 3, 5],
    };
    counts.into_iter().flat_map(|ranks| {
        [1, 2].into_iter().flat_map(move |cfg| {
            (1..=ranks).filter_map(move |ulysses| {
                let ring = ranks / (cfg * ulysses);
                (cfg * ring * ulysses == ranks).then_some(Mesh { cfg, ring, ulysses })
            })
        })
    })
}

pub fn try_plan(
    graph: Graph,
    mesh: Mesh,
    granularity: SliceGranularity,
) -> Result<Plan, CompileError> {
    plan_in(DType::F32, graph, mesh, granularity)
}

fn plan_in(
    dtype: DType,
    graph: Graph,
    mesh: Mesh,
    granularity: SliceGranularity,
) -> Result<Plan, CompileError> {
    let options = CompileOptions {
        mesh,
        granularity,
        dtype,
        activations: DType::F32,
    };
    let provenance = Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: String::new(),
            shape: String::new(),
            dtype,
            mesh: mesh.to_string(),
            kernels: String::new(),
        },
        request: "{}".into(),
    };
    compile(graph, &options, &provenance, &mut |_, _| {})
}

/// Runs a plan once and gives one of its outputs.
pub fn run(plan: Plan, weights: &Weights, inputs: &[(&str, HostTensor)], output: &str) -> Vec<f32> {
    let mut session = session(plan, weights);
    for (name, tensor) in inputs {
        session.set(name, tensor).unwrap();
    }
    session.run().unwrap();
    session.get(output).unwrap().as_f32().unwrap().to_vec()
}

pub fn session(plan: Plan, weights: &Weights) -> Session {
    let session = weights.runner.session(Arc::new(plan), &weights.checkpoint);
    session.unwrap()
}

/// Numbers between -1 and 1 that differ from seed to seed.
pub fn values(shape: &[usize], seed: u32) -> HostTensor {
    let len = shape.iter().product();
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let data = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    });
    HostTensor::f32(shape.to_vec(), data.take(len).collect::<Vec<_>>()).unwrap()
}

/// `|found - expected| / |expected|` in the L2 norm.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(expected);
    let difference: f64 = pairs
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let size: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    (difference / size).sqrt()
}

fn to_f32(tensor: &HostTensor) -> HostTensor {
    match tensor.as_u32() {
        Ok(values) => {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            HostTensor::f32(tensor.shape().to_vec(), values).unwrap()
        }
        Err(_) => tensor.clone(),
    }
}
