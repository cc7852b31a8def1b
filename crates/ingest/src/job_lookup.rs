//! Finding a job: acceptance, projection and event tail merged into one state.
//!
//! Invariant: an answer never goes back in time. The three sources are merged by cursor, and the acceptance is there
//! from the 202 on, so a `GET` right after it is never a 404. While events are missing between what the projection has
//! and what the tail has seen, there is no answer but 503.

use std::time::Duration;

use bus::Unreadable;
use events::decode_event;
use events::trace::TraceId;
use flow::event::{JobEvent, JobStatus};
use flow::id::JobId;
use flow::view::JobView;
use store::acceptances::Acceptance;
use store::cancels::CancelWish;
use store::jobs::{JobSummary, StoredJob};
use web::caller::{Caller, Scope};
use web::problem::{Kind, Problem};

use crate::recent::{BEFORE_THE_FIRST_EVENT, Known, RecentJob};
use crate::state::Api;
use crate::{expiry, in_time};

/// The time that Postgres has to answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A job at this moment.
pub(crate) struct JobState {
    pub(crate) view: JobView,
    pub(crate) events: Vec<(i64, JobEvent)>,
    /// The trace id as 32 hexadecimal digits.
    pub(crate) trace_id: Option<String>,
    /// The first cancel that was asked for.
    pub(crate) cancel: Option<CancelWish>,
    /// Where steps under way tell of themselves: the offset of the last record of that.
    pub(crate) reported: Option<i64>,
}

/// The job that a path names, or the problem 404.
pub(crate) async fn find(api: &Api, caller: &Caller, text: &str) -> Result<JobState, Problem> {
    let job = find_by_events(api, caller, text).await?;
    let cancel = job.cancel.or_else(|| api.cancels.of(job.view.job));
    let mut job = JobState { cancel, ..job };
    job.add_reports(api);
    expiry::hide(api, &mut job.view, &mut job.events);
    Ok(job)
}

impl JobState {
    fn add_reports(&mut self, api: &Api) {
        let Some(known) = api.reports.of(self.view.job) else { return };
        let mut is_shown = false;
        for report in &known.reports {
            is_shown |= self.view.add_report(self.events.iter().map(|(_, event)| event), report);
        }
        self.reported = is_shown.then_some(known.offset);
    }
}

async fn find_by_events(api: &Api, caller: &Caller, text: &str) -> Result<JobState, Problem> {
    let job = named(api, caller, text)?;
    let known = api.recent.look(job);
    let recent = match &known.job {
        Some(recent) => Some(decode(api, recent).await?),
        None => None,
    };
    let recent = match recent {
        Some(recent) if recent.complete && !recent.events.is_empty() => {
            return recent.state().filter(|job| is_visible(job, caller)).ok_or_else(|| unknown(text));
        }
        recent => recent,
    };
    let gaps = Gaps::of(api, &known).await?;
    let stored = stored(api, caller, job).await?;
    if stored.is_none() && recent.is_none() {
        return Err(unknown(text));
    }
    let seen = stored.as_ref().and_then(|stored| stored.projection.as_ref());
    gaps.check(job, seen.map(|seen| (&seen.summary, seen.partition)))?;
    let state = match (stored, recent) {
        (Some(stored), recent) => Some(merge(stored, recent)),
        (None, recent) => recent.and_then(DecodedJob::state),
    };
    state.filter(|job| is_visible(job, caller)).ok_or_else(|| unknown(text))
}

/// The job that a path names, if this caller may read jobs and the recent events were read: before that, an answer
/// could be older than an earlier one.
pub(crate) fn named(api: &Api, caller: &Caller, text: &str) -> Result<JobId, Problem> {
    caller.require(Scope::JobsRead)?;
    let job: JobId = text.parse().map_err(|_| unknown(text))?;
    api.ready()?;
    Ok(job)
}

/// The problem 404.
pub(crate) fn unknown(text: &str) -> Problem {
    Problem::new(Kind::UnknownJob, format!("There is no job `{text}`."))
}

/// Where events of a job may be missing between those that the projection has taken in and those that the tail knows.
pub(crate) struct Gaps {
    /// The cursor up to which events were known here once.
    forgotten: Option<i64>,
    partition: Option<i32>,
    /// The partitions in which events are known neither here nor by the projection.
    not_projected: Vec<i32>,
}

impl Gaps {
    /// Asked before the job is read, so that all that the projection had taken in by then is in the answer.
    pub(crate) async fn of(api: &Api, known: &Known) -> Result<Self, Problem> {
        let events = api.planner()?.writer.topics.events();
        let not_projected = in_time(api.projected.behind(&api.pool, &events, &known.floors)).await?;
        let partition = known.job.as_ref().map(|recent| recent.partition);
        Ok(Self { forgotten: known.forgotten, partition, not_projected })
    }

    /// The problem 503 if something may be missing. `seen`: the job as the projection has it, and its partition.
    pub(crate) fn check(&self, job: JobId, seen: Option<(&JobSummary, i32)>) -> Result<(), Problem> {
        if self.forgotten.is_some_and(|forgotten| seen.is_none_or(|(seen, _)| seen.cursor < forgotten)) {
            return Err(behind(job));
        }
        // A final state is the last one, whatever the projection has not taken in yet.
        if seen.is_some_and(|(seen, _)| seen.status.is_final()) {
            return Ok(());
        }
        let has_gap = match self.partition.or(seen.map(|(_, partition)| partition)) {
            Some(partition) => self.not_projected.contains(&partition),
            None => !self.not_projected.is_empty(),
        };
        if has_gap { Err(behind(job)) } else { Ok(()) }
    }
}

/// The problem 503 in place of an answer that would be older than one that the caller has.
pub(crate) fn behind(job: JobId) -> Problem {
    let detail = "A newer state of this job was reported before; this instance or the database has not caught up yet.";
    Problem::new(Kind::NotReady, detail).with_job(job).retry_after_s(1)
}

/// The job as Postgres has it, or the problem 503.
pub(crate) async fn stored(api: &Api, caller: &Caller, job: JobId) -> Result<Option<StoredJob>, Problem> {
    in_time(store::jobs::get(&api.pool, &caller.tenant, job)).await
}

/// What Postgres answers, or the problem 503.
pub(crate) async fn in_time<T>(reading: impl Future<Output = Result<T, store::Error>>) -> Result<T, Problem> {
    let unavailable = || Problem::new(Kind::NotReady, "The database does not answer.").retry_after_s(1);
    in_time::in_time(READ_TIMEOUT, reading, unavailable).await
}

/// Another tenant's job does not exist for this caller.
fn is_visible(job: &JobState, caller: &Caller) -> bool {
    job.view.tenant == caller.tenant
}

/// A [`RecentJob`] whose events are decoded.
struct DecodedJob {
    events: Vec<(i64, JobEvent)>,
    complete: bool,
    trace_id: Option<TraceId>,
}

impl DecodedJob {
    /// None without any event.
    fn state(self) -> Option<JobState> {
        Some(JobState { trace_id: self.trace_id.map(|id| id.to_string()), ..fold(self.events)? })
    }
}

async fn decode(api: &Api, recent: &RecentJob) -> Result<DecodedJob, Problem> {
    let mut events = Vec::with_capacity(recent.events.len());
    for (cursor, bytes) in &recent.events {
        events.extend(decoded(api, *cursor, bytes).await?.map(|event| (*cursor, event)));
    }
    Ok(DecodedJob { events, complete: recent.complete, trace_id: recent.trace_id })
}

/// An event that the tail has seen; none if it cannot be read: the orchestrator keeps it as a dead letter.
pub(crate) async fn decoded(api: &Api, cursor: i64, bytes: &[u8]) -> Result<Option<JobEvent>, Problem> {
    match api.reader.read(Some(bytes), decode_event).await {
        Ok(event) => Ok(Some(event)),
        Err(Unreadable::Never(reason) | Unreadable::Newer(reason)) => {
            tracing::debug!(cursor, reason, "unreadable event skipped");
            Ok(None)
        }
        Err(Unreadable::NotNow(error)) => {
            let problem = Problem::new(Kind::NotReady, "The schema registry does not answer.");
            Err(problem.retry_after_s(1).caused_by(error))
        }
    }
}

fn merge(stored: StoredJob, recent: Option<DecodedJob>) -> JobState {
    let (mut events, mut trace_id) = match stored.projection {
        Some(projection) => {
            let history = projection.history.into_iter().map(|entry| (entry.cursor, entry.event)).collect();
            (history, projection.summary.trace_id)
        }
        None => (Vec::new(), None),
    };
    events.extend(recent.into_iter().flat_map(|recent| recent.events));
    let cancel = stored.cancel;
    trace_id = trace_id.or(stored.acceptance.as_ref().and_then(|acceptance| acceptance.trace_id));
    let mut state = fold(events).unwrap_or_else(|| {
        let acceptance = stored.acceptance.expect("a stored job has an acceptance or a projection with history");
        JobState { view: accepted(&acceptance), events: Vec::new(), trace_id: None, cancel: None, reported: None }
    });
    state.trace_id = trace_id.map(|id| id.to_string());
    state.cancel = cancel;
    state
}

/// The state after these events; late and repeated ones change nothing.
fn fold(events: Vec<(i64, JobEvent)>) -> Option<JobState> {
    let mut events = events.into_iter();
    let (cursor, first) = events.next()?;
    let mut view = JobView::from_event(cursor, &first);
    let mut kept = vec![(cursor, first)];
    kept.extend(events.filter(|(cursor, event)| view.apply(*cursor, event)));
    Some(JobState { view, events: kept, trace_id: None, cancel: None, reported: None })
}

/// A job without any event yet.
fn accepted(acceptance: &Acceptance) -> JobView {
    JobView {
        facts: acceptance.facts.clone(),
        status: JobStatus::Accepted,
        cursor: BEFORE_THE_FIRST_EVENT,
        updated_at_ms: acceptance.accepted_at_ms,
        steps_total: acceptance.steps_total,
        steps: Vec::new(),
        compensation: None,
        result: None,
        answer: None,
        error: None,
        parked: Vec::new(),
        waiting: Vec::new(),
        stuck_since_ms: None,
    }
}
