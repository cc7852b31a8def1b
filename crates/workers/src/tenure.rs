//! The tenure of a step: with the partition that its slip came from, or apart from it.
//!
//! A step that ends soon stays with its partition: its result is committed with the slip's offset. A step that takes
//! long leaves: its token becomes a hold, committed with the offset, and the call goes on, whoever gets the partition.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// No call was made yet.
    Waiting,
    /// A call may be under way.
    Begun,
    /// The outcome is known, and belongs to the partition.
    Settled,
    /// The hold is on its way into a transaction.
    Leaving,
    /// The same, and this worker was declared lost under the name that the hold has.
    LeavingLost,
    /// The hold is committed.
    Apart,
    /// The hold may be committed: the transaction's outcome is unknown.
    Doubtful,
    /// The partition's next owner has the slip.
    Over,
    /// The hold was taken from this worker: it was silent for too long.
    Lost,
    /// This worker stops, and is to hand the hold over.
    HandOver,
}

/// The reason for which a step must not go on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its partition has gone to another worker, with the slip.
    Revoked,
    /// Its hold was given to another worker.
    Lost,
    /// Its hold is to be given to another worker.
    HandOver,
}

/// The owner of a step's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Belongs {
    /// To the partition of its slip: it is committed with the slip's offset.
    Here,
    /// To the hold that the token has become.
    Apart {
        /// The outcome of the hold's transaction is unknown.
        doubtful: bool,
    },
    /// No owner here: another worker runs the step again.
    Nowhere,
}

/// The stand of one slip's step, shared by the task that runs it and by the board.
#[derive(Debug)]
pub(crate) struct Tenure {
    stand: Mutex<Stand>,
    changed: Notify,
}

impl Tenure {
    pub(crate) fn new() -> Self {
        Self { stand: Mutex::new(Stand::Waiting), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock()
    }

    /// Asks for leave to make a call. False: the step is another worker's now, and no call may be made.
    pub(crate) fn begin(&self) -> bool {
        let mut stand = self.lock();
        match *stand {
            Stand::Waiting | Stand::Settled => {
                *stand = Stand::Begun;
                true
            }
            Stand::Begun | Stand::Leaving | Stand::LeavingLost | Stand::Apart | Stand::Doubtful => true,
            Stand::Over | Stand::Lost | Stand::HandOver => false,
        }
    }

    /// The partition is about to go: what was not begun is left to its next owner.
    pub(crate) fn forbid(&self) {
        self.change(|stand| if stand == Stand::Waiting { Stand::Over } else { stand });
    }

    /// Takes the right to leave. None: the step is not under way, or leaves already.
    pub(crate) fn leave(self: &Arc<Self>) -> Option<Leave> {
        let mut stand = self.lock();
        if *stand != Stand::Begun {
            return None;
        }
        *stand = Stand::Leaving;
        Some(Leave(Arc::clone(self)))
    }

    /// Settles a known outcome, and tells its owner. Waits while the hold is on its way into a transaction.
    pub(crate) async fn settle(&self) -> Belongs {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut stand = self.lock();
                match *stand {
                    Stand::Waiting | Stand::Begun | Stand::Settled => {
                        *stand = Stand::Settled;
                        return Belongs::Here;
                    }
                    Stand::Apart => return Belongs::Apart { doubtful: false },
                    Stand::Doubtful => return Belongs::Apart { doubtful: true },
                    Stand::Over | Stand::Lost | Stand::HandOver => return Belongs::Nowhere,
                    Stand::Leaving | Stand::LeavingLost => {}
                }
            }
            changed.await;
        }
    }

    /// Waits until the step must not go on here. `revoked` is cancelled once its partition has gone.
    pub(crate) async fn cut(&self, revoked: &CancellationToken) -> Cut {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (stand, gone) = (*self.lock(), revoked.is_cancelled());
            match stand {
                Stand::Over => return Cut::Revoked,
                Stand::Lost => return Cut::Lost,
                Stand::HandOver => return Cut::HandOver,
                Stand::Waiting | Stand::Begun | Stand::Settled if gone => return Cut::Revoked,
                Stand::Waiting
                | Stand::Begun
                | Stand::Settled
                | Stand::Leaving
                | Stand::LeavingLost
                | Stand::Apart
                | Stand::Doubtful => {}
            }
            if gone {
                changed.await;
            } else {
                tokio::select! {
                    () = changed => {}
                    () = revoked.cancelled() => {}
                }
            }
        }
    }

    /// Takes the hold from this worker (`lost`), or asks it to hand the hold over: [`Tenure::cut`] returns.
    pub(crate) fn give_up(&self, lost: bool) {
        self.change(|stand| match stand {
            Stand::Apart | Stand::Doubtful if lost => Stand::Lost,
            Stand::Apart | Stand::Doubtful => Stand::HandOver,
            Stand::Leaving if lost => Stand::LeavingLost,
            other => other,
        });
    }

    /// True when another worker runs the step.
    pub(crate) fn is_over(&self) -> bool {
        *self.lock() == Stand::Over
    }

    fn change(&self, to: impl FnOnce(Stand) -> Stand) {
        let mut stand = self.lock();
        *stand = to(*stand);
        drop(stand);
        self.changed.notify_waiters();
    }
}

/// A hold on its way into a transaction. Dropped before any other call, it counts as not committed.
#[derive(Debug)]
pub(crate) struct Leave(Arc<Tenure>);

impl Leave {
    /// Notes that the transaction was committed.
    pub(crate) fn committed(&self) {
        self.0.change(|stand| if stand == Stand::LeavingLost { Stand::Lost } else { Stand::Apart });
    }

    /// Notes that the transaction's outcome is unknown.
    pub(crate) fn doubtful(&self) {
        self.0.change(|stand| match stand {
            Stand::Leaving => Stand::Doubtful,
            Stand::LeavingLost => Stand::Lost,
            other => other,
        });
    }
}

impl Leave {
    /// The step stays with its partition after all: its hold cannot be written.
    pub(crate) fn stay(self) {
        self.0.change(|stand| if matches!(stand, Stand::Leaving | Stand::LeavingLost) { Stand::Begun } else { stand });
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Of the committer, perhaps after its commit.
            self.doubtful();
        }
        self.0.change(|stand| if matches!(stand, Stand::Leaving | Stand::LeavingLost) { Stand::Over } else { stand });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn begun() -> Arc<Tenure> {
        let tenure = Arc::new(Tenure::new());
        assert!(tenure.begin());
        tenure
    }

    #[tokio::test]
    async fn an_outcome_belongs_to_the_partition_unless_the_step_has_left() {
        let tenure = begun();
        assert_eq!(tenure.settle().await, Belongs::Here);
        assert!(tenure.leave().is_none(), "too late: the outcome is about to be committed");
        assert!(tenure.begin(), "another attempt");
        let leave = tenure.leave().unwrap();
        assert_eq!(tenure.settle().now_or_never(), None, "it waits for the hold's transaction");
        leave.committed();
        drop(leave);
        assert_eq!(tenure.settle().await, Belongs::Apart { doubtful: false });
        assert!(tenure.begin() && tenure.leave().is_none());
        let revoked = CancellationToken::new();
        revoked.cancel();
        assert_eq!(tenure.cut(&revoked).now_or_never(), None, "it goes on without its partition");
        tenure.give_up(true);
        assert_eq!((tenure.cut(&revoked).await, tenure.settle().await), (Cut::Lost, Belongs::Nowhere));
    }

    #[tokio::test]
    async fn a_hold_that_is_dropped_was_not_committed_and_one_in_doubt_may_have_been() {
        let tenure = begun();
        drop(tenure.leave());
        assert_eq!(tenure.settle().await, Belongs::Nowhere);
        assert!(!tenure.begin());
        let tenure = begun();
        let leave = tenure.leave().unwrap();
        leave.doubtful();
        drop(leave);
        assert_eq!(tenure.settle().await, Belongs::Apart { doubtful: true });
    }

    #[tokio::test]
    async fn a_hold_that_is_committed_under_a_name_that_was_given_up_is_lost() {
        let tenure = begun();
        let leave = tenure.leave().unwrap();
        tenure.give_up(true);
        assert_eq!(tenure.settle().now_or_never(), None);
        leave.committed();
        drop(leave);
        assert_eq!(tenure.cut(&CancellationToken::new()).await, Cut::Lost);
    }

    #[tokio::test]
    async fn what_was_not_begun_when_its_partition_goes_is_never_begun() {
        let tenure = Tenure::new();
        tenure.forbid();
        assert!(!tenure.begin() && tenure.is_over());
        let tenure = begun();
        tenure.forbid();
        assert!(!tenure.is_over(), "it has to leave first");
    }
}
