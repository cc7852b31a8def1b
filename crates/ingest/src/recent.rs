//! A cache of recent jobs, filled by the event tail. It has the freshest state, so that an answer never goes back in
//! time.
//!
//! Events are kept as bytes, and decoded only for a request: most jobs are never asked about. Jobs for which a request
//! waits are kept beside the others, for as long as there is room: its answer then needs no database.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use events::trace::{Trace, TraceId};
use events::{Inbound, header};
use flow::event::EventKind;
use flow::id::JobId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::waiters::Waiters;

/// A job as the tail has seen it.
#[derive(Debug, Clone)]
pub(crate) struct RecentJob {
    /// The partition of its events.
    pub(crate) partition: i32,
    /// Every event that the tail saw, encoded, with its cursor.
    pub(crate) events: Vec<(i64, Box<[u8]>)>,
    /// True if the tail saw the job from its acceptance on.
    pub(crate) complete: bool,
    /// True once the tail has seen the job's end.
    pub(crate) has_ended: bool,
    /// The job's trace.
    pub(crate) trace_id: Option<TraceId>,
    /// The bytes of its events.
    bytes: usize,
}

/// The cursor of a job without any event yet: before the first offset.
pub(crate) const BEFORE_THE_FIRST_EVENT: i64 = -1;
/// Bytes of events that are kept, of all jobs.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most bytes of events that are kept of one job; older ones are read from the database.
const JOB_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an event takes beside its bytes.
const EVENT_BYTES: usize = 64;
/// The factor by which more jobs have only their cursor kept.
const FORGOTTEN_FACTOR: usize = 5;
/// The most events that are kept of one job; older ones are read from the database.
const EVENTS_MAX: usize = 1_000;
/// A guess that spares most jobs an allocation.
const EVENTS_USUAL: usize = 6;

#[derive(Default)]
struct Seen {
    jobs: HashMap<JobId, RecentJob>,
    order: VecDeque<JobId>,
    /// Jobs whose turn to be forgotten came while somebody waited for them.
    held: HashSet<JobId>,
    waiters: Waiters,
    /// The bytes of all jobs' events.
    bytes: usize,
    /// The cursor of the last dropped event of a job, by partition: no answer may lack it.
    forgotten: HashMap<JobId, (i32, i64)>,
    forgotten_order: VecDeque<JobId>,
    /// For each partition the offset below which events are not known here.
    floors: Arc<HashMap<i32, i64>>,
}

/// All that is known of a job at one moment.
pub(crate) struct Known {
    /// The job, if the tail has seen any of its events.
    pub(crate) job: Option<RecentJob>,
    /// The cursor up to which its events were known before they were dropped.
    pub(crate) forgotten: Option<i64>,
    /// For each partition the offset below which events are not known here.
    pub(crate) floors: Arc<HashMap<i32, i64>>,
}

impl Seen {
    /// Forgets the oldest jobs, until the others are within these bounds. One job is always kept.
    fn fit(&mut self, jobs_max: usize, bytes_max: usize, forgotten_max: usize) {
        while self.order.len() > jobs_max {
            let Some(job) = self.order.pop_front() else { break };
            if self.waiters.is_awaited(job) {
                self.held.insert(job);
            } else {
                self.drop_job(job, forgotten_max);
            }
        }
        while self.bytes > bytes_max && self.jobs.len() > 1 {
            let oldest = match self.order.len() {
                0 | 1 => self.held.iter().next().copied(),
                _ => self.order.pop_front(),
            };
            let Some(job) = oldest.or_else(|| self.order.pop_front()) else { break };
            self.held.remove(&job);
            self.drop_job(job, forgotten_max);
        }
    }

    fn drop_job(&mut self, job: JobId, forgotten_max: usize) {
        let Some(mut recent) = self.jobs.remove(&job) else { return };
        self.bytes -= recent.bytes;
        let Some((cursor, _)) = recent.events.pop() else { return };
        self.forget(job, (recent.partition, cursor), forgotten_max);
    }

    /// Remembers that a job's events up to this cursor are gone.
    fn forget(&mut self, job: JobId, place: (i32, i64), forgotten_max: usize) {
        if self.forgotten.insert(job, place).is_none() {
            self.forgotten_order.push_back(job);
        }
        if self.forgotten_order.len() > forgotten_max
            && let Some(oldest) = self.forgotten_order.pop_front()
            && let Some((partition, cursor)) = self.forgotten.remove(&oldest)
        {
            let floor = Arc::make_mut(&mut self.floors).entry(partition).or_default();
            *floor = (*floor).max(cursor + 1);
        }
    }
}

/// The recent jobs, bounded by number and by bytes; the oldest are forgotten first. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RecentJobs {
    jobs_max: usize,
    bytes_max: usize,
    seen: Arc<Mutex<Seen>>,
}

impl RecentJobs {
    /// An empty cache for at most `jobs_max` jobs, and `bytes_max` bytes of their events.
    pub(crate) fn new(jobs_max: usize, bytes_max: usize) -> Self {
        Self { jobs_max, bytes_max, seen: Arc::default() }
    }

    /// Takes in one event from the tail, and wakes those who wait for it. Returns the job if this is its end. A record
    /// without a job in its key is ignored.
    pub(crate) fn saw(&self, record: Inbound) -> Option<JobId> {
        let job = job_of(&record)?;
        let kind = record.header_text(header::CE_TYPE).and_then(EventKind::parse);
        let is_end = kind.is_some_and(EventKind::ends_job);
        let mut seen = self.seen.lock();
        let seen = &mut *seen;
        let recent = match seen.jobs.entry(job) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                seen.order.push_back(job);
                vacant.insert(RecentJob::begin(&record))
            }
        };
        seen.bytes -= recent.bytes;
        recent.has_ended |= is_end;
        let dropped = recent.push(record).map(|cursor| (recent.partition, cursor));
        seen.bytes += recent.bytes;
        let forgotten_max = self.jobs_max.saturating_mul(FORGOTTEN_FACTOR);
        if let Some(place) = dropped {
            seen.forget(job, place, forgotten_max);
        }
        seen.fit(self.jobs_max, self.bytes_max, forgotten_max);
        seen.waiters.wake(job, is_end);
        is_end.then_some(job)
    }

    /// A place among those that wait for this job; none where `waiters_max` wait already.
    pub(crate) fn wait(&self, job: JobId, waiters_max: usize) -> Option<Waiter> {
        let told = self.seen.lock().waiters.enter(job, waiters_max)?;
        Some(Waiter::new(job, told, self.clone()))
    }

    /// Gives a place back.
    fn leave(&self, job: JobId) {
        let mut seen = self.seen.lock();
        if seen.waiters.leave(job) && seen.held.remove(&job) {
            // It is the next to be forgotten.
            seen.order.push_front(job);
        }
    }

    /// Wakes those who wait for a change of this job, of which no event tells.
    pub(crate) fn changed(&self, job: JobId) {
        self.seen.lock().waiters.wake(job, false);
    }

    /// Says where the tail has begun: events below these offsets are not known here.
    pub(crate) fn begun_at(&self, floors: HashMap<i32, i64>) {
        let mut seen = self.seen.lock();
        let known = Arc::make_mut(&mut seen.floors);
        for (partition, begun) in floors {
            let floor = known.entry(partition).or_default();
            *floor = (*floor).max(begun);
        }
    }

    /// All that is known of a job now.
    pub(crate) fn look(&self, job: JobId) -> Known {
        let seen = self.seen.lock();
        let forgotten = seen.forgotten.get(&job).map(|(_, cursor)| *cursor);
        Known { job: seen.jobs.get(&job).cloned(), forgotten, floors: Arc::clone(&seen.floors) }
    }
}

/// The job that a record is about, by its key.
pub(crate) fn job_of(record: &Inbound) -> Option<JobId> {
    std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok()
}

impl RecentJob {
    fn begin(first: &Inbound) -> Self {
        let complete = first.header_text(header::CE_TYPE) == Some(EventKind::JobAccepted.as_str());
        let trace_id = Trace::from_headers(&first.headers).map(|trace| trace.context.trace_id);
        let partition = first.partition;
        Self { partition, events: Vec::with_capacity(EVENTS_USUAL), complete, has_ended: false, trace_id, bytes: 0 }
    }

    /// The cursor of the last event.
    pub(crate) fn last_cursor(&self) -> i64 {
        self.events.last().map_or(BEFORE_THE_FIRST_EVENT, |(cursor, _)| *cursor)
    }

    /// A job's events lie in one partition: whatever is not beyond the last one is a repetition. Returns the cursor of
    /// the last event that had to go for it.
    fn push(&mut self, record: Inbound) -> Option<i64> {
        if self.events.last().is_some_and(|(cursor, _)| record.offset <= *cursor) {
            return None;
        }
        let event = record.value.unwrap_or_default().into_boxed_slice();
        let size = |event: &[u8]| EVENT_BYTES + event.len();
        self.bytes += size(&event);
        self.events.push((record.offset, event));
        let mut dropped = None;
        while self.events.len() > EVENTS_MAX || (self.bytes > JOB_BYTES_MAX && self.events.len() > 1) {
            for (cursor, event) in self.events.drain(..self.events.len() / 2) {
                self.bytes -= size(&event);
                dropped = Some(cursor);
            }
            self.complete = false;
        }
        dropped
    }
}

/// A request's place among those that wait. It is given back when this is dropped, with the request.
pub(crate) struct Waiter {
    job: JobId,
    /// None only while it leaves.
    told: Option<watch::Receiver<bool>>,
    recent: RecentJobs,
}

impl Waiter {
    fn new(job: JobId, told: watch::Receiver<bool>, recent: RecentJobs) -> Self {
        metrics::gauge!("meanwhile_waiters").increment(1.0);
        Self { job, told: Some(told), recent }
    }

    /// Returns once something has happened to the job since this was created, or was called last.
    pub(crate) async fn changed(&mut self) {
        if let Some(told) = &mut self.told {
            // Its sender is there for as long as one waits.
            let _ = told.changed().await;
        }
    }

    /// Returns once the job has ended.
    pub(crate) async fn ended(&mut self) {
        if let Some(told) = &mut self.told {
            let _ = told.wait_for(|has_ended| *has_ended).await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        metrics::gauge!("meanwhile_waiters").decrement(1.0);
        drop(self.told.take());
        self.recent.leave(self.job);
    }
}

#[cfg(test)]
mod tests;
