//! A thread that ends what a device is stuck in.
//!
//! Where exchanges run on a device, no thread of the processor waits in them, so somebody else must notice that a
//! peer has failed, is gone, or that nobody gets on. Invariant: it acts once, and only while the rank runs.

use super::Presence;
use super::hub::Hub;
use crate::position::Positions;
use crate::{RuntimeError, WorldFault};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The thread, which ends with this value.
#[derive(Debug)]
pub(crate) struct Guard {
    hub: Arc<Hub>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Presence {
    /// Calls `give_up` as soon as a run of this rank cannot end any more.
    pub(crate) fn guard(
        &self,
        give_up: impl FnOnce() + Send + 'static,
    ) -> Result<Guard, RuntimeError> {
        let rank = self.rank();
        let hub = Arc::clone(&self.peers.hub);
        let positions: Arc<Positions> = Arc::clone(&self.positions);
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let watched = Arc::clone(&hub);
        let thread = std::thread::Builder::new().name("guard".to_owned());
        let thread = thread.spawn(move || {
            if watched.watch(&positions, &stop) {
                give_up();
            }
        });
        let thread = thread.map_err(|source| WorldFault::Wait { rank, source })?;
        Ok(Guard {
            hub,
            stopped,
            thread: Some(thread),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.hub.wake();
        if let Some(thread) = self.thread.take() {
            // It ends without a result.
            let _ = thread.join();
        }
    }
}
