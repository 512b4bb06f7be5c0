//! The processes of the other ranks: connections to all of them, what they say, and whether they live.
//!
//! Every process is connected with every other one, also where no data flows, so that a failure reaches all at
//! once. Beside data, each says a few times per second where it is in its list: whoever waits knows that the
//! others get on, and a rank that is stuck or gone is named with its step.
//!
//! Invariants: all processes make the same calls in the same order; no wait lasts longer than its limit without
//! progress; after a failure, everything is refused. A process that has ended is missed only by those who still
//! need it, so ranks may leave when they are done.
//!
//! Refused: processes of another program, another number of ranks, or another plan; strangers.

mod bytes;
#[cfg(feature = "cuda")]
mod guard;
mod hub;
mod join;
mod link;
mod presence;

pub(crate) use bytes::Bytes;
#[cfg(feature = "cuda")]
pub(crate) use guard::Guard;
pub(crate) use hub::Tag;
pub use presence::Presence;

use crate::position::IDLE;
use crate::{HostTensor, PeerFault, RuntimeError, World};
use hub::{Hub, Patience};
use link::{Frame, Link};
use sha2::{Digest, Sha256};
use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use terrace_plan::{DType, Rank};

/// Time between two words about where this rank is, at most.
const BEAT: Duration = Duration::from_millis(250);
/// How long a process that leaves waits until the others have read what it sent.
const LEAVING: Duration = Duration::from_secs(10);

/// The processes of the other ranks.
pub struct Peers {
    world: World,
    hub: Arc<Hub>,
    /// By rank; none to this one.
    links: Vec<Option<Link>>,
    heart: Option<Heart>,
}

/// The thread that says where this rank is.
struct Heart {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

impl Peers {
    /// Connects this process with all others, which call it with the same `program`: what they run, in words.
    /// `timeout` limits the meeting, and later each wait without progress.
    ///
    /// # Errors
    /// What keeps the processes from coming together.
    pub fn meet(
        world: &World,
        program: &str,
        timeout: Duration,
    ) -> Result<Arc<Self>, RuntimeError> {
        let streams = join::streams(world, program, timeout)?;
        let hub = Arc::new(Hub::new(world.rank, world.ranks, timeout));
        let open = |(peer, stream): (usize, Option<std::net::TcpStream>)| {
            let link = stream.map(|stream| Link::open(stream, Rank(peer), &hub));
            link.transpose()
        };
        let links = streams.into_iter().enumerate().map(open);
        let links = links.collect::<Result<Vec<_>, _>>();
        let rank = world.rank;
        let unable = |source| crate::WorldFault::Wait { rank, source };
        let mut peers = Self {
            world: world.clone(),
            hub: Arc::clone(&hub),
            links: links.map_err(unable)?,
            heart: None,
        };
        peers.heart = Some(peers.beat(BEAT.min(timeout / 4)).map_err(unable)?);
        Ok(Arc::new(peers))
    }

    /// Who this process is.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Gives every rank the tensor of f32 of this shape that rank 0 makes.
    ///
    /// # Errors
    /// That of `make`, on rank 0; that rank 0 has failed, or is gone, on the others.
    pub fn share_tensor<E: From<RuntimeError> + Display>(
        &self,
        shape: &[usize],
        make: impl FnOnce() -> Result<HostTensor, E>,
    ) -> Result<HostTensor, E> {
        let mut tensor = HostTensor::zeros(shape, DType::F32)?;
        let bytes = self.share(|| Ok::<_, E>(make()?.bytes().to_vec()))?;
        let (expected, found) = (tensor.bytes().len(), bytes.len());
        if expected != found {
            let rank = Rank(0);
            let fault = PeerFault::Bytes {
                rank,
                expected,
                found,
            };
            return Err(RuntimeError::from(fault).into());
        }
        tensor.bytes_mut().copy_from_slice(&bytes);
        Ok(tensor)
    }

    /// Gives every rank what rank 0 makes.
    pub(crate) fn share<E: From<RuntimeError> + Display>(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        if self.world.rank != Rank(0) {
            let bytes = self.receive(Rank(0), Tag::FIRST, Patience::Life)?;
            return Ok(bytes.bytes().to_vec());
        }
        let made = make().inspect_err(|error| self.fail(error))?;
        for peer in self.others() {
            let mut bytes = self.hub.spares.take(made.len());
            bytes.bytes_mut().copy_from_slice(&made);
            self.send(peer, Tag::FIRST, bytes);
        }
        Ok(made)
    }

    /// Makes sure that all ranks say the same `text` about `what`.
    ///
    /// # Errors
    /// The first rank that says something else, or that has failed or is gone.
    pub fn agree(&self, what: &'static str, text: &str) -> Result<(), RuntimeError> {
        for peer in self.others() {
            let mut bytes = self.hub.spares.take(text.len());
            bytes.bytes_mut().copy_from_slice(text.as_bytes());
            self.send(peer, Tag::SAME, bytes);
        }
        for peer in self.others() {
            let found = self.receive(peer, Tag::SAME, Patience::Life)?;
            if found.bytes() != text.as_bytes() {
                return Err(PeerFault::Differs {
                    what,
                    rank: self.world.rank,
                    own: text.to_owned(),
                    peer,
                    other: String::from_utf8_lossy(found.bytes()).into_owned(),
                }
                .into());
            }
            self.hub.spares.give(found);
        }
        Ok(())
    }

    /// What stands for `bytes` in a text that all ranks must say: the first 64 bits of their SHA-256, in digits of base
    /// 16.
    pub fn mark(bytes: &[u8]) -> String {
        let hash = Sha256::digest(bytes);
        hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// Tells all ranks that this one has failed, unless they know of a failure.
    pub fn fail(&self, cause: &dyn Display) {
        if self.hub.fail() {
            for link in self.links.iter().flatten() {
                link.send(Frame::Failure(cause.to_string()));
            }
        }
    }

    /// The other ranks, those first that follow this one, so that not all turn to the same.
    pub(crate) fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let (rank, ranks) = (self.world.rank.0, self.world.ranks);
        (1..ranks).map(move |step| Rank((rank + step) % ranks))
    }

    fn send(&self, peer: Rank, tag: Tag, bytes: Bytes) {
        if let Some(Some(link)) = self.links.get(peer.0) {
            link.send(Frame::Message(tag, bytes));
        }
    }

    fn receive(&self, peer: Rank, tag: Tag, patience: Patience<'_>) -> Result<Bytes, RuntimeError> {
        let (found, bytes) = self
            .hub
            .wait(peer, patience, |door| door.inbox.pop_front())?;
        if found == tag {
            return Ok(bytes);
        }
        Err(PeerFault::Order {
            rank: peer,
            expected: tag.0,
            found: found.0,
        }
        .into())
    }

    fn beat(&self, every: Duration) -> std::io::Result<Heart> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (hub, stop, rank) = (Arc::clone(&self.hub), Arc::clone(&stopped), self.world.rank);
        let links = self.links.iter().flatten();
        let outboxes: Vec<_> = links.map(|link| link.outbox.clone()).collect();
        let beat = move || {
            while !stop.load(Ordering::Acquire) {
                let positions = hub.lock().positions.clone();
                let word = positions.map_or(IDLE, |positions| positions.word(rank));
                for outbox in &outboxes {
                    // Who is gone needs to know nothing.
                    let _ = outbox.send(Frame::Position(word));
                }
                std::thread::park_timeout(every);
            }
        };
        let thread = std::thread::Builder::new().name("heart".to_owned());
        Ok(Heart {
            thread: thread.spawn(beat)?,
            stopped,
        })
    }
}

impl Drop for Peers {
    /// Leaves when the others have read everything, or after a while.
    fn drop(&mut self) {
        if let Some(heart) = self.heart.take() {
            heart.stopped.store(true, Ordering::Release);
            heart.thread.thread().unpark();
            // It ends without a result.
            let _ = heart.thread.join();
        }
        for link in self.links.iter().flatten() {
            link.send(Frame::Close);
        }
        self.hub.wait_for_end(LEAVING);
    }
}
