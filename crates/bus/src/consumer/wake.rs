//! Something to sleep on that remembers being woken.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Wake {
    signalled: Mutex<bool>,
    condvar: Condvar,
}

impl Wake {
    pub(super) fn signal(&self) {
        *self.signalled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.condvar.notify_all();
    }

    /// Returns at once if signalled since the last wait.
    pub(super) fn wait(&self, timeout: Duration) {
        let signalled = self.signalled.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut signalled, _) = self
            .condvar
            .wait_timeout_while(signalled, timeout, |signalled| !*signalled)
            .unwrap_or_else(PoisonError::into_inner);
        *signalled = false;
    }
}
