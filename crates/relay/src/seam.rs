//! The seams of a delivery, at which tests stop it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A seam, named for the two steps that it lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seam {
    /// Rows are collected; nothing is in Kafka yet.
    BeforeSend,
    /// Everything is sent; the transaction is open.
    BeforeCommit,
    /// The transaction is committed; Postgres does not know yet.
    AfterCommit,
    /// Postgres is about to learn of it.
    BeforeAcknowledge,
}

impl Seam {
    /// Its name among all seams of the system.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeSend => "relay.before-send",
            Self::BeforeCommit => "relay.before-commit",
            Self::AfterCommit => "relay.after-commit",
            Self::BeforeAcknowledge => "relay.before-ack",
        }
    }
}

/// A call at each seam, on the delivering thread. `Break` ends the session there as a crash would: nothing is
/// committed, aborted or acknowledged any more. By default there is no call.
#[derive(Clone, Default)]
pub struct Seams(Option<Arc<dyn Fn(Seam) -> ControlFlow<()> + Send + Sync>>);

impl Seams {
    /// Calls this at each seam.
    pub fn new(call: impl Fn(Seam) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    pub(crate) fn pass(&self, seam: Seam) -> ControlFlow<()> {
        service_kit::stop_at(seam.name());
        self.0.as_ref().map_or(ControlFlow::Continue(()), |call| call(seam))
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seams").field(&self.0.is_some()).finish()
    }
}
