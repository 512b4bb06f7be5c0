//! Tests of the passes, one module per pass: text in, snapshot out.

#![allow(clippy::unwrap_used, clippy::panic)]

mod machine;
mod movement;

use terrace_compiler::{CompileOptions, Provenance, SliceGranularity};
use terrace_plan::{DType, Fingerprint, Mesh};

fn mesh(cfg: usize, ring: usize, ulysses: usize) -> Mesh {
    Mesh { cfg, ring, ulysses }
}

fn options(mesh: Mesh, granularity: SliceGranularity) -> CompileOptions {
    CompileOptions { mesh, granularity }
}

fn provenance(mesh: Mesh) -> Provenance {
    Provenance {
        producer: "test".into(),
        fingerprint: Fingerprint {
            model: "model".into(),
            shape: "shape".into(),
            dtype: DType::F32,
            mesh: mesh.to_string(),
            kernels: "none".into(),
        },
        request: "{}".into(),
    }
}
