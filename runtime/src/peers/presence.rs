//! A session among the processes of the other ranks.
//!
//! Invariants: all ranks have the same plan, one rank per process; positions are those of all ranks, of the others
//! as they were last heard of; nothing is sent that the plan does not have.

use super::Peers;
use super::bytes::Bytes;
use super::hub::{Patience, Tag};
use super::link::Frame;
use crate::position::Positions;
use crate::{PeerFault, RuntimeError, Waiting};
use std::fmt::{self, Display};
use std::sync::Arc;
use terrace_plan::{Plan, Rank};

/// A session among the processes of the other ranks.
pub struct Presence {
    pub(super) peers: Arc<Peers>,
    plan: Arc<Plan>,
    pub(super) positions: Arc<Positions>,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl Presence {
    /// Makes sure that all ranks are about to run `plan`.
    pub(crate) fn new(
        peers: &Arc<Peers>,
        plan: &Arc<Plan>,
        positions: &Arc<Positions>,
    ) -> Result<Self, RuntimeError> {
        let (ranks, processes) = (plan.ranks.len(), peers.world().ranks);
        if ranks != processes {
            return Err(PeerFault::Processes { ranks, processes }.into());
        }
        let presence = Self {
            peers: Arc::clone(peers),
            plan: Arc::clone(plan),
            positions: Arc::clone(positions),
        };
        peers.hub.lock().positions = Some(Arc::clone(positions));
        peers.agree("the plan", &summary(plan)?)?;
        Ok(presence)
    }

    /// Returns when all ranks have got here.
    pub(crate) fn ready(&self) -> Result<(), RuntimeError> {
        self.peers.agree("its state", "ready")
    }

    /// The rank of this process.
    pub fn rank(&self) -> Rank {
        self.peers.world().rank
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The other ranks.
    pub(crate) fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        self.peers.others()
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// `len` bytes of any value, for [`Presence::send`].
    pub(crate) fn take(&self, len: usize) -> Bytes {
        self.peers.hub.spares.take(len)
    }

    /// Gives bytes back that [`Presence::receive`] has returned.
    pub(crate) fn give(&self, bytes: Bytes) {
        self.peers.hub.spares.give(bytes);
    }

    /// Sends bytes; does not wait.
    pub(crate) fn send(&self, peer: Rank, tag: Tag, bytes: Bytes) {
        self.peers.send(peer, tag, bytes);
    }

    /// The next bytes of a peer, which are `len` and belong to `tag`.
    pub(crate) fn receive(
        &self,
        peer: Rank,
        tag: Tag,
        len: usize,
        waiting: &Waiting,
    ) -> Result<Bytes, RuntimeError> {
        let patience = Patience::Progress(&self.positions, waiting);
        let bytes = self.peers.receive(peer, tag, patience)?;
        if bytes.len() == len {
            return Ok(bytes);
        }
        Err(PeerFault::Bytes {
            rank: peer,
            expected: len,
            found: bytes.len(),
        }
        .into())
    }

    /// Tells a peer that its last message is where it belongs.
    pub(crate) fn taken(&self, peer: Rank) {
        if let Some(Some(link)) = self.peers.links.get(peer.0) {
            link.send(Frame::Taken);
        }
    }

    /// Waits until a peer has put one more message in place.
    pub(crate) fn wait_taken(&self, peer: Rank, waiting: &Waiting) -> Result<(), RuntimeError> {
        let patience = Patience::Progress(&self.positions, waiting);
        self.peers.hub.wait(peer, patience, |door| {
            let left = door.taken.checked_sub(1)?;
            door.taken = left;
            Some(())
        })
    }

    /// Whether the run may go on.
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        self.peers.hub.check()
    }

    /// Tells all ranks that this one has failed.
    pub(crate) fn fail(&self, cause: &dyn Display) {
        self.peers.fail(cause);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.peers.hub.lock();
        let own = |positions: &Arc<Positions>| Arc::ptr_eq(positions, &self.positions);
        if state.positions.as_ref().is_some_and(own) {
            state.positions = None;
        }
    }
}

/// What plans that differ hardly have in common.
fn summary(plan: &Plan) -> Result<String, RuntimeError> {
    let json = plan.to_json().map_err(|source| PeerFault::PlanText {
        source: Box::new(source),
    })?;
    let header = &plan.header;
    let mark = Peers::mark(&json);
    Ok(format!(
        "{} for {}, {}, of {} (mark {mark})",
        header.graph, header.fingerprint.shape, plan.mesh, header.producer
    ))
}
