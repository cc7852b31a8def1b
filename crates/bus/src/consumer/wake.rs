//! Something to sleep on that remembers being woken.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Wake {
    signalled: Mutex<bool>,
    condvar: Condvar,
}

impl Wake {
    pub(super) fn signal(&self) {
        *self.signalled.lock() = true;
        self.condvar.notify_all();
    }

    /// Returns at once if signalled since the last wait.
    pub(super) fn wait(&self, timeout: Duration) {
        let mut signalled = self.signalled.lock();
        self.condvar.wait_while_for(&mut signalled, |signalled| !*signalled, timeout);
        *signalled = false;
    }
}
