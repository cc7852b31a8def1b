//! The jobs that somebody wants cancelled, read from `meanwhile.cancels`. No slip is taken before they are known; no
//! attempt of such a job begins, and one that is under way is broken off if its step says so.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus::{Inbound, Reader, Unreadable};
use events::{FEATURES, decode_cancel};
use flow::decide::{Outcome, broken_off, code};
use flow::id::JobId;
use flow::slip::Slip;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::followed::{Following, Learn};

/// The pause before a cancel is read again that the registry kept from being read.
const RETRY: Duration = Duration::from_secs(1);

/// The open cancels. Shared by reference.
pub(crate) struct Cancels {
    reader: Reader,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    wanted: HashSet<JobId>,
    /// Calls that heed a cancel, by job: their number, and what is cancelled with the job.
    watched: HashMap<JobId, (usize, CancellationToken)>,
}

impl fmt::Debug for Cancels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancels").field("wanted", &self.known.read().wanted.len()).finish_non_exhaustive()
    }
}

impl Cancels {
    /// Knows of none. The second value is for [`crate::followed::follow`]; the receiver becomes true once all are
    /// known.
    pub(crate) fn new(reader: Reader) -> (Arc<Self>, Following, watch::Receiver<bool>) {
        let (_, following, is_loaded) = Following::new();
        (Arc::new(Self { reader, known: RwLock::default() }), following, is_loaded)
    }

    /// True if somebody wants the job cancelled.
    pub(crate) fn is_wanted(&self, job: JobId) -> bool {
        self.known.read().wanted.contains(&job)
    }

    /// Watches for a cancel of the job, for as long as the result lives.
    pub(crate) fn watch(self: &Arc<Self>, job: JobId) -> Watch {
        let mut known = self.known.write();
        let wanted = known.wanted.contains(&job);
        let (count, token) = known.watched.entry(job).or_default();
        *count += 1;
        if wanted {
            token.cancel();
        }
        Watch { job, token: token.clone(), cancels: Arc::clone(self) }
    }

    /// The news of a cancel of the job, for a native step.
    pub(crate) fn request(self: &Arc<Self>, job: JobId) -> CancelRequest {
        CancelRequest(Some(Arc::new(self.watch(job))))
    }

    /// `all`: no other cancels are open.
    fn want(&self, jobs: HashSet<JobId>, all: bool) {
        let mut known = self.known.write();
        for job in &jobs {
            if let Some((_, token)) = known.watched.get(job) {
                token.cancel();
            }
        }
        if all {
            known.wanted = jobs;
        } else {
            known.wanted.extend(jobs);
        }
    }

    fn forget(&self, job: JobId) {
        self.known.write().wanted.remove(&job);
    }

    /// True for a cancel that this version understands; waits for as long as the registry does not answer.
    async fn counts(&self, record: &Inbound) -> bool {
        let reason = loop {
            match self.reader.read(record.value.as_deref(), decode_cancel).await {
                Ok(cancel) => match cancel.requires.iter().find(|word| !FEATURES.contains(&word.as_str())) {
                    None => return true,
                    Some(word) => break format!("it requires `{word}`"),
                },
                Err(Unreadable::Never(reason) | Unreadable::Newer(reason)) => break reason,
                Err(Unreadable::NotNow(error)) => {
                    tracing::info!(%error, "a cancel cannot be read yet; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        metrics::counter!("meanwhile_unreadable_skipped_total", "role" => "workers").increment(1);
        tracing::warn!(offset = record.offset, reason, "a cancel cannot be read; passed over");
        false
    }
}

impl Learn for Cancels {
    async fn load(&self, records: &[Inbound]) {
        let mut wanted = HashSet::new();
        for record in records {
            match (job_of(record), &record.value) {
                (Some(job), None) => drop(wanted.remove(&job)),
                (Some(job), Some(_)) if self.counts(record).await => drop(wanted.insert(job)),
                _ => {}
            }
        }
        self.want(wanted, true);
    }

    async fn learn(&self, records: &[Inbound]) {
        for record in records {
            match (job_of(record), &record.value) {
                (Some(job), None) => self.forget(job),
                (Some(job), Some(_)) if self.counts(record).await => self.want(HashSet::from([job]), false),
                _ => {}
            }
        }
    }
}

fn job_of(record: &Inbound) -> Option<JobId> {
    std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok()
}

/// A call's eye on the cancel of its job.
pub(crate) struct Watch {
    job: JobId,
    token: CancellationToken,
    cancels: Arc<Cancels>,
}

impl Watch {
    /// The outcome of a call, unless the job is cancelled first: then the call is dropped.
    pub(crate) async fn unless_cancelled<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        self.token.run_until_cancelled(call).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut known = self.cancels.known.write();
        if let Some((count, _)) = known.watched.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                known.watched.remove(&self.job);
            }
        }
    }
}

/// Tells a native step whether somebody wants its job cancelled. A step need not heed it; one that does ends soon, with
/// an outcome that says what was done.
#[derive(Clone, Default)]
pub struct CancelRequest(Option<Arc<Watch>>);

impl CancelRequest {
    /// True once somebody wants the job cancelled. Never true of an undo.
    pub fn is_made(&self) -> bool {
        self.0.as_ref().is_some_and(|watch| watch.token.is_cancelled())
    }

    /// Waits until somebody wants the job cancelled.
    pub async fn made(&self) {
        match &self.0 {
            Some(watch) => watch.token.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelRequest").field("is_made", &self.is_made()).finish()
    }
}

impl PartialEq for CancelRequest {
    fn eq(&self, other: &Self) -> bool {
        self.is_made() == other.is_made()
    }
}

/// A call that was broken off ends its job, whatever the step's policy says of further attempts.
pub(crate) fn end_if_aborted(slip: &mut Slip, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed { error, .. } if error.code == code::ABORTED => {
            *slip = broken_off(slip.clone());
            Outcome::Cancelled
        }
        other => other,
    }
}
