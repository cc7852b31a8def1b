//! `POST /v1/jobs:cancel` and `POST /v1/jobs:retry`: the jobs that a filter chooses, at most so many at a time, so that
//! whoever asks sets the pace and sees the progress.
//!
//! Nothing of an order is kept: each job is cancelled or sent on in a transaction of its own, once, however often it is
//! asked for. So an order that was cut off is given again, from the last `next` that its caller has.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue};
use axum::{Extension, Json};
use events::time::rfc3339;
use flow::event::JobStatus;
use serde::Deserialize;
use serde_json::{Value, json};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::body::object;
use crate::idempotency::parse_key;
use crate::in_bulk::{self, Tally};
use crate::job_lookup::find;
use crate::list_jobs::{Filter, Page};
use crate::request_parts::{IDEMPOTENCY_KEY, unreadable};
use crate::state::Api;
use crate::{cancel, query, resume, retry};

/// Jobs of one order where the caller says nothing else.
const MAX: u32 = 100;
/// The key under which a finished job is started anew where the caller gives none: once in the time for which keys are
/// kept.
const RETRY_KEY: HeaderValue = HeaderValue::from_static("\"jobs:retry\"");
/// Jobs that can be cancelled.
const TO_CANCEL: [JobStatus; 5] =
    [JobStatus::Accepted, JobStatus::Running, JobStatus::Waiting, JobStatus::Compensating, JobStatus::NeedsAttention];
/// Jobs that wait for an operator.
const TO_RETRY: [JobStatus; 1] = [JobStatus::NeedsAttention];

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    #[serde(default)]
    flow: Option<String>,
    /// One status, or several with commas between them.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    stuck: bool,
    /// Go on after this place, the `next` of an earlier answer.
    #[serde(default)]
    cursor: Option<String>,
    /// Jobs at most.
    #[serde(default, deserialize_with = "query::whole")]
    max: Option<u32>,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Of a cancel.
    #[serde(default)]
    reason: Option<String>,
    /// Of a retry: under which finished jobs are started anew.
    #[serde(default)]
    idempotency_key: Option<String>,
}

impl Order {
    /// The choice of a list, among jobs in these statuses unless it names others.
    fn filter(&self, statuses: &[JobStatus]) -> Result<Filter, Problem> {
        let Self { flow, status, key, correlation_id, since, until, stuck, cursor, max, .. } = self;
        let named = [flow, status, key, correlation_id, since, until];
        if named.iter().all(|name| name.is_none()) && !stuck {
            let detail = "The order chooses among no jobs: give `flow`, `status`, `key`, `correlation_id`, `since`, \
                          `until` or `stuck`.";
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        let usual = || statuses.iter().map(JobStatus::as_str).collect::<Vec<_>>().join(",");
        Ok(Filter {
            flow: flow.clone(),
            status: Some(status.clone().unwrap_or_else(usual)),
            key: key.clone(),
            correlation_id: correlation_id.clone(),
            since: since.clone(),
            until: until.clone(),
            stuck: *stuck,
            cursor: cursor.clone(),
            limit: Some(max.unwrap_or(MAX)),
        })
    }
}

/// What is done to each job.
enum Deed {
    /// With this reason.
    Cancel(Option<String>),
    /// With the headers of a retry.
    Retry(HeaderMap),
}

impl Deed {
    const fn statuses(&self) -> &[JobStatus] {
        match self {
            Self::Cancel(_) => &TO_CANCEL,
            Self::Retry(_) => &TO_RETRY,
        }
    }

    async fn to_one(&self, api: &Api, context: &RequestContext, job: &str) -> Result<(), Problem> {
        let job = find(api, &context.caller, job).await?;
        match self {
            Self::Cancel(_) if cancel::is_too_late(&job) => {
                let detail = "The job is being undone already: a cancel changes nothing.";
                Err(Problem::new(Kind::StillRunning, detail).with_job(job.view.job))
            }
            Self::Cancel(reason) => cancel::one(api, job, reason.clone(), context).await.map(drop),
            Self::Retry(headers) => {
                if !job.view.parked.is_empty() {
                    in_bulk::check(api, &job).await?;
                }
                // The key is for those that start anew: a job that is parked again goes on again.
                let order = resume::Order::default();
                retry::one(api, job, context.clone(), (headers, &order)).await.map(drop)
            }
        }
    }
}

/// `POST /v1/jobs:cancel`
pub(crate) async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::JobsCancel)?;
    let order = order(&headers, body)?;
    if order.idempotency_key.is_some() {
        return Err(Problem::new(
            Kind::BadRequest,
            "A cancel needs no `idempotency_key`: asking again changes nothing.",
        ));
    }
    let reason = cancel::checked(order.reason.clone())?;
    run(&api, &context, &order, &Deed::Cancel(reason)).await
}

/// `POST /v1/jobs:retry`
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    context.caller.require(Scope::Operate)?;
    let order = order(&headers, body)?;
    if order.reason.is_some() {
        return Err(Problem::new(Kind::BadRequest, "A retry has no `reason`."));
    }
    let quoted = |key: &String| {
        let text = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        let wrong = |why: String| Problem::new(Kind::InvalidIdempotencyKey, format!("`idempotency_key`: {why}."));
        parse_key(text.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        HeaderValue::try_from(text).map_err(|error| wrong(error.to_string()))
    };
    let key = order.idempotency_key.as_ref().map(quoted).transpose()?.unwrap_or(RETRY_KEY);
    let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, key)]);
    run(&api, &context, &order, &Deed::Retry(headers)).await
}

fn order(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Order, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    object(headers, &body, "The body is an object with the choice of jobs, `max`, `cursor` and `dry_run`")
}

/// Does it to each chosen job.
async fn run(api: &Api, context: &RequestContext, order: &Order, deed: &Deed) -> Result<Json<Value>, Problem> {
    let Page { jobs, next, looked_back_to } =
        Page::read(api, &context.caller.tenant, &order.filter(deed.statuses())?).await?;
    let (chosen, mut tally) = (jobs.len(), Tally::default());
    for job in jobs {
        let id = job.facts.job.to_string();
        let result = if order.dry_run { Ok(()) } else { deed.to_one(api, context, &id).await };
        tally.note(&id, result)?;
    }
    let Tally { done, left } = tally;
    let looked_back_to = looked_back_to.map(rfc3339);
    Ok(Json(json!({
        "chosen": chosen,
        "done": done,
        "left": left,
        "next": next,
        "looked_back_to": looked_back_to,
        "dry_run": order.dry_run,
    })))
}
