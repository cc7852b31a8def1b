//! `GET /v1/jobs`: the caller's jobs, newest first.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use events::time::rfc3339;
use flow::definition::Definition;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use flow::slip::Phase;
use serde::Deserialize;
use serde_json::{Value, json};
use store::jobs::{JobChoice, ListedJob};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::answer;
use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::query::{self, TENANT_BYTES, digest, statuses, text, time};
use crate::state::Api;

/// Jobs of one answer, where the caller asks for no other number, and at most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;
/// Jobs that are looked at for one answer.
const LOOKED_MAX: u32 = 10_000;

/// The choice, as callers write it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    pub(crate) flow: Option<String>,
    /// One status, or several with commas between them.
    pub(crate) status: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) correlation_id: Option<String>,
    /// RFC 3339.
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    /// Those that are stuck, and no others.
    #[serde(default)]
    pub(crate) stuck: bool,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<u32>,
}

impl Filter {
    fn choice(&self) -> Result<JobChoice, Problem> {
        Ok(JobChoice {
            correlation_id: text("correlation_id", self.correlation_id.as_ref())?,
            key: text("key", self.key.as_ref())?,
            flow: text("flow", self.flow.as_ref())?,
            statuses: self.status.as_deref().map(statuses).transpose()?,
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
            is_stuck: self.stuck,
        })
    }
}

/// `GET /v1/jobs`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    context.caller.require(Scope::JobsRead)?;
    let Query(filter) = query.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    let Page { jobs, next, looked_back_to } = Page::read(&api, &context.caller.tenant, &filter).await?;
    let entry = |job: &ListedJob| {
        let version = api.catalog.version(&job.facts.flow, &job.facts.version);
        entry(api.public_url.prefix(), job, version.as_ref())
    };
    let looked_back_to = looked_back_to.map(rfc3339);
    let jobs: Vec<Value> = jobs.iter().map(entry).collect();
    Ok(Json(json!({ "jobs": jobs, "next": next, "looked_back_to": looked_back_to })).into_response())
}

/// A page of the caller's jobs.
pub(crate) struct Page {
    /// Newest first.
    pub(crate) jobs: Vec<ListedJob>,
    /// Where the next page begins; none at the end.
    pub(crate) next: Option<String>,
    /// Of what was accepted after this time, all has been listed, in milliseconds since the Unix epoch.
    pub(crate) looked_back_to: Option<i64>,
}

impl Page {
    pub(crate) async fn read(api: &Api, tenant: &str, filter: &Filter) -> Result<Self, Problem> {
        let (choice, limit) = (filter.choice()?, query::limit(filter.limit, LIMIT, LIMIT_MAX)?);
        let after = filter.cursor.as_deref().filter(|text| !text.is_empty()).map(|text| parse_cursor(tenant, text));
        // Its flows name the steps to come.
        api.ready()?;
        let listing = store::jobs::list(&api.pool, tenant, &choice, after.transpose()?, limit, LOOKED_MAX);
        let unavailable = || Problem::new(Kind::NotReady, "The database does not answer.").retry_after_s(1);
        let page = in_time(STORE_TIMEOUT, listing, unavailable).await?;
        let next = page.after.map(|job| cursor(tenant, job));
        Ok(Self { jobs: page.jobs, next, looked_back_to: page.after.map(|job| job.created_at_ms()) })
    }
}

fn entry(prefix: &str, job: &ListedJob, definition: Option<&Definition>) -> Value {
    let facts = &job.facts;
    let mut body = json!({
        "id": facts.job.to_string(),
        "flow": facts.flow,
        "version": facts.version,
        "status": job.status.as_str(),
        "key": facts.key,
        "correlation_id": facts.correlation_id,
        "created_at": rfc3339(facts.accepted_at_ms),
        "updated_at": rfc3339(job.updated_at_ms),
        "links": answer::links(prefix, facts.job),
    });
    let more = [
        ("step", step(job, definition).map(str::to_owned)),
        ("trace_id", job.trace_id.map(|trace| trace.to_string())),
        ("retry_of", facts.retry_of.map(|job| job.to_string())),
        ("stuck_since", job.stuck_since_ms.map(rfc3339)),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    body
}

/// The step that the job is at, as far as its last event tells; none once it has ended.
fn step<'a>(job: &'a ListedJob, definition: Option<&'a Definition>) -> Option<&'a str> {
    if job.status.is_final() {
        return None;
    }
    let steps = definition.map(Definition::steps).unwrap_or_default();
    let Some(event) = &job.last else { return steps.first().map(|step| step.id.as_str()) };
    let is_over = matches!(event.kind, EventKind::StepSucceeded | EventKind::StepSkipped);
    if is_over && event.phase == Phase::Forward && job.status != JobStatus::Compensating {
        let mut following = steps.iter().skip_while(|step| Some(&step.id) != event.step.as_ref()).skip(1);
        return following.next().map(|step| step.id.as_str());
    }
    event.step.as_deref()
}

/// The place in a tenant's list after a job.
fn cursor(tenant: &str, job: JobId) -> String {
    BASE64.encode([&digest(tenant)[..], job.uuid().as_bytes()].concat())
}

/// The job that a cursor of this tenant names, or the problem 400.
fn parse_cursor(tenant: &str, text: &str) -> Result<JobId, Problem> {
    let wrong = || {
        let detail = format!("`cursor` is the `next` of an earlier answer to this caller, not `{text}`.");
        Problem::new(Kind::BadRequest, detail)
    };
    let bytes = BASE64.decode(text).map_err(|_| wrong())?;
    let (of, job) = bytes.split_at_checked(TENANT_BYTES).ok_or_else(wrong)?;
    let job = uuid::Uuid::from_slice(job).map_err(|_| wrong())?;
    if of == digest(tenant) { Ok(JobId::new(job)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d";

    #[test]
    fn a_cursor_is_its_tenants_own() {
        let job = JOB.parse().unwrap();
        let text = cursor("acme", job);
        assert_eq!(parse_cursor("acme", &text).unwrap(), job);
        for (tenant, text) in [("other", text.as_str()), ("acme", JOB), ("acme", "AAAA"), ("acme", "?"), ("acme", "")] {
            let problem = parse_cursor(tenant, text).unwrap_err();
            assert_eq!(problem.kind(), Kind::BadRequest, "{tenant} {text}");
        }
    }
}
