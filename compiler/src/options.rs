//! What the compiler is asked for besides the graph.

use terrace_plan::{DType, Fingerprint, Mesh};

/// Where slices of the latent height may be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SliceGranularity {
    /// At rows of the token grid only.
    Row,
    /// At any cell of the `(h w)` raster: slices differ by at most one cell.
    #[default]
    Cell,
}

/// Options of a compilation.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// Sizes of the mesh axes.
    pub mesh: Mesh,
    /// Where slices may be cut.
    pub granularity: SliceGranularity,
    /// Element type of the weights of matrix products and convolutions: f32, f16 or bf16 with f32 sums, or,
    /// where the pass that chooses allows it and bf16 elsewhere, i8 with exact or f8e4m3 with f32 sums.
    pub dtype: DType,
    /// Element type of the tensors between products, where values of the caller, positions, times,
    /// running states and what the scheduler computes stay f32.
    pub activations: DType,
}

/// What a plan records about its making, given by the caller because the compiler knows no
/// model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Name and version of the program.
    pub producer: String,
    /// What the plan will fit.
    pub fingerprint: Fingerprint,
    /// The request as canonical JSON.
    pub request: String,
}
