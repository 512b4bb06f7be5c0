//! The fabric of GPUs in several processes: NCCL carries the data, the peers' connections carry what is wrong.
//!
//! When an exchange begins, the rank's queue of exchanges is told everything: to wait for the source, to pack what
//! does not lie side by side, to send and receive as one, and to spread what has come. The wait only orders the
//! queue of kernels behind it, so threads never wait for the device before the end of a list.
//!
//! Invariants: the exchanges of a rank run in the order of the plan on one queue, which is why one communicator and
//! one staging memory do for all of them; a guard gives the communicator up, and with it what the device is stuck
//! in, when a rank has failed, is gone, or none has got on for the whole limit.

use super::copy::{address, between};
use super::gpu::Gpu;
use super::lane::{Lane, follow};
use crate::backend::{Copier, Mark, View};
use crate::boxes::Boxes;
use crate::fabric::{Collectives, Exchange, Fabric};
use crate::peers::{Guard, Peers, Presence};
use crate::{ResolveFault, RuntimeError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use terrace_kernels::cuda::{
    Communicator, CudaFault, DeviceAddress, DeviceMemory, Message, Priority, UniqueId,
};
use terrace_plan::{CollectiveId, DType, Rank};

/// Time between two looks at the first exchange.
const PAUSE: Duration = Duration::from_millis(1);

/// Exchanges of one rank with those of other processes, by NCCL.
#[derive(Debug)]
pub(super) struct NcclFabric {
    presence: Arc<Presence>,
    collectives: Collectives,
    link: Arc<Communicator>,
    lane: Arc<Lane>,
    /// What does not lie side by side in buffers.
    staging: DeviceMemory,
    /// When exchanges end that nobody has waited for.
    ends: Mutex<BTreeMap<CollectiveId, Mark>>,
    _guard: Guard,
}

/// Joins the communicator of all processes, and sends a few bytes round.
pub(super) fn join(
    gpu: &Gpu,
    peers: &Peers,
    timeout: Duration,
) -> Result<Communicator, RuntimeError> {
    let id = peers.share(|| Ok::<_, RuntimeError>(UniqueId::new()?.0.to_vec()))?;
    let mut unique = UniqueId([0; 128]);
    let expected = unique.0.len();
    if id.len() != expected {
        return Err(crate::PeerFault::Bytes {
            rank: Rank(0),
            expected,
            found: id.len(),
        }
        .into());
    }
    unique.0.copy_from_slice(&id);
    let (rank, ranks) = (peers.world().rank.0, peers.world().ranks);
    let link = Communicator::connect(gpu.device(), unique, rank, ranks, timeout)?;
    probe(gpu, &link, [rank, ranks], timeout)?;
    Ok(link)
}

/// Sends the number of each rank to the next one, so that what does not connect is found before a run.
fn probe(
    gpu: &Gpu,
    link: &Communicator,
    [rank, ranks]: [usize; 2],
    timeout: Duration,
) -> Result<(), RuntimeError> {
    const BYTES: usize = size_of::<u64>();
    let before = (rank + ranks - 1) % ranks;
    let mut memory = gpu.device().allocate("the first exchange", 2 * BYTES)?;
    memory.fill(&[rank as u64, u64::MAX].map(u64::to_le_bytes).concat())?;
    let message = |peer, bytes| Message {
        peer,
        address: memory.address().plus(bytes),
        bytes: BYTES,
    };
    let (sent, received) = (message((rank + 1) % ranks, 0), message(before, BYTES));
    let stream = gpu.device().stream(Priority::High)?;
    // SAFETY: both ranges lie in the memory, which outlives the exchange: it is waited for, or the communicator
    // given up.
    unsafe { link.exchange(&[sent], &[received], &stream) }?;
    let (end, since) = (gpu.device().event()?, Instant::now());
    stream.record(&end)?;
    while !end.is_reached()? {
        if since.elapsed() > timeout {
            link.abort();
            let (what, seconds) = ("the first exchange", timeout.as_secs());
            return Err(CudaFault::Timeout { what, seconds }.into());
        }
        std::thread::sleep(PAUSE);
    }
    let numbers = memory.read()?;
    if numbers[BYTES..] == (before as u64).to_le_bytes() {
        return Ok(());
    }
    let (sent, received) = (before, numbers[BYTES].into());
    Err(ResolveFault::UnmatchedTransfer { sent, received }.into())
}

impl NcclFabric {
    pub(super) fn new(
        lane: &Arc<Lane>,
        link: &Arc<Communicator>,
        presence: &Arc<Presence>,
    ) -> Result<Self, RuntimeError> {
        let collectives = Collectives::new(presence.plan(), presence.rank())?;
        let bytes = most_bytes(presence)?;
        let device = lane.gpu().device();
        let given_up = Arc::clone(link);
        Ok(Self {
            staging: device.allocate("the exchanges of a rank", bytes)?,
            _guard: presence.guard(move || given_up.abort())?,
            presence: Arc::clone(presence),
            collectives,
            link: Arc::clone(link),
            lane: Arc::clone(lane),
            ends: Mutex::default(),
        })
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<CollectiveId, Mark>> {
        // Entries come and go as a whole, so a panic elsewhere leaves them sound.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a transfer sends from: the source itself, or what is packed from it.
    fn sent(
        &self,
        staging: &mut Staging,
        src: View,
        boxes: &Boxes,
    ) -> Result<DeviceAddress, RuntimeError> {
        if let Some((from, _)) = boxes.run() {
            return Ok(address(src).plus(from * src.dtype().bytes()));
        }
        let packed = staging.take(boxes.elements(), src.dtype())?;
        // SAFETY: the plan has passed its check, so nobody writes the source before the wait; the staging memory
        // belongs to the queue, which takes one exchange after the other.
        unsafe { between(self.lane.exchange(), src, packed, boxes) }?;
        Ok(address(packed))
    }

    /// Where a transfer receives: in the destination itself, or side by side.
    fn received(
        staging: &mut Staging,
        dst: View,
        boxes: &Boxes,
    ) -> Result<(DeviceAddress, Option<View>), RuntimeError> {
        if let Some((_, to)) = boxes.run() {
            return Ok((address(dst).plus(to * dst.dtype().bytes()), None));
        }
        let packed = staging.take(boxes.elements(), dst.dtype())?;
        Ok((address(packed), Some(packed)))
    }
}

impl Fabric for NcclFabric {
    fn begin(&self, _: Rank, exchange: &Exchange, copier: &dyn Copier) -> Result<(), RuntimeError> {
        let (src, dst) = (exchange.src, exchange.dst);
        let transfers = self.collectives.get(exchange.collective)?;
        let queue = self.lane.exchange();
        // The destination is free as well when the rank has got here.
        follow(queue, &[copier.mark()?])?;
        let mut staging = Staging::new(&self.staging);
        let message = |peer: &Rank, address, boxes: &Boxes, dtype: DType| Message {
            peer: peer.0,
            address,
            bytes: boxes.elements() * dtype.bytes(),
        };
        let (mut sends, mut receives, mut spread) = (Vec::new(), Vec::new(), Vec::new());
        for (peer, boxes) in &transfers.sends {
            let from = self.sent(&mut staging, src, boxes)?;
            sends.push(message(peer, from, boxes, src.dtype()));
        }
        for (peer, boxes) in &transfers.receives {
            let (to, packed) = Self::received(&mut staging, dst, boxes)?;
            receives.push(message(peer, to, boxes, dst.dtype()));
            spread.extend(packed.map(|packed| (packed, boxes)));
        }
        // SAFETY: all ranges lie in buffers and in the staging memory, which the session keeps; the queue has been
        // told to wait for the source, and nobody touches source and destination before the wait.
        unsafe { self.link.exchange(&sends, &receives, queue) }?;
        for (packed, boxes) in spread {
            // SAFETY: as above.
            unsafe { between(queue, packed, dst, boxes) }?;
        }
        let end = self.lane.mark_exchange()?;
        self.ends().insert(exchange.collective, end);
        Ok(())
    }

    fn wait(
        &self,
        rank: Rank,
        exchange: &Exchange,
        copier: &dyn Copier,
    ) -> Result<(), RuntimeError> {
        let collective = exchange.collective;
        let end = self.ends().remove(&collective);
        let end = end.ok_or(ResolveFault::NotBegun { rank, collective })?;
        copier.join(&[end])
    }

    fn abort(&self, cause: &str) {
        self.presence.fail(&cause);
        self.link.abort();
    }

    fn check(&self) -> Result<(), RuntimeError> {
        self.presence.check()
    }
}

/// Staging memory of one exchange.
struct Staging {
    next: DeviceAddress,
    left: usize,
}

impl Staging {
    const fn new(memory: &DeviceMemory) -> Self {
        Self {
            next: memory.address(),
            left: memory.bytes(),
        }
    }

    fn take(&mut self, elements: usize, dtype: DType) -> Result<View, RuntimeError> {
        let bytes = elements.saturating_mul(dtype.bytes());
        let Some(left) = self.left.checked_sub(bytes) else {
            return Err(ResolveFault::Scratch {
                expected: bytes,
                found: self.left,
            }
            .into());
        };
        let place = usize::try_from(self.next.0).unwrap_or(usize::MAX);
        (self.next, self.left) = (self.next.plus(bytes), left);
        // SAFETY: the range lies in the staging memory, whose parts before it have elements of the same size.
        Ok(unsafe { View::new(place, elements, dtype) })
    }
}

/// Bytes that the largest exchange of the rank sends and receives.
fn most_bytes(presence: &Presence) -> Result<usize, RuntimeError> {
    let rank = presence.rank();
    let bytes = presence.plan().collectives.iter().map(|collective| {
        let own = collective.members.iter().position(|&it| it == rank);
        own.map_or(0, |own| {
            let sent = collective.bytes[own].iter().sum::<u64>();
            let received = collective.bytes.iter().map(|row| row[own]).sum::<u64>();
            sent.saturating_add(received)
        })
    });
    let most = bytes.max().unwrap_or(0);
    usize::try_from(most).map_err(|_| {
        ResolveFault::Scratch {
            expected: usize::MAX,
            found: 0,
        }
        .into()
    })
}
