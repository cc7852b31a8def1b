//! What this instance saw on the event tail: the freshest view of recent jobs, so that an
//! answer never goes back in time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use flow::event::{EventKind, JobEvent};
use flow::id::JobId;
use flow::view::JobView;

/// One job as the tail told it.
#[derive(Debug, Clone)]
pub(crate) struct RecentJob {
    /// The view after the last event.
    pub(crate) view: JobView,
    /// Every event that the tail saw, with its cursor.
    pub(crate) events: Vec<(i64, JobEvent)>,
    /// Whether the tail saw the job from its acceptance on.
    pub(crate) complete: bool,
    /// The job's trace, as 32 hexadecimal digits.
    pub(crate) trace_id: Option<String>,
}

/// Of how many more jobs than are kept the cursor alone is kept.
const FORGOTTEN_FACTOR: usize = 5;

#[derive(Default)]
struct Seen {
    jobs: HashMap<JobId, RecentJob>,
    order: VecDeque<JobId>,
    /// How far the view of a job was when it was dropped: an answer must not go back behind it.
    forgotten: HashMap<JobId, i64>,
    forgotten_order: VecDeque<JobId>,
}

impl Seen {
    fn forget_oldest(&mut self, forgotten_max: usize) {
        let Some(job) = self.order.pop_front() else { return };
        let Some(recent) = self.jobs.remove(&job) else { return };
        if self.forgotten.insert(job, recent.view.cursor).is_none() {
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
pub(crate) struct Recent {
    jobs_max: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Recent {
    /// An empty cache for at most `jobs_max` jobs.
    pub(crate) fn new(jobs_max: usize) -> Self {
        Self { jobs_max, seen: Arc::default() }
    }

    /// Takes in one event from the tail.
    pub(crate) fn saw(&self, cursor: i64, trace_id: Option<u128>, event: JobEvent) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.jobs.get_mut(&event.job) {
            if known.view.apply(cursor, &event) {
                known.events.push((cursor, event));
            }
            return;
        }
        if seen.order.len() >= self.jobs_max {
            seen.forget_oldest(self.jobs_max.saturating_mul(FORGOTTEN_FACTOR));
        }
        let complete = event.kind == EventKind::JobAccepted;
        let view = JobView::from_event(cursor, &event);
        let trace_id = trace_id.map(|id| format!("{id:032x}"));
        seen.order.push_back(event.job);
        seen.jobs.insert(event.job, RecentJob { view, events: vec![(cursor, event)], complete, trace_id });
    }

    /// The cursor up to which a job was known here before it was dropped.
    pub(crate) fn forgotten(&self, job: JobId) -> Option<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).forgotten.get(&job).copied()
    }

    /// What the tail told of a job, if it told anything.
    pub(crate) fn get(&self, job: JobId) -> Option<RecentJob> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).jobs.get(&job).cloned()
    }
}
