//! The CPU with one fault: a kernel or a copy of one rank that fails, panics or never ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use terrace_kernels::KernelError;
use terrace_plan::{BufferId, KernelCall, Rank, RankPlan, Weight};
use terrace_runtime::backend::cpu::{CpuLaunch, CpuMemory};
use terrace_runtime::{Backend, Boxes, Checkpoint, Cpu, LoadedWeight, RuntimeError, View};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel refuses.
    Fail,
    /// The kernel panics.
    Panic,
    /// The kernel does not return before [`Faulty::release`] is set.
    Stall,
    /// Copies to the rank fail.
    Copy,
    /// The kernel takes its time.
    Slow(Duration),
}

/// A backend in which a kernel of rank `rank` goes wrong.
#[derive(Debug)]
pub struct Faulty {
    pub rank: Rank,
    /// Which kernel, counted over both lists; absent: every one.
    pub launch: Option<usize>,
    pub fault: Fault,
    pub release: Arc<AtomicBool>,
    /// Number of ranks whose memory is allocated.
    pub alive: Arc<AtomicUsize>,
    /// Threads that the last kernel could use.
    pub threads: Arc<AtomicUsize>,
    addresses: Mutex<Vec<usize>>,
}

/// Memory that knows its rank.
pub struct Owned {
    rank: Rank,
    memory: Arc<CpuMemory>,
    prepared: AtomicUsize,
    alive: Arc<AtomicUsize>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A kernel, perhaps with a fault.
pub struct Launch {
    call: CpuLaunch,
    fault: Option<Fault>,
    release: Arc<AtomicBool>,
}

impl Faulty {
    pub fn new(rank: usize, launch: Option<usize>, fault: Fault) -> Self {
        Self {
            rank: Rank(rank),
            launch,
            fault,
            release: Arc::default(),
            alive: Arc::default(),
            threads: Arc::default(),
            addresses: Mutex::default(),
        }
    }
}

impl Backend for Faulty {
    type Weight = LoadedWeight;
    type Memory = Owned;
    type Launch = Launch;
    type Lane = <Cpu as Backend>::Lane;

    fn name(&self) -> &'static str {
        "faulty"
    }

    fn load(&self, checkpoint: &Checkpoint, weight: &Weight) -> Result<LoadedWeight, RuntimeError> {
        Cpu.load(checkpoint, weight)
    }

    fn allocate(
        &self,
        rank: Rank,
        plan: &RankPlan,
        weights: &[Weight],
    ) -> Result<Owned, RuntimeError> {
        let memory = Cpu.allocate(rank, plan, weights)?;
        if rank == self.rank {
            let buffers = (0..plan.buffers.len()).filter_map(|id| Cpu.view(&memory, BufferId(id)));
            let filled = buffers.filter(|view| !view.is_empty());
            let addresses = filled.map(|view| view.address());
            self.addresses.lock().unwrap().extend(addresses);
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Owned {
            rank,
            memory,
            prepared: AtomicUsize::new(0),
            alive: Arc::clone(&self.alive),
        })
    }

    fn view(&self, memory: &Owned, buffer: BufferId) -> Option<View> {
        Cpu.view(&memory.memory, buffer)
    }

    fn lane(&self, rank: Rank, memory: &Owned, threads: usize) -> Result<Self::Lane, RuntimeError> {
        Cpu.lane(rank, &memory.memory, threads)
    }

    fn prepare(
        &self,
        memory: &Owned,
        weights: &[Arc<LoadedWeight>],
        call: &KernelCall,
    ) -> Result<Launch, RuntimeError> {
        let index = memory.prepared.fetch_add(1, Ordering::SeqCst);
        let here = memory.rank == self.rank && self.launch.is_none_or(|at| at == index);
        Ok(Launch {
            call: Cpu.prepare(&memory.memory, weights, call)?,
            fault: here.then_some(self.fault),
            release: Arc::clone(&self.release),
        })
    }

    fn enter<R, F>(&self, lane: &Self::Lane, job: F) -> R
    where
        R: Send,
        F: FnOnce() -> R + Send,
    {
        Cpu.enter(lane, job)
    }

    unsafe fn launch(&self, lane: &Self::Lane, launch: &Launch) -> Result<(), KernelError> {
        let threads = rayon::current_num_threads();
        self.threads.store(threads, Ordering::SeqCst);
        match launch.fault {
            None | Some(Fault::Copy) => {}
            Some(Fault::Fail) => return Err(refusal("gate_add")),
            Some(Fault::Panic) => panic!("index 7 is out of range"),
            Some(Fault::Slow(time)) => std::thread::sleep(time),
            Some(Fault::Stall) => {
                while !launch.release.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        // SAFETY: the same contract.
        unsafe { Cpu.launch(lane, &launch.call) }
    }

    unsafe fn copy(
        &self,
        lane: &Self::Lane,
        src: View,
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        let hit = self.addresses.lock().unwrap().contains(&dst.address());
        if self.fault == Fault::Copy && hit && !boxes.is_empty() {
            return Err(refusal("copy").into());
        }
        // SAFETY: the same contract.
        unsafe { Cpu.copy(lane, src, dst, boxes) }
    }

    fn finish(&self, lane: &Self::Lane) -> Result<(), RuntimeError> {
        Cpu.finish(lane)
    }

    unsafe fn upload(
        &self,
        lane: &Self::Lane,
        host: &[u8],
        dst: View,
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { Cpu.upload(lane, host, dst, boxes) }
    }

    unsafe fn download(
        &self,
        lane: &Self::Lane,
        src: View,
        host: &mut [u8],
        boxes: &Boxes,
    ) -> Result<(), RuntimeError> {
        // SAFETY: the same contract.
        unsafe { Cpu.download(lane, src, host, boxes) }
    }
}

fn refusal(kernel: &'static str) -> KernelError {
    KernelError::Argument {
        kernel,
        argument: "fault",
        expected: "absent".to_owned(),
        found: "injected".to_owned(),
    }
}
