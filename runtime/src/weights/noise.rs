//! Checkpoints of noise: the tensors of a plan, for measurements without weights on disk.
//!
//! Invariants: the numbers are a function of the seed; every tensor begins with the same ones, so that the
//! checkpoint is as large as its largest tensor and not as the model. Refused: sizes that memory does
//! not hold.

use super::{Checkpoint, StoredDType, TensorEntry};
use crate::RuntimeError;
use crate::tensor::{elements, zeroed};
use std::collections::BTreeMap;
use terrace_kernels::cpu::noise_fill;
use terrace_plan::Plan;

/// Standard deviation of the numbers: that of the published weights, near enough that no activation
/// leaves the range of ordinary numbers.
const DEVIATION: f32 = 0.02;

impl Checkpoint {
    /// A checkpoint with every tensor that `plan` reads, filled with normal noise.
    ///
    /// # Errors
    /// When there is no memory for the largest tensor.
    pub fn noise(plan: &Plan, seed: u64) -> Result<Self, RuntimeError> {
        let mut tensors = BTreeMap::new();
        let mut longest = 0;
        for source in plan.weights.iter().flat_map(|weight| &weight.sources) {
            let no_memory = || RuntimeError::TensorMemory {
                shape: source.shape.clone(),
            };
            let len = elements(&source.shape).ok_or_else(no_memory)?;
            let bytes = len.checked_mul(size_of::<f32>()).ok_or_else(no_memory)?;
            let entry = TensorEntry {
                name: source.name.clone(),
                dtype: StoredDType::F32,
                shape: source.shape.clone(),
                range: 0..bytes,
            };
            longest = longest.max(len);
            tensors.insert(source.name.clone(), entry);
        }
        Ok(Self::over("noise", numbers(longest, seed)?, tensors))
    }
}

/// `len` numbers as a safetensors file holds them.
fn numbers(len: usize, seed: u64) -> Result<Vec<u8>, RuntimeError> {
    let mut noise = zeroed(len).ok_or_else(|| RuntimeError::TensorMemory { shape: vec![len] })?;
    noise_fill(seed, 0, 0, &mut noise)?;
    Ok(noise
        .into_iter()
        .flat_map(|number: f32| (DEVIATION * number).to_le_bytes())
        .collect())
}
