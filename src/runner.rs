//! Runs compiled parts of a model on this machine: sessions, weights, threads, trace.
//!
//! Invariant: the weights of a part are packed once and shared by all its ranks; they are forgotten
//! when the part's last session is gone, so that text encoder, transformer and VAE need not fit
//! together.

use crate::Error;
use std::sync::Arc;
use terrace_plan::Plan;
use terrace_runtime::{
    Checkpoint, HostTensor, LoadedWeight, Session, SessionOptions, WeightCache, backend::cpu::Cpu,
};

/// The CPU of this machine with the packed weights of running parts.
#[derive(Debug, Default)]
pub struct Runner {
    backend: Arc<Cpu>,
    cache: WeightCache<LoadedWeight>,
    options: SessionOptions,
}

impl Runner {
    /// A runner whose sessions all use `options`.
    pub fn new(options: SessionOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// A session of `plan` with the weights of `checkpoint`.
    ///
    /// # Errors
    /// The plan is not sound, or the checkpoint does not hold its weights.
    pub fn session(&self, plan: Arc<Plan>, checkpoint: &Checkpoint) -> Result<Session, Error> {
        let backend = Arc::clone(&self.backend);
        let options = self.options.clone();
        self.cache.shrink();
        Ok(Session::new(
            backend,
            plan,
            checkpoint,
            &self.cache,
            options,
        )?)
    }

    /// Runs `plan` once: named inputs in, one output out.
    ///
    /// # Errors
    /// As for [`Runner::session`]; an input does not fit its port, or a rank fails.
    pub fn run(
        &self,
        plan: Plan,
        checkpoint: &Checkpoint,
        inputs: &[(&str, &HostTensor)],
        output: &str,
    ) -> Result<HostTensor, Error> {
        let mut session = self.session(Arc::new(plan), checkpoint)?;
        for (port, tensor) in inputs {
            session.set(port, tensor)?;
        }
        session.run()?;
        Ok(session.get(output)?)
    }
}
