//! Leaving in steps, so that no request is refused: whoever balances requests between instances is told first, and
//! callers that are held for the outcome of a job get it.

use std::time::Duration;

use service_kit::health::Readiness;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The dependency under which readiness tells that this process leaves.
const NAME: &str = "staying";

/// The steps in which a process leaves. The end of all cancels them both, also where something has failed.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    /// Cancelled first: nothing new is taken, streams end, and nobody waits who can be answered with less.
    pub(crate) begun: CancellationToken,
    /// Cancelled next: nobody is held any longer that is owed an outcome.
    pub(crate) holds_end: CancellationToken,
}

impl Leaving {
    /// Nobody leaves yet.
    pub(crate) fn before(shutdown: &CancellationToken) -> Self {
        Self { begun: shutdown.child_token(), holds_end: shutdown.child_token() }
    }

    /// Takes the steps once somebody has `asked` for it; `/readyz` says so at once. Returns at `shutdown`: it comes
    /// once no request is left, or where something has failed and there is nothing to wait for.
    pub(crate) async fn once_asked(
        &self,
        asked: &CancellationToken,
        config: &Config,
        readiness: &Readiness,
        shutdown: &CancellationToken,
    ) {
        let in_steps = async {
            asked.cancelled().await;
            if config.leave_after_ms > 0 {
                readiness.missing(NAME, "this process was asked to end: send requests to another one");
                tokio::time::sleep(Duration::from_millis(config.leave_after_ms)).await;
            }
            self.begun.cancel();
            tokio::time::sleep(config.drain_timeout()).await;
            self.holds_end.cancel();
            shutdown.cancelled().await;
        };
        shutdown.run_until_cancelled(in_steps).await;
    }
}

/// Ends the process once no request is left. `all` are asked first: whoever is asked by `served` may leave at once, and
/// who leaves without being asked counts as failed.
pub(crate) fn no_request_is_left(all: &CancellationToken, served: &CancellationToken) {
    all.cancel();
    served.cancel();
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;

    /// Notes whether all had been asked to leave when it is woken.
    struct Noting {
        all: CancellationToken,
        were_asked: AtomicBool,
    }

    impl Wake for Noting {
        fn wake(self: Arc<Self>) {
            self.were_asked.store(self.all.is_cancelled(), Ordering::Relaxed);
        }
    }

    #[test]
    fn at_a_clean_stop_whoever_was_needed_until_the_end_leaves_when_all_are_asked_to() {
        let (all, served) = (CancellationToken::new(), CancellationToken::new());
        let noting = Arc::new(Noting { all: all.clone(), were_asked: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&noting));
        let mut asked = pin!(served.cancelled());
        assert!(asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        no_request_is_left(&all, &served);
        assert!(noting.were_asked.load(Ordering::Relaxed), "it would have failed by leaving unasked");
    }
}
