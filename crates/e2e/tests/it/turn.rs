//! Two cores: a test that loads the machine takes most of it, and has few others beside it.

use tokio::sync::{Semaphore, SemaphorePermit};

static MACHINE: Semaphore = Semaphore::const_new(7);
/// The share of a test that loads the machine: two of them fit beside each other, with one light test.
const HEAVY: u32 = 3;

/// A test that can run beside others.
pub(crate) async fn beside_others() -> SemaphorePermit<'static> {
    MACHINE.acquire().await.expect("it is never closed")
}

/// A test that wants the machine nearly for itself.
pub(crate) async fn nearly_alone() -> SemaphorePermit<'static> {
    MACHINE.acquire_many(HEAVY).await.expect("it is never closed")
}
