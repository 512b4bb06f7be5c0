//! What the tests share: a builder of plans, small plans, a backend with faults.

mod draft;
mod fault;
mod plans;
mod processes;

pub use draft::{Draft, boxed, slot, whole};
pub use fault::{Fault, Faulty};
pub use plans::*;
pub use processes::{among, worlds};

use std::sync::Arc;
use std::time::Duration;
use terrace_plan::Plan;
use terrace_runtime::backend::Backend;
use terrace_runtime::{
    Checkpoint, Cpu, HostTensor, RuntimeError, Session, SessionOptions, WeightCache,
};

/// One thread per rank and a short limit for waits.
pub fn options() -> SessionOptions {
    SessionOptions {
        threads: 1,
        timeout: Duration::from_secs(20),
        trace: None,
    }
}

/// A session for a plan without weights.
pub fn session(plan: Plan) -> Result<Session, RuntimeError> {
    open(plan, &Checkpoint::empty())
}

/// A session on the CPU, or on the device that `TERRACE_TEST_DEVICE` names.
pub fn open(plan: Plan, checkpoint: &Checkpoint) -> Result<Session, RuntimeError> {
    match std::env::var("TERRACE_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => on(Cpu, plan, checkpoint),
        #[cfg(feature = "wgpu")]
        Ok("wgpu") => on(
            terrace_runtime::backend::wgpu::Wgpu::open(0)?,
            plan,
            checkpoint,
        ),
        #[cfg(feature = "cuda")]
        Ok("cuda") => on(
            terrace_runtime::backend::cuda::Cuda::open(&[0])?,
            plan,
            checkpoint,
        ),
        Ok(other) => panic!("these tests do not run on {other}"),
    }
}

/// A session on a device.
pub fn on<B: Backend>(
    backend: B,
    plan: Plan,
    checkpoint: &Checkpoint,
) -> Result<Session, RuntimeError> {
    let (backend, plan, cache) = (Arc::new(backend), Arc::new(plan), WeightCache::new());
    Session::new(backend, plan, checkpoint, &cache, options())
}

/// The numbers `0, 1, ...` as a tensor.
pub fn counting(shape: &[usize]) -> HostTensor {
    let len: usize = shape.iter().product();
    HostTensor::f32(shape, (0..len).map(|i| i as f32).collect()).unwrap()
}

/// Sets the only input, runs, and returns the only output.
pub fn through(session: &mut Session, x: &HostTensor) -> Vec<f32> {
    session.set("x", x).unwrap();
    session.run().unwrap();
    session.get("y").unwrap().as_f32().unwrap().to_vec()
}

/// The text of an error.
pub fn text<T>(result: Result<T, RuntimeError>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}
