//! From a CubeCL kernel to CUDA C++.
//!
//! The text depends on the kernel and the options below alone, so it can be made and compiled on a
//! machine without a GPU.

use super::fault::CudaFault;
use crate::cube::Kernel;
use cubecl::CubeTask;
use cubecl::cuda::CudaCompiler;
use cubecl::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A kernel as CUDA C++.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The text.
    pub text: String,
    /// Name of the kernel in it.
    pub entry: String,
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory that a launch asks for.
    pub shared: usize,
}

type Options = <CudaCompiler as cubecl::Compiler>::CompilationOptions;

/// What the device offers: these are the options of CubeCL's own CUDA runtime from Hopper on, and
/// from Ampere on without clusters.
fn options((major, _): (i32, i32)) -> Options {
    let mut options = Options {
        warp_size: 32,
        ..Options::default()
    };
    let features = &mut options.supports_features;
    features.fast_math = true;
    features.fast_tanh = true;
    // Numbers are passed by value, so that a recorded launch keeps them.
    features.grid_constants = true;
    features.clusters = major >= 9;
    features.elect_sync = major >= 9;
    options
}

impl Source {
    /// The text of `kernel`, called `name` in messages, for devices of a compute capability.
    ///
    /// # Errors
    /// [`CudaFault::Compile`] when CubeCL cannot express the kernel.
    pub fn of(name: &str, kernel: &Kernel, capability: (i32, i32)) -> Result<Self, CudaFault> {
        let task = KernelTask::<CudaCompiler, Kernel>::new(kernel.clone());
        let lower = || {
            task.compile(
                &mut CudaCompiler::default(),
                &options(capability),
                ExecutionMode::Unchecked,
                kernel.address_type(),
            )
        };
        let refused = |log: String| CudaFault::Compile {
            kernel: name.to_owned(),
            log,
        };
        // CubeCL panics where it meets what it does not expect.
        let compiled = catch_unwind(AssertUnwindSafe(lower))
            .map_err(|_| refused("CubeCL panicked".to_owned()))?
            .map_err(|error| refused(error.to_string()))?;
        let CubeDim { x, y, z } = compiled.cube_dim;
        Ok(Self {
            shared: compiled.repr.map_or(0, |repr| repr.shared_memory_size()),
            text: compiled.source,
            entry: compiled.entrypoint_name,
            block: [x, y, z],
        })
    }
}
