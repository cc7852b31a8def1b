//! Requests that wait for a job to change, or to end. The tail of the events wakes them, never a look at the database.
//!
//! Order matters: a request enters first, then looks at the job, then waits. An event that comes in between is not
//! missed.

use std::collections::HashMap;

use flow::id::JobId;
use tokio::sync::watch;

/// The requests that wait, by their jobs.
#[derive(Default)]
pub(crate) struct Waiters {
    /// Each time that something happens to a job this is told; true once it has ended.
    by_job: HashMap<JobId, watch::Sender<bool>>,
    count: usize,
}

impl Waiters {
    /// None where so many wait already.
    pub(crate) fn enter(&mut self, job: JobId, waiters_max: usize) -> Option<watch::Receiver<bool>> {
        if self.count >= waiters_max {
            return None;
        }
        self.count += 1;
        Some(self.by_job.entry(job).or_default().subscribe())
    }

    /// One has left. True if no other one waits for this job.
    pub(crate) fn leave(&mut self, job: JobId) -> bool {
        self.count -= 1;
        let was_last = self.by_job.get(&job).is_some_and(|told| told.receiver_count() == 0);
        if was_last {
            self.by_job.remove(&job);
        }
        was_last
    }

    /// True if somebody waits for this job.
    pub(crate) fn is_awaited(&self, job: JobId) -> bool {
        self.by_job.contains_key(&job)
    }

    /// Something has happened to a job; `is_end`: it has ended.
    pub(crate) fn wake(&self, job: JobId, is_end: bool) {
        if let Some(told) = self.by_job.get(&job) {
            told.send_modify(|has_ended| *has_ended |= is_end);
        }
    }
}
