//! Runs compiled parts of a model on a device: sessions, weights, threads, trace.
//!
//! Invariant: the weights of a part are packed once and shared by all its ranks; they are forgotten
//! when the part's last session is gone, so that text encoder, transformer and VAE need not fit
//! together.

use crate::{Device, Error};
use std::fmt;
use std::sync::Arc;
use terrace_plan::Plan;
use terrace_runtime::backend::Backend;
use terrace_runtime::backend::cpu::Cpu;
use terrace_runtime::{Checkpoint, HostTensor, Session, SessionOptions, WeightCache};

/// A device with the packed weights of running parts.
pub struct Runner {
    device: Device,
    engine: Box<dyn Engine>,
    options: SessionOptions,
}

impl Runner {
    /// A runner on the CPU whose sessions all use `options`.
    pub fn new(options: SessionOptions) -> Self {
        Self {
            device: Device::Cpu,
            engine: Opened::new(Cpu),
            options,
        }
    }

    /// A runner on a device.
    ///
    /// # Errors
    /// This build has no backend for the device, or this machine has no such device.
    pub fn on(device: &Device, options: SessionOptions) -> Result<Self, Error> {
        let engine: Box<dyn Engine> = match device {
            Device::Cpu => Opened::new(Cpu),
            Device::Wgpu { adapter } => wgpu(*adapter)?,
            Device::Cuda { gpus } => cuda(gpus)?,
        };
        Ok(Self {
            device: device.clone(),
            engine,
            options,
        })
    }

    /// The device.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// What its sessions use.
    pub const fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// A session of `plan` with the weights of `checkpoint`.
    ///
    /// # Errors
    /// The plan is not sound, the checkpoint does not hold its weights, or the device not its memory.
    pub fn session(&self, plan: Arc<Plan>, checkpoint: &Checkpoint) -> Result<Session, Error> {
        self.engine.session(plan, checkpoint, self.options.clone())
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

impl Default for Runner {
    /// The CPU with default options.
    fn default() -> Self {
        Self::new(SessionOptions::default())
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("device", &self.device)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// An opened device, whatever its backend.
trait Engine: Send + Sync {
    fn session(
        &self,
        plan: Arc<Plan>,
        checkpoint: &Checkpoint,
        options: SessionOptions,
    ) -> Result<Session, Error>;
}

/// A backend and the weights that its sessions share.
struct Opened<B: Backend> {
    backend: Arc<B>,
    cache: WeightCache<B::Weight>,
}

impl<B: Backend> Opened<B> {
    fn new(backend: B) -> Box<Self> {
        Box::new(Self {
            backend: Arc::new(backend),
            cache: WeightCache::new(),
        })
    }
}

impl<B: Backend> Engine for Opened<B> {
    fn session(
        &self,
        plan: Arc<Plan>,
        checkpoint: &Checkpoint,
        options: SessionOptions,
    ) -> Result<Session, Error> {
        self.cache.shrink();
        let backend = Arc::clone(&self.backend);
        Ok(Session::new(
            backend,
            plan,
            checkpoint,
            &self.cache,
            options,
        )?)
    }
}

#[cfg(feature = "wgpu")]
fn wgpu(adapter: usize) -> Result<Box<dyn Engine>, Error> {
    let backend = terrace_runtime::backend::wgpu::Wgpu::open(adapter)?;
    Ok(Opened::new(backend))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(adapter: usize) -> Result<Box<dyn Engine>, Error> {
    Err(Error::NotBuilt {
        device: Device::Wgpu { adapter },
        feature: "wgpu",
    })
}

#[cfg(feature = "cuda")]
fn cuda(gpus: &[usize]) -> Result<Box<dyn Engine>, Error> {
    let backend = terrace_runtime::backend::cuda::Cuda::open(gpus)?;
    Ok(Opened::new(backend))
}

#[cfg(not(feature = "cuda"))]
fn cuda(gpus: &[usize]) -> Result<Box<dyn Engine>, Error> {
    let gpus = gpus.to_vec();
    Err(Error::NotBuilt {
        device: Device::Cuda { gpus },
        feature: "cuda",
    })
}
