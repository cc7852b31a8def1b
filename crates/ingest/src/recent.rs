//! A cache of recent jobs, filled by the event tail. It has the freshest state, so that an answer never goes back in
//! time.
//!
//! Events are kept as bytes, and decoded only for a request: most jobs are never asked about.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use events::trace::{Trace, TraceId};
use events::{Inbound, header};
use flow::event::EventKind;
use flow::id::JobId;
use parking_lot::Mutex;

/// A job as the tail has seen it.
#[derive(Debug, Clone)]
pub(crate) struct RecentJob {
    /// The partition of its events.
    pub(crate) partition: i32,
    /// Every event that the tail saw, encoded, with its cursor.
    pub(crate) events: Vec<(i64, Box<[u8]>)>,
    /// True if the tail saw the job from its acceptance on.
    pub(crate) complete: bool,
    /// The job's trace.
    pub(crate) trace_id: Option<TraceId>,
    /// The bytes of its events.
    bytes: usize,
}

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
    fn forget_oldest(&mut self, forgotten_max: usize) {
        let Some(job) = self.order.pop_front() else { return };
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

    /// Takes in one event from the tail. A record without a job in its key is ignored.
    pub(crate) fn saw(&self, record: Inbound) {
        let Some(job) = job_of(&record) else { return };
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
        let dropped = recent.push(record).map(|cursor| (recent.partition, cursor));
        seen.bytes += recent.bytes;
        let forgotten_max = self.jobs_max.saturating_mul(FORGOTTEN_FACTOR);
        if let Some(place) = dropped {
            seen.forget(job, place, forgotten_max);
        }
        while seen.order.len() > self.jobs_max || (seen.bytes > self.bytes_max && seen.order.len() > 1) {
            seen.forget_oldest(forgotten_max);
        }
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

fn job_of(record: &Inbound) -> Option<JobId> {
    std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok()
}

/// The job whose last event this is, as its header tells.
pub(crate) fn ended(record: &Inbound) -> Option<JobId> {
    let kind = record.header_text(header::CE_TYPE)?;
    let ends = [EventKind::JobSucceeded, EventKind::JobFailed, EventKind::JobCancelled];
    ends.iter().any(|end| end.as_str() == kind).then(|| job_of(record)).flatten()
}

impl RecentJob {
    fn begin(first: &Inbound) -> Self {
        let complete = first.header_text(header::CE_TYPE) == Some(EventKind::JobAccepted.as_str());
        let trace_id = Trace::from_headers(&first.headers).map(|trace| trace.context.trace_id);
        let partition = first.partition;
        Self { partition, events: Vec::with_capacity(EVENTS_USUAL), complete, trace_id, bytes: 0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(job: u128, offset: i64, kind: EventKind) -> Inbound {
        let headers = vec![(header::CE_TYPE.to_owned(), Some(kind.as_str().as_bytes().to_vec()))];
        let key = Some(id(job).to_string().into_bytes());
        Inbound { offset, key, value: Some(vec![1, 2]), headers, ..Inbound::default() }
    }

    fn id(job: u128) -> JobId {
        JobId::new(uuid::Uuid::from_u128(job))
    }

    fn cursors(recent: &RecentJobs, job: u128) -> Option<Vec<i64>> {
        Some(recent.look(id(job)).job?.events.iter().map(|(cursor, _)| *cursor).collect())
    }

    fn forgotten(recent: &RecentJobs, job: u128) -> Option<i64> {
        recent.look(id(job)).forgotten
    }

    #[test]
    fn repeated_events_are_kept_once_and_a_job_is_complete_from_its_acceptance_on() {
        let recent = RecentJobs::new(2, BYTES_MAX);
        for (offset, kind) in [(3, EventKind::JobAccepted), (5, EventKind::StepSucceeded), (3, EventKind::JobAccepted)]
        {
            recent.saw(event(1, offset, kind));
        }
        assert_eq!(cursors(&recent, 1), Some(vec![3, 5]));
        assert!(recent.look(id(1)).job.unwrap().complete);
        recent.saw(event(2, 9, EventKind::StepSucceeded));
        assert!(!recent.look(id(2)).job.unwrap().complete);
        recent.saw(Inbound { key: Some(b"noise".to_vec()), ..event(2, 10, EventKind::StepSucceeded) });
        assert_eq!(cursors(&recent, 2), Some(vec![9]));
    }

    #[test]
    fn of_the_oldest_job_the_cursor_remains() {
        let recent = RecentJobs::new(1, BYTES_MAX);
        recent.saw(event(1, 3, EventKind::JobAccepted));
        recent.saw(event(1, 4, EventKind::StepSucceeded));
        recent.saw(event(2, 5, EventKind::JobAccepted));
        assert_eq!((forgotten(&recent, 1), forgotten(&recent, 2)), (Some(4), None));
        assert_eq!((cursors(&recent, 1), cursors(&recent, 2)), (None, Some(vec![5])));
    }

    #[test]
    fn of_a_job_with_very_many_events_the_latest_are_kept() {
        let recent = RecentJobs::new(1, BYTES_MAX);
        for offset in 0..=EVENTS_MAX as i64 {
            let kind = if offset == 0 { EventKind::JobAccepted } else { EventKind::StepRetrying };
            recent.saw(event(1, offset, kind));
        }
        let known = recent.look(id(1)).job.unwrap();
        assert!(!known.complete && known.events.len() == EVENTS_MAX / 2 + 1);
        assert_eq!(known.events.last().unwrap().0, EVENTS_MAX as i64);
        assert_eq!(forgotten(&recent, 1), Some(known.events[0].0 - 1), "an answer must have the others from elsewhere");
    }

    #[test]
    fn events_below_the_begin_and_those_of_jobs_that_are_not_even_remembered_are_not_known() {
        let recent = RecentJobs::new(1, BYTES_MAX);
        recent.begun_at(HashMap::from([(0, 7), (1, 3)]));
        for number in 0..=FORGOTTEN_FACTOR as u128 + 1 {
            recent.saw(event(number, 10 + number as i64, EventKind::JobAccepted));
        }
        // One job is there, a few are remembered by their cursors, the first one is not.
        assert_eq!((forgotten(&recent, 0), forgotten(&recent, 1)), (None, Some(11)));
        assert_eq!(*recent.look(id(0)).floors, HashMap::from([(0, 11), (1, 3)]));
        recent.begun_at(HashMap::from([(0, 8), (2, 5)]));
        assert_eq!(*recent.look(id(0)).floors, HashMap::from([(0, 11), (1, 3), (2, 5)]));
    }

    fn large(job: u128, offset: i64, bytes: usize) -> Inbound {
        Inbound { value: Some(vec![1; bytes - EVENT_BYTES]), ..event(job, offset, EventKind::JobAccepted) }
    }

    #[test]
    fn the_oldest_jobs_are_forgotten_before_the_bytes_exceed_their_budget() {
        let recent = RecentJobs::new(1_000, 10_000);
        for number in 0..100 {
            recent.saw(large(number, number as i64, 1_000));
            assert!(recent.seen.lock().bytes <= 10_000);
        }
        assert_eq!(recent.seen.lock().jobs.len(), 10);
        assert_eq!(
            (cursors(&recent, 99), cursors(&recent, 89), forgotten(&recent, 89)),
            (Some(vec![99]), None, Some(89))
        );
        // An event of a job that is known counts, too.
        recent.saw(large(99, 200, 9_000));
        let seen = recent.seen.lock();
        assert_eq!((seen.jobs.len(), seen.bytes), (1, 10_000));
    }

    #[test]
    fn of_a_job_with_large_events_the_latest_are_kept() {
        let recent = RecentJobs::new(1, BYTES_MAX);
        for offset in 0..20 {
            recent.saw(large(1, offset, JOB_BYTES_MAX / 4));
            assert!(recent.look(id(1)).job.unwrap().bytes <= JOB_BYTES_MAX);
        }
        let known = recent.look(id(1)).job.unwrap();
        assert!(!known.complete && known.events.last().unwrap().0 == 19);
        assert_eq!(recent.seen.lock().bytes, known.bytes);
    }
}
