//! One slip on its way through this worker: its origin, and the state of its step.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flow::id::TokenId;
use tokio::time::Instant;

use crate::desk::Desk;
use crate::long_calls::LongCall;
use crate::tenure::{Belongs, Cut};
use crate::work::Work;

/// A slip, and the desk that gave it out.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) desk: Arc<Desk>,
    pub(crate) work: Work,
    pub(crate) since: Instant,
    /// Present once the step has begun to leave the partition.
    apart: OnceLock<Apart>,
}

/// The identity of a step that leaves its partition.
#[derive(Debug)]
pub(crate) struct Apart {
    /// The token as it rests.
    pub(crate) token: TokenId,
    pub(crate) tenant: String,
    /// The record key of the slip.
    pub(crate) lane: String,
    pub(crate) call: LongCall,
}

impl Task {
    pub(crate) fn new(desk: Arc<Desk>, work: Work) -> Self {
        Self { desk, work, since: Instant::now(), apart: OnceLock::new() }
    }

    /// Notes that the step begins to leave. Its hold may still not be committed: see [`Task::settle`].
    pub(crate) fn set_apart(&self, apart: Apart) {
        // Only one call of `Tenure::leave` succeeds.
        let _ = self.apart.set(apart);
    }

    /// Present once the step has begun to leave.
    pub(crate) fn apart(&self) -> Option<&Apart> {
        self.apart.get()
    }

    /// Waits until the step should leave its partition: it has taken long, or the partition is about to go.
    pub(crate) async fn leave_due(&self, after: Duration) {
        tokio::select! {
            () = tokio::time::sleep_until(self.since + after) => {}
            () = self.work.leave.cancelled() => {}
        }
    }

    /// Called when the step's outcome is known. Present: the outcome belongs to the hold that the token has become.
    /// Waits for ever if the outcome is to be dropped; [`Task::cut`] gives the reason.
    pub(crate) async fn settle(&self) -> Option<&Apart> {
        match self.work.tenure.settle().await {
            Belongs::Here => None,
            Belongs::Apart { .. } => self.apart(),
            Belongs::Nowhere => std::future::pending().await,
        }
    }

    /// Waits until the step must not go on here.
    pub(crate) async fn cut(&self) -> Cut {
        self.work.tenure.cut(&self.work.revoked).await
    }
}
