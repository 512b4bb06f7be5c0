//! Runs compiled parts of a model on a device: sessions, weights, threads, trace.
//!
//! Where each rank is a process, every process has a runner, and all make the same calls.
//!
//! Invariant: the weights of a part are packed once and shared by all its ranks; they are forgotten
//! when the part's last session is gone, so that text encoder, transformer and VAE need not fit
//! together.

use crate::{Device, Error, Fabric};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use terrace_plan::{Plan, Rank};
use terrace_runtime::backend::Backend;
use terrace_runtime::backend::cpu::Cpu;
use terrace_runtime::{Checkpoint, HostTensor, Peers, Session, SessionOptions, WeightCache, World};

/// A device with the packed weights of running parts.
pub struct Runner {
    device: Device,
    engine: Box<dyn Engine>,
    /// Where the other ranks are processes.
    peers: Option<Arc<Peers>>,
    options: SessionOptions,
}

/// What the processes of a run must have in common.
const PROGRAM: &str = concat!("terrace ", env!("CARGO_PKG_VERSION"));

impl Runner {
    /// A runner on the CPU whose sessions all use `options`.
    pub fn new(options: SessionOptions) -> Self {
        Self {
            device: Device::Cpu,
            engine: Opened::new(Cpu),
            peers: None,
            options,
        }
    }

    /// A runner on a device.
    ///
    /// # Errors
    /// This build has no backend for the device, or this machine has no such device.
    pub fn on(device: &Device, options: SessionOptions) -> Result<Self, Error> {
        Ok(Self {
            device: device.clone(),
            engine: open(device)?,
            peers: None,
            options,
        })
    }

    /// A runner on a device of this process, one of those of `world`, which all make the same call. Plans are
    /// divided among them, one rank each; of GPUs of NVIDIA, every process takes the one of its number on the
    /// host.
    ///
    /// # Errors
    /// As for [`Runner::on`]; the processes do not come together, or the device has no such fabric.
    pub fn among(
        world: &World,
        fabric: Fabric,
        device: &Device,
        options: SessionOptions,
    ) -> Result<Self, Error> {
        fabric.check(device)?;
        if fabric == Fabric::Local {
            return Self::on(device, options);
        }
        let peers = Peers::meet(world, PROGRAM, options.timeout)?;
        let open = || match (fabric, device) {
            (Fabric::Nccl, Device::Cuda { gpus }) => joined(gpus, &peers, options.timeout),
            (_, Device::Cuda { gpus }) => cuda(&[of_process(gpus, world.local)?]),
            (_, device) => open(device),
        };
        let engine = open().inspect_err(|error| peers.fail(error))?;
        Ok(Self {
            device: device.clone(),
            engine,
            peers: Some(peers),
            options,
        })
    }

    /// Whether this process gives results to the user: it is alone, or has rank 0.
    pub fn leads(&self) -> bool {
        let rank = self.peers.as_ref().map(|peers| peers.world().rank);
        rank.is_none_or(|rank| rank == Rank(0))
    }

    /// Makes sure that all processes are about to compute the same `what`: `text` and tensors.
    ///
    /// # Errors
    /// The first rank that has something else, has failed or is gone.
    pub(crate) fn agree(
        &self,
        what: &'static str,
        text: &str,
        tensors: &[(&str, &HostTensor)],
    ) -> Result<(), Error> {
        let Some(peers) = &self.peers else {
            return Ok(());
        };
        let marks = tensors.iter().map(|(name, tensor)| {
            let mark = Peers::mark(tensor.data().bytes());
            format!(", {name} {:?} (mark {mark})", tensor.shape())
        });
        Ok(peers.agree(what, &format!("{text}{}", marks.collect::<String>()))?)
    }

    /// A tensor of f32 of this shape that the leading process makes, in all processes.
    ///
    /// # Errors
    /// That of `make`; that the leading process has failed or is gone.
    pub fn share(
        &self,
        shape: &[usize],
        make: impl FnOnce() -> Result<HostTensor, Error>,
    ) -> Result<HostTensor, Error> {
        match &self.peers {
            Some(peers) => peers.share_tensor(shape, make),
            None => make(),
        }
    }

    /// Tells the other processes when this one has failed.
    pub(crate) fn told<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            if let Some(peers) = &self.peers {
                peers.fail(error);
            }
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

    /// A session of `plan` with the weights of `checkpoint`, divided among the processes where there are several.
    ///
    /// # Errors
    /// The plan is not sound or has another number of ranks than there are processes, the checkpoint does not hold
    /// its weights, or the device not its memory.
    pub fn session(&self, plan: Arc<Plan>, checkpoint: &Checkpoint) -> Result<Session, Error> {
        let peers = self.peers.as_ref();
        self.engine
            .session(peers, plan, checkpoint, self.options.clone())
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
        self.agree("the input", &plan.header.graph, inputs)?;
        once(self.session(Arc::new(plan), checkpoint)?, inputs, output)
    }

    /// As [`Runner::run`], with all ranks in this process, whether there are others or not.
    ///
    /// # Errors
    /// As for [`Runner::run`].
    pub fn run_here(
        &self,
        plan: Plan,
        checkpoint: &Checkpoint,
        inputs: &[(&str, &HostTensor)],
        output: &str,
    ) -> Result<HostTensor, Error> {
        let options = self.options.clone();
        let session = self
            .engine
            .session(None, Arc::new(plan), checkpoint, options)?;
        once(session, inputs, output)
    }
}

fn once(
    mut session: Session,
    inputs: &[(&str, &HostTensor)],
    output: &str,
) -> Result<HostTensor, Error> {
    for (port, tensor) in inputs {
        session.set(port, tensor)?;
    }
    session.run()?;
    Ok(session.get(output)?)
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
    /// A session in this process, or among its peers.
    fn session(
        &self,
        peers: Option<&Arc<Peers>>,
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
        peers: Option<&Arc<Peers>>,
        plan: Arc<Plan>,
        checkpoint: &Checkpoint,
        options: SessionOptions,
    ) -> Result<Session, Error> {
        self.cache.shrink();
        let (backend, cache) = (Arc::clone(&self.backend), &self.cache);
        let session = match peers {
            Some(peers) => Session::among(peers, backend, plan, checkpoint, cache, options),
            None => Session::new(backend, plan, checkpoint, cache, options),
        };
        Ok(session?)
    }
}

/// The device, for all ranks of this process.
fn open(device: &Device) -> Result<Box<dyn Engine>, Error> {
    match device {
        Device::Cpu => Ok(Opened::new(Cpu)),
        Device::Wgpu { adapter } => wgpu(*adapter),
        Device::Cuda { gpus } => cuda(gpus),
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
    Err(no_cuda(gpus))
}

/// The GPU of this process, joined with those of the others.
#[cfg(feature = "cuda")]
fn joined(gpus: &[usize], peers: &Peers, timeout: Duration) -> Result<Box<dyn Engine>, Error> {
    use terrace_runtime::backend::cuda::Cuda;
    let gpu = of_process(gpus, peers.world().local)?;
    Ok(Opened::new(Cuda::joined(gpu, peers, timeout)?))
}

#[cfg(not(feature = "cuda"))]
fn joined(gpus: &[usize], _: &Peers, _: Duration) -> Result<Box<dyn Engine>, Error> {
    Err(no_cuda(gpus))
}

/// The GPU that the process of this number on its host takes.
#[cfg(feature = "cuda")]
fn of_process(gpus: &[usize], local: usize) -> Result<usize, Error> {
    Ok(terrace_runtime::backend::cuda::Cuda::of_process(
        gpus, local,
    )?)
}

#[cfg(not(feature = "cuda"))]
fn of_process(gpus: &[usize], _: usize) -> Result<usize, Error> {
    Err(no_cuda(gpus))
}

#[cfg(not(feature = "cuda"))]
fn no_cuda(gpus: &[usize]) -> Error {
    Error::NotBuilt {
        device: Device::Cuda {
            gpus: gpus.to_vec(),
        },
        feature: "cuda",
    }
}
