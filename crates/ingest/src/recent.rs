//! A cache of recent jobs, filled by the event tail. It has the freshest state, so that an answer never goes back in
//! time.
//!
//! Events are kept as they came, and read only when somebody asks: most jobs are never asked about.

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
    /// Every event that the tail saw, with its cursor, as Kafka had it.
    pub(crate) events: Vec<(i64, Box<[u8]>)>,
    /// Whether the tail saw the job from its acceptance on.
    pub(crate) complete: bool,
    /// The job's trace.
    pub(crate) trace_id: Option<TraceId>,
}

/// For this many times more jobs, the cursor alone is kept.
const FORGOTTEN_FACTOR: usize = 5;
/// Events kept of one job, at most; older ones are told from the database.
const EVENTS_MAX: usize = 1_000;
/// A guess that spares most jobs an allocation.
const EVENTS_USUAL: usize = 6;

#[derive(Default)]
struct Seen {
    jobs: HashMap<JobId, RecentJob>,
    order: VecDeque<JobId>,
    /// The cursor of a job when it was dropped: no answer may be older.
    forgotten: HashMap<JobId, i64>,
    forgotten_order: VecDeque<JobId>,
}

impl Seen {
    fn forget_oldest(&mut self, forgotten_max: usize) {
        let Some(job) = self.order.pop_front() else { return };
        let Some((cursor, _)) = self.jobs.remove(&job).and_then(|mut recent| recent.events.pop()) else { return };
        if self.forgotten.insert(job, cursor).is_none() {
            self.forgotten_order.push_back(job);
        }
        if self.forgotten_order.len() > forgotten_max
            && let Some(oldest) = self.forgotten_order.pop_front()
        {
            self.forgotten.remove(&oldest);
        }
    }
}

/// The recent jobs, bounded by number; the oldest are forgotten first. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RecentJobs {
    jobs_max: usize,
    seen: Arc<Mutex<Seen>>,
}

impl RecentJobs {
    /// An empty cache for at most `jobs_max` jobs.
    pub(crate) fn new(jobs_max: usize) -> Self {
        Self { jobs_max, seen: Arc::default() }
    }

    /// Takes in one event from the tail. A record without a job in its key is ignored.
    pub(crate) fn saw(&self, record: Inbound) {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let Some(job) = key.and_then(|key| key.parse().ok()) else { return };
        let mut seen = self.seen.lock();
        if let Some(known) = seen.jobs.get_mut(&job) {
            return known.push(record);
        }
        if seen.order.len() >= self.jobs_max {
            seen.forget_oldest(self.jobs_max.saturating_mul(FORGOTTEN_FACTOR));
        }
        let complete = record.header_text(header::CE_TYPE) == Some(EventKind::JobAccepted.as_str());
        let trace_id = Trace::from_headers(&record.headers).map(|trace| trace.context.trace_id);
        let mut recent = RecentJob { events: Vec::with_capacity(EVENTS_USUAL), complete, trace_id };
        recent.push(record);
        seen.order.push_back(job);
        seen.jobs.insert(job, recent);
    }

    /// The cursor up to which a job was known here before it was dropped.
    pub(crate) fn forgotten(&self, job: JobId) -> Option<i64> {
        self.seen.lock().forgotten.get(&job).copied()
    }

    /// A job, if the tail has seen any of its events.
    pub(crate) fn get(&self, job: JobId) -> Option<RecentJob> {
        self.seen.lock().jobs.get(&job).cloned()
    }
}

impl RecentJob {
    /// A job's events lie in one partition: whatever is not beyond the last one is a repetition.
    fn push(&mut self, record: Inbound) {
        if self.events.last().is_some_and(|(cursor, _)| record.offset <= *cursor) {
            return;
        }
        if self.events.len() >= EVENTS_MAX {
            self.events.drain(..EVENTS_MAX / 2);
            self.complete = false;
        }
        self.events.push((record.offset, record.value.unwrap_or_default().into_boxed_slice()));
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
        Some(recent.get(id(job))?.events.iter().map(|(cursor, _)| *cursor).collect())
    }

    #[test]
    fn repeated_events_are_kept_once_and_a_job_is_complete_from_its_acceptance_on() {
        let recent = RecentJobs::new(2);
        for (offset, kind) in [(3, EventKind::JobAccepted), (5, EventKind::StepSucceeded), (3, EventKind::JobAccepted)]
        {
            recent.saw(event(1, offset, kind));
        }
        assert_eq!(cursors(&recent, 1), Some(vec![3, 5]));
        assert!(recent.get(id(1)).unwrap().complete);
        recent.saw(event(2, 9, EventKind::StepSucceeded));
        assert!(!recent.get(id(2)).unwrap().complete);
        recent.saw(Inbound { key: Some(b"noise".to_vec()), ..event(2, 10, EventKind::StepSucceeded) });
        assert_eq!(cursors(&recent, 2), Some(vec![9]));
    }

    #[test]
    fn of_the_oldest_job_the_cursor_remains() {
        let recent = RecentJobs::new(1);
        recent.saw(event(1, 3, EventKind::JobAccepted));
        recent.saw(event(1, 4, EventKind::StepSucceeded));
        recent.saw(event(2, 5, EventKind::JobAccepted));
        assert_eq!((recent.forgotten(id(1)), recent.forgotten(id(2))), (Some(4), None));
        assert_eq!((cursors(&recent, 1), cursors(&recent, 2)), (None, Some(vec![5])));
    }

    #[test]
    fn of_a_job_with_very_many_events_the_latest_are_kept() {
        let recent = RecentJobs::new(1);
        for offset in 0..=EVENTS_MAX as i64 {
            let kind = if offset == 0 { EventKind::JobAccepted } else { EventKind::StepRetrying };
            recent.saw(event(1, offset, kind));
        }
        let known = recent.get(id(1)).unwrap();
        assert!(!known.complete && known.events.len() == EVENTS_MAX / 2 + 1);
        assert_eq!(known.events.last().unwrap().0, EVENTS_MAX as i64);
    }
}
