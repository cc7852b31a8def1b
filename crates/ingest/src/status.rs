//! `GET /v1/jobs/{id}`, `/result` and `/events`: acceptance, projection and event tail merged into one view.
//!
//! Invariant: an answer never goes back in time. The three sources are merged by cursor, and the acceptance is there
//! from the 202 on, so a `GET` right after it is never a 404.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bus::Unreadable;
use events::decode_event;
use flow::event::{JobEvent, JobStatus};
use flow::id::JobId;
use flow::view::JobView;
use serde::Deserialize;
use serde_json::json;
use service_kit::problem::{Kind, Problem};
use store::acceptances::Acceptance;
use store::jobs::StoredJob;

use crate::answer;
use crate::recent::RecentJob;
use crate::state::Api;

/// The cursor of a job of which no event was seen yet: before the first offset.
const BEFORE_THE_FIRST_EVENT: i64 = -1;
/// How long Postgres may take to answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const DAY_MS: i64 = 86_400_000;
/// Events told in one answer, at most.
const EVENTS_MAX: usize = 1_000;

/// Everything that is known of a job at this moment.
pub(crate) struct Known {
    pub(crate) view: JobView,
    pub(crate) events: Vec<(i64, JobEvent)>,
    /// As 32 hexadecimal digits.
    pub(crate) trace_id: Option<String>,
}

/// `GET /v1/jobs/{id}`
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = find(&api, &job).await?;
    let etag = format!("\"{}\"", known.view.cursor);
    let unchanged = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| names(tags, &etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let definition = api.catalog.version(&known.view.flow, &known.view.version);
        let url = known.trace_id.as_deref().and_then(|trace_id| api.config.url_of_trace(trace_id));
        let trace = answer::Trace { id: known.trace_id, url };
        Json(answer::status(&known.view, &trace, definition.as_ref())).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    if !known.view.status.is_final() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(api.config.retry_after_s));
    }
    Ok(response)
}

fn names(tags: &HeaderValue, etag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

/// `GET /v1/jobs/{id}/result`
pub(crate) async fn result(State(api): State<Arc<Api>>, Path(job): Path<String>) -> Result<Response, Problem> {
    let known = find(&api, &job).await.map_err(|problem| gone_if_expired(&api, &job, problem))?;
    let definition = api.catalog.version(&known.view.flow, &known.view.version);
    match known.view.status {
        JobStatus::Succeeded => Ok(Json(known.view.result).into_response()),
        JobStatus::Failed | JobStatus::Cancelled => {
            Err(answer::failed(&known.view, known.trace_id.as_deref(), definition.as_ref()))
        }
        JobStatus::NeedsAttention => Err(not_finished(&api, job, "The job is parked: an operator has to decide.")),
        JobStatus::Accepted | JobStatus::Running | JobStatus::Waiting | JobStatus::Compensating => {
            Err(not_finished(&api, job, &format!("The job is {}.", known.view.status.as_str())))
        }
    }
}

/// A job that nobody knows any more is told apart from one that never was by the time inside its id.
fn gone_if_expired(api: &Api, job: &str, problem: Problem) -> Problem {
    let days = api.config.keep_jobs_d;
    let made_ms = job.parse().ok().and_then(|job: JobId| made_ms(job));
    let expired = made_ms.is_some_and(|made_ms| made_ms < api.clock.now_ms() - i64::from(days) * DAY_MS);
    if problem.kind() != Kind::UnknownJob || days == 0 || !expired {
        return problem;
    }
    Problem::new(Kind::Gone, format!("Results are kept for {days} days after their jobs' ends.")).with_job(job)
}

/// When an id was drawn, milliseconds since the Unix epoch: a UUIDv7 begins with it.
fn made_ms(job: JobId) -> Option<i64> {
    let id = job.uuid();
    (id.get_version_num() == 7).then(|| i64::try_from(id.as_u128() >> 80).ok())?
}

fn not_finished(api: &Api, job: String, detail: &str) -> Problem {
    Problem::new(Kind::NotFinished, detail).with_job(job).retry_after_s(api.config.retry_after_s)
}

/// The query of `GET /v1/jobs/{id}/events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    after: Option<String>,
}

/// `GET /v1/jobs/{id}/events?after=cursor`
pub(crate) async fn events(
    State(api): State<Arc<Api>>,
    Path(job): Path<String>,
    query: Result<Query<After>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(After { after }) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let after = match after.as_deref() {
        None | Some("") => BEFORE_THE_FIRST_EVENT,
        Some(text) => text.parse().map_err(|_| {
            Problem::new(Kind::BadRequest, format!("`after` is a cursor from an earlier answer, not `{text}`."))
        })?,
    };
    let known = find(&api, &job).await?;
    let news: Vec<_> = known.events.iter().filter(|(cursor, _)| *cursor > after).take(EVENTS_MAX).collect();
    let next = news.last().map_or(after, |(cursor, _)| *cursor);
    let list: Vec<_> = news.into_iter().map(|(cursor, event)| answer::event(*cursor, event)).collect();
    Ok(Json(json!({ "events": list, "next": next.to_string() })).into_response())
}

/// The job that an address names, or the problem 404.
pub(crate) async fn find(api: &Api, text: &str) -> Result<Known, Problem> {
    let unknown = || Problem::new(Kind::UnknownJob, format!("There is no job `{text}`."));
    let job: JobId = text.parse().map_err(|_| unknown())?;
    // Until the events' recent past has been read, an answer could be older than one that was given before.
    api.planner()?;
    let recent = match api.recent.get(job) {
        Some(recent) => Some(read(api, recent).await?),
        None => None,
    };
    let recent = match recent {
        Some(recent) if recent.complete && !recent.events.is_empty() => {
            return recent.known().and_then(|known| visible(api, known)).ok_or_else(unknown);
        }
        recent => recent,
    };
    let stored = stored(api, job).await?;
    let stored_cursor = stored.as_ref().and_then(|stored| stored.projection.as_ref()).map(|seen| seen.summary.cursor);
    if api.recent.forgotten(job).is_some_and(|forgotten| stored_cursor.is_none_or(|stored| stored < forgotten)) {
        let detail = "More was told of this job before than is stored of it yet.";
        return Err(Problem::new(Kind::NotReady, detail).with_job(job).retry_after_s(1));
    }
    let known = match (stored, recent) {
        (Some(stored), recent) => Some(merge(stored, recent)),
        (None, recent) => recent.and_then(Recent::known),
    };
    known.and_then(|known| visible(api, known)).ok_or_else(unknown)
}

/// What Postgres knows of a job, or the problem 503.
pub(crate) async fn stored(api: &Api, job: JobId) -> Result<Option<StoredJob>, Problem> {
    let unavailable = || Problem::new(Kind::NotReady, "The database does not answer.").retry_after_s(1);
    let reading = store::jobs::get(&api.pool, &api.config.default_tenant, job);
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(outcome) => outcome.map_err(|error| unavailable().caused_by(error)),
        Err(_) => Err(unavailable()),
    }
}

/// Another tenant's job does not exist for this caller.
fn visible(api: &Api, known: Known) -> Option<Known> {
    (known.view.tenant == api.config.default_tenant).then_some(known)
}

/// What the tail told of a job, read.
struct Recent {
    events: Vec<(i64, JobEvent)>,
    complete: bool,
    trace_id: Option<u128>,
}

impl Recent {
    /// None when it told nothing.
    fn known(self) -> Option<Known> {
        Some(Known { trace_id: self.trace_id.map(hexadecimal), ..told(self.events)? })
    }
}

/// Reads what the tail told.
async fn read(api: &Api, recent: RecentJob) -> Result<Recent, Problem> {
    let mut events = Vec::with_capacity(recent.events.len());
    for (cursor, bytes) in recent.events {
        match api.reader.read(Some(&*bytes), decode_event).await {
            Ok(event) => events.push((cursor, event)),
            // The orchestrator keeps it as a dead letter.
            Err(Unreadable::Never(reason)) => tracing::debug!(cursor, reason, "unreadable event skipped"),
            Err(Unreadable::NotNow(error)) => {
                let problem = Problem::new(Kind::NotReady, "The schema registry does not answer.");
                return Err(problem.retry_after_s(1).caused_by(error));
            }
        }
    }
    Ok(Recent { events, complete: recent.complete, trace_id: recent.trace_id })
}

fn merge(stored: StoredJob, recent: Option<Recent>) -> Known {
    let (mut events, mut trace_id) = match stored.projection {
        Some(projection) => {
            let history = projection.history.into_iter().map(|entry| (entry.cursor, entry.event)).collect();
            (history, projection.summary.trace_id)
        }
        None => (Vec::new(), None),
    };
    events.extend(recent.into_iter().flat_map(|recent| recent.events));
    trace_id = trace_id.or(stored.acceptance.as_ref().and_then(|acceptance| acceptance.trace_id));
    let mut known = told(events).unwrap_or_else(|| {
        let acceptance = stored.acceptance.expect("a stored job has an acceptance or a projection with history");
        Known { view: accepted(&acceptance), events: Vec::new(), trace_id: None }
    });
    known.trace_id = trace_id.map(hexadecimal);
    known
}

/// What these events say; late and repeated ones change nothing.
fn told(events: Vec<(i64, JobEvent)>) -> Option<Known> {
    let mut events = events.into_iter();
    let (cursor, first) = events.next()?;
    let mut view = JobView::from_event(cursor, &first);
    let mut kept = vec![(cursor, first)];
    kept.extend(events.filter(|(cursor, event)| view.apply(*cursor, event)));
    Some(Known { view, events: kept, trace_id: None })
}

fn hexadecimal(trace_id: u128) -> String {
    format!("{trace_id:032x}")
}

/// A job of which nothing but the acceptance is known yet.
fn accepted(acceptance: &Acceptance) -> JobView {
    JobView {
        job: acceptance.job,
        tenant: acceptance.tenant.clone(),
        flow: acceptance.flow.clone(),
        version: acceptance.version.clone(),
        key: acceptance.key.clone(),
        correlation_id: acceptance.correlation_id.clone(),
        retry_of: acceptance.retry_of,
        status: JobStatus::Accepted,
        cursor: BEFORE_THE_FIRST_EVENT,
        created_at_ms: acceptance.accepted_at_ms,
        updated_at_ms: acceptance.accepted_at_ms,
        steps_total: acceptance.steps_total,
        steps: Vec::new(),
        compensation: None,
        result: None,
        error: None,
        parked: Vec::new(),
    }
}
