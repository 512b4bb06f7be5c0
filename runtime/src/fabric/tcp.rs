//! The fabric between processes: what a rank sends goes through memory of its host and the network.
//!
//! When an exchange begins, each send is packed side by side and handed to the connection of its peer, which sends it
//! while the rank goes on. The wait spreads what has come, tells the sender, and returns when all peers have told
//! this rank the same; so a rank is never further ahead of its peers than with the local fabric.
//!
//! Invariants: messages of two ranks are matched in order, which is that of the plan on both; a wait times out when
//! no rank at all has begun a step for the whole limit. Refused: messages of another length than the plan's.

use super::transfers::Collectives;
use super::{Exchange, Fabric};
use crate::backend::Copier;
use crate::peers::{Presence, Tag};
use crate::{RuntimeError, Waiting};
use std::sync::Arc;
use terrace_plan::Rank;

/// Exchanges of one rank with those of other processes.
#[derive(Debug)]
pub struct TcpFabric {
    presence: Arc<Presence>,
    collectives: Collectives,
}

impl TcpFabric {
    /// The exchanges of the plan of a session.
    ///
    /// # Errors
    /// When the plan's boxes cannot be resolved.
    pub(crate) fn new(presence: &Arc<Presence>) -> Result<Self, RuntimeError> {
        Ok(Self {
            collectives: Collectives::new(presence.plan(), presence.rank())?,
            presence: Arc::clone(presence),
        })
    }
}

impl Fabric for TcpFabric {
    fn begin(&self, _: Rank, exchange: &Exchange, copier: &dyn Copier) -> Result<(), RuntimeError> {
        let tag = Tag::collective(exchange.collective);
        let size = exchange.src.dtype().bytes();
        for (peer, boxes) in &self.collectives.get(exchange.collective)?.sends {
            let mut bytes = self.presence.take(boxes.elements() * size);
            // SAFETY: the plan has passed its check, so nobody writes the source before the wait.
            unsafe { copier.download(exchange.src, bytes.bytes_mut(), boxes) }?;
            self.presence.send(*peer, tag, bytes);
        }
        Ok(())
    }

    fn wait(&self, _: Rank, exchange: &Exchange, copier: &dyn Copier) -> Result<(), RuntimeError> {
        let collective = exchange.collective;
        let (tag, size) = (Tag::collective(collective), exchange.dst.dtype().bytes());
        let transfers = self.collectives.get(collective)?;
        for (peer, boxes) in &transfers.receives {
            let peer = *peer;
            let len = boxes.elements() * size;
            let waiting = Waiting::Begin { collective, peer };
            let bytes = self.presence.receive(peer, tag, len, &waiting)?;
            // SAFETY: nobody else touches this rank's destination, as the plan's check has proved.
            unsafe { copier.upload(bytes.bytes(), exchange.dst, boxes) }?;
            self.presence.give(bytes);
            self.presence.taken(peer);
        }
        let waiting = Waiting::Readers { collective };
        for (peer, _) in &transfers.sends {
            self.presence.wait_taken(*peer, &waiting)?;
        }
        Ok(())
    }

    fn abort(&self, cause: &str) {
        self.presence.fail(&cause);
    }

    fn check(&self) -> Result<(), RuntimeError> {
        self.presence.check()
    }
}
