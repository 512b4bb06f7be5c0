//! Queues of a rank: one for kernels and plain copies, one for what it pulls from other ranks.
//!
//! Invariants: work that both queues touch is ordered by marks; host memory of the lane is used by one
//! copy at a time, which waits for its end. A list that never changes is run once, recorded at the
//! second call, and repeated as one graph from then on; one that a library refuses to have recorded is
//! queued anew at every call.

use super::gpu::Gpu;
use crate::{Mark, RuntimeError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terrace_kernels::cuda::{CudaQueue, Dnn, Event, Graph, PinnedMemory, Priority, Stream};

/// The queues of one rank. What refers to others goes before them.
#[derive(Debug)]
pub struct Lane {
    record: Mutex<Record>,
    staging: Mutex<Option<PinnedMemory>>,
    /// cuDNN for the first queue; opened when a plan needs it.
    dnn: Mutex<Option<Arc<Dnn>>>,
    queue: CudaQueue,
    exchange: Stream,
    gpu: Arc<Gpu>,
}

/// What is known of a list.
#[derive(Debug)]
enum Record {
    Unknown,
    /// It has run once, so everything that is made at first use exists.
    Ran,
    Recorded(Graph),
    Refused,
}

/// Host memory of a lane, held for one copy.
pub(super) struct Staging<'a>(MutexGuard<'a, Option<PinnedMemory>>);

impl Staging<'_> {
    pub(super) fn memory(&self) -> &PinnedMemory {
        self.0.as_ref().expect("`Lane::staging` has filled it")
    }

    pub(super) fn memory_mut(&mut self) -> &mut PinnedMemory {
        self.0.as_mut().expect("`Lane::staging` has filled it")
    }
}

impl Lane {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self, RuntimeError> {
        let compute = gpu.device().stream(Priority::Normal)?;
        Ok(Self {
            queue: CudaQueue::new(Arc::clone(gpu.kernels()), compute),
            exchange: gpu.device().stream(Priority::High)?,
            dnn: Mutex::default(),
            staging: Mutex::default(),
            record: Mutex::new(Record::Unknown),
            gpu: Arc::clone(gpu),
        })
    }

    pub(super) const fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub(super) const fn queue(&self) -> &CudaQueue {
        &self.queue
    }

    /// The queue of kernels and plain copies.
    pub(super) const fn stream(&self) -> &Stream {
        self.queue.stream()
    }

    /// The queue of what is pulled from other ranks.
    pub(super) const fn exchange(&self) -> &Stream {
        &self.exchange
    }

    pub(super) fn dnn(&self) -> Result<Arc<Dnn>, RuntimeError> {
        let mut dnn = self.dnn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dnn) = &*dnn {
            return Ok(Arc::clone(dnn));
        }
        let opened = Arc::new(Dnn::open(self.stream())?);
        *dnn = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// At least `bytes` bytes of host memory, for whoever holds them.
    pub(super) fn staging(&self, bytes: usize) -> Result<Staging<'_>, RuntimeError> {
        // Its contents are meaningless between copies, so a panic cannot have spoilt them.
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = staging
            .as_ref()
            .is_some_and(|memory| memory.bytes().len() >= bytes);
        if !fits {
            // The old one goes first, so that both need not fit.
            *staging = None;
            *staging = Some(self.gpu.device().pinned(bytes)?);
        }
        Ok(Staging(staging))
    }

    /// Marks what the queue of kernels has been told so far.
    pub(super) fn mark(&self) -> Result<Mark, RuntimeError> {
        mark(&self.gpu, self.stream())
    }

    /// Marks what the queue of exchanges has been told so far.
    pub(super) fn mark_exchange(&self) -> Result<Mark, RuntimeError> {
        mark(&self.gpu, &self.exchange)
    }

    /// Returns when both queues are empty.
    pub(super) fn finish(&self) -> Result<(), RuntimeError> {
        self.stream().synchronize()?;
        Ok(self.exchange.synchronize()?)
    }

    /// Runs `list`, records it, or repeats the record.
    ///
    /// # Safety
    /// As for what `list` does, at every call.
    pub(super) unsafe fn repeat(
        &self,
        list: &mut dyn FnMut() -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *record {
            Record::Unknown => {
                list()?;
                *record = Record::Ran;
                Ok(())
            }
            Record::Ran => {
                let Ok(mut graph) = self.record_list(list) else {
                    // Nothing has been done so far; what is wrong with the list itself comes out here.
                    *record = Record::Refused;
                    return list();
                };
                // SAFETY: as for the list.
                unsafe { graph.launch() }?;
                *record = Record::Recorded(graph);
                Ok(())
            }
            Record::Refused => list(),
            // SAFETY: as for the list.
            Record::Recorded(graph) => Ok(unsafe { graph.launch() }?),
        }
    }

    fn record_list(
        &self,
        list: &mut dyn FnMut() -> Result<(), RuntimeError>,
    ) -> Result<Graph, RuntimeError> {
        self.stream().begin_capture()?;
        let told = list();
        // The stream is of no use before its recording has ended, whatever happened.
        let graph = self.stream().end_capture();
        told?;
        Ok(graph?)
    }
}

/// Lets what `stream` is told from now on wait for `marks`.
pub(super) fn follow(stream: &Stream, marks: &[Mark]) -> Result<(), RuntimeError> {
    for event in marks.iter().filter_map(Mark::event::<Event>) {
        stream.wait(event)?;
    }
    Ok(())
}

fn mark(gpu: &Gpu, stream: &Stream) -> Result<Mark, RuntimeError> {
    let event = gpu.device().event()?;
    stream.record(&event)?;
    Ok(Mark::new(event))
}
