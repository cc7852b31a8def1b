//! Named loops of one process: the first that fails takes the others down with it, in order.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The other tasks may take this long to leave after one has failed or shutdown was requested, if not more is allowed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Tasks that run until shutdown.
#[derive(Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    leave_timeout: Duration,
}

/// Starts work that no task waits for: it ends soon, or with the process, and nothing depends on its outcome.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn spawn_detached(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work));
}

impl Tasks {
    /// No task yet. `shutdown` is cancelled when one of them fails.
    pub fn new(shutdown: CancellationToken) -> Self {
        let (running, names) = (JoinSet::new(), HashMap::new());
        Self { shutdown, running, names, leave_timeout: LEAVE_TIMEOUT }
    }

    /// The token that ends all of these tasks.
    pub const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Allows at least this time for leaving.
    pub fn leave_within(&mut self, timeout: Duration) {
        self.leave_timeout = self.leave_timeout.max(timeout);
    }

    /// Starts a loop that ends when the shutdown token is cancelled. Ending earlier counts as a failure, so no part of
    /// a process dies unseen.
    pub fn spawn(&mut self, name: &str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let handle = self.running.spawn(work);
        self.names.insert(handle.id(), name.to_owned());
    }

    /// Waits for all; the first failure (error, panic or early end) cancels the others and is the one returned.
    ///
    /// # Errors
    /// The first failure, with the task's name; or the names of the tasks that did not leave in time.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut verdict = Ok(());
        loop {
            let ended = if self.shutdown.is_cancelled() {
                match tokio::time::timeout(self.leave_timeout, self.running.join_next_with_id()).await {
                    Ok(ended) => ended,
                    Err(_) => return verdict.and(Err(self.stuck())),
                }
            } else {
                tokio::select! {
                    ended = self.running.join_next_with_id() => ended,
                    () = self.shutdown.cancelled() => continue,
                }
            };
            let Some(ended) = ended else { return verdict };
            let failure = self.judge(ended);
            if failure.is_err() {
                self.shutdown.cancel();
                verdict = verdict.and(failure);
            }
        }
    }

    fn judge(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) -> anyhow::Result<()> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.names.remove(&id).unwrap_or_default();
        match ended {
            Ok((_, Ok(()))) if self.shutdown.is_cancelled() => Ok(()),
            Ok((_, Ok(()))) => Err(anyhow!("{name} ended before it was asked to")),
            Ok((_, Err(error))) => Err(error).with_context(|| format!("{name} failed")),
            Err(error) => Err(error).with_context(|| format!("{name} panicked")),
        }
    }

    fn stuck(&self) -> anyhow::Error {
        let mut names: Vec<&str> = self.names.values().map(String::as_str).collect();
        names.sort_unstable();
        anyhow!("{} did not leave within {} s", names.join(", "), self.leave_timeout.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(shutdown: CancellationToken) -> anyhow::Result<()> {
        shutdown.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn the_first_failure_ends_the_others_and_is_returned_with_its_name() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("steady", until(tasks.shutdown().clone()));
        tasks.spawn("drain", async { Err(anyhow!("disk full")) });
        let error = tasks.join().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "drain failed: disk full");
    }

    #[tokio::test]
    async fn a_task_that_ends_early_or_panics_is_a_failure() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("short", async { Ok(()) });
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "short ended before it was asked to");
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("broken", async { panic!("boom") });
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "broken panicked");
    }

    #[tokio::test]
    async fn a_shutdown_that_was_asked_for_ends_well() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("one", until(shutdown.clone()));
        tasks.spawn("two", until(shutdown.clone()));
        shutdown.cancel();
        tasks.join().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_has_the_time_that_was_allowed_to_leave_and_no_more() {
        for (allowed_s, leaves) in [(0, false), (40, false), (50, true)] {
            let shutdown = CancellationToken::new();
            let mut tasks = Tasks::new(shutdown.clone());
            tasks.leave_within(Duration::from_secs(allowed_s));
            tasks.leave_within(Duration::from_secs(1));
            let asked = shutdown.clone();
            tasks.spawn("held callers", async move {
                asked.cancelled().await;
                tokio::time::sleep(Duration::from_secs(45)).await;
                Ok(())
            });
            shutdown.cancel();
            assert_eq!(tasks.join().await.is_ok(), leaves, "{allowed_s} s");
        }
    }
}
