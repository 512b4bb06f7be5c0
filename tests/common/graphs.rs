//! Compiling and running whole graphs on one rank, and comparing with the reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use terrace_compiler::ir::Graph;
use terrace_compiler::{CompileOptions, Provenance, SliceGranularity, compile};
use terrace_plan::{DType, Fingerprint, Mesh, Plan};
use terrace_runtime::{Checkpoint, HostTensor, read_tensors};

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// Recorded tensors of one case.
pub fn case(name: &str) -> BTreeMap<String, HostTensor> {
    read_tensors(goldens().join(format!("{name}.safetensors"))).unwrap()
}

pub fn plan(graph: Graph) -> Plan {
    let options = CompileOptions {
        mesh: Mesh::ONE,
        granularity: SliceGranularity::Cell,
        dtype: DType::F32,
        activations: DType::F32,
    };
    let provenance = Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: String::new(),
            shape: String::new(),
            dtype: DType::F32,
            mesh: Mesh::ONE.to_string(),
            kernels: String::new(),
        },
        request: "{}".into(),
    };
    compile(graph, &options, &provenance, &mut |_, _| {}).unwrap()
}

/// Runs a graph once with the weights in `folder`.
pub fn run(graph: Graph, folder: &Path, input: (&str, &HostTensor), output: &str) -> HostTensor {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let runner = crate::device::runner();
    let mut session = runner.session(Arc::new(plan(graph)), &checkpoint).unwrap();
    session.set(input.0, input.1).unwrap();
    session.run().unwrap();
    session.get(output).unwrap()
}

/// `|found - expected| / |expected|` in the L2 norm.
pub fn relative_error(found: &HostTensor, expected: &HostTensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let square = |x: f64| x * x;
    let (found, expected) = (found.as_f32().unwrap(), expected.as_f32().unwrap());
    let pairs = found.iter().zip(expected);
    let error: f64 = pairs
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let size: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    (error / size).sqrt()
}
