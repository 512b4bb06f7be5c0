//! What the tests share: a builder of plans, small plans, a backend with faults.

mod draft;
mod fault;
mod plans;

pub use draft::{Draft, boxed, slot, whole};
pub use fault::{Fault, Faulty};
pub use plans::*;

use std::sync::Arc;
use std::time::Duration;
use terrace_plan::Plan;
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

/// A session on the CPU for a plan without weights.
pub fn session(plan: Plan) -> Result<Session, RuntimeError> {
    Session::new(
        Arc::new(Cpu),
        Arc::new(plan),
        &Checkpoint::empty(),
        &WeightCache::new(),
        options(),
    )
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
