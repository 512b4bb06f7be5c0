//! Fabrics: how ranks exchange data.
//!
//! Every collective is an exchange with explicit transfers: a rank publishes a source, later waits
//! until its destination is complete and nobody reads its source any more. A fabric has no shape
//! logic and decides no order; it follows the plan.

mod local;
mod tcp;
mod transfers;

pub use local::LocalFabric;
pub use tcp::TcpFabric;
#[cfg(feature = "cuda")]
pub(crate) use transfers::Collectives;

use crate::RuntimeError;
use crate::backend::{Copier, View};
use std::sync::Arc;
use terrace_plan::{CollectiveId, Pattern, Rank};

/// One rank's part of an exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The collective.
    pub collective: CollectiveId,
    /// Buffer that peers read.
    pub src: View,
    /// Buffer that receives.
    pub dst: View,
    /// What goes to and comes from each peer.
    pub pattern: Arc<Pattern>,
}

/// Exchange groups with explicit transfers.
///
/// Implementations return from [`Fabric::wait`] in bounded time: with the data, with the error of
/// [`Fabric::check`] soon after a failure, or with
/// [`RuntimeError::ExchangeTimeout`] when a peer makes no progress.
pub trait Fabric: Send + Sync + 'static {
    /// Publishes the source of `exchange`, as `rank` has been told to make it, to its peers. Does not
    /// wait.
    ///
    /// # Errors
    /// When the exchange was begun before, or `rank` is no member of it.
    fn begin(
        &self,
        rank: Rank,
        exchange: &Exchange,
        copier: &dyn Copier,
    ) -> Result<(), RuntimeError>;

    /// Completes the destination of `exchange`, then waits until no peer reads its source.
    ///
    /// # Errors
    /// When a peer does not come, or another rank has failed.
    fn wait(
        &self,
        rank: Rank,
        exchange: &Exchange,
        copier: &dyn Copier,
    ) -> Result<(), RuntimeError>;

    /// Makes all waits of all ranks return at once, now and from now on, because a rank of this process has
    /// failed: `cause` is what it says.
    fn abort(&self, cause: &str);

    /// Whether the run may go on.
    ///
    /// # Errors
    /// [`RuntimeError::Aborted`] after [`Fabric::abort`], or the failure of another process.
    fn check(&self) -> Result<(), RuntimeError>;
}
