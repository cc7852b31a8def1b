//! `POST /v1/flows/{flow}/jobs`, and a flow's own route where a job serves it: a request becomes a stored job, or a
//! problem with the reason.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use documents::Owner;
use flow::definition::Definition;
use flow::flags::Form;
use flow::id::JobId;
use serde_json::json;
use store::acceptances::{Accepted, NewAcceptance};
use web::caller::{Caller, Scope};
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::arrive::{Arrived, arrived};
use crate::job_lookup::JobState;
use crate::plan::{BadInput, JobRequest};
use crate::request_parts::{Start, idempotency_key, parse_json};
use crate::state::Api;
use crate::stored::{Origin, Stored};
use crate::violations::violations;
use crate::wait::{Asked, Until, WaitQuery};
use crate::webhooks::of_job;
use crate::{accept, answer};

/// The path at which jobs of every flow are submitted.
pub(crate) const PATH: &str = "/v1/flows/{flow}/jobs";

/// `POST /v1/flows/{flow}/jobs`
pub(crate) async fn submit_to(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    start: Result<Query<Start>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    api.ready()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let Query(start) = start.map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))?;
    receive(&api, (definition, Form::AsAsked), context, start, request).await
}

/// Takes in a request for a job of this flow, within the caller's limits, and answers it.
pub(crate) async fn receive(
    api: &Api,
    (definition, form): (Definition, Form),
    context: RequestContext,
    start: Start,
    request: Request,
) -> Result<Response, Problem> {
    let (tenant, flow) = (context.caller.tenant.clone(), definition.name().to_owned());
    let of = (tenant.as_str(), flow.as_str());
    let job = JobId::new(api.ids.uuid_v7(api.clock.now_ms()));
    let owner = Owner { tenant: &tenant, job };
    let answer = match arrived(api, of, (definition.upload(), owner), &start, request).await {
        Ok((headers, body)) => submit(api, job, Submission { definition, form, context, headers, body, start }).await,
        Err(problem) => Err(problem),
    };
    api.quotas.tell(of, answer)
}

/// A request for a job of this flow.
struct Submission {
    definition: Definition,
    form: Form,
    context: RequestContext,
    headers: HeaderMap,
    body: Arrived,
    start: Start,
}

/// Accepts a job of a flow, and waits for its end where the caller prefers that. Nothing is stored unless the answer is
/// 202, about the job's end, or unknown.
async fn submit(api: &Api, job: JobId, submission: Submission) -> Result<Response, Problem> {
    let mut asked = Asked::of(api, &submission.context, &submission.headers, &WaitQuery::default());
    let hold = asked.take_form(submission.form);
    let caller = submission.context.caller.clone();
    // Before anything can happen to the job.
    let waiter = asked.enter(api, job);
    if hold.is_some() && waiter.is_none() {
        // It must not get 202, and cannot be held.
        return asked.tell(Err(no_room_to_wait()));
    }
    // The request may be large: it is gone before the wait begins.
    let stored = match Box::pin(store(api, job, submission)).await {
        Ok(stored) => stored,
        Err(problem) => return asked.tell(Err(problem)),
    };
    let ended = match waiter {
        None => None,
        Some(mut waiter) => match stored.replayed {
            false => {
                asked.honour_wait();
                asked.end(api, &caller, job, &mut waiter).await
            }
            true => {
                drop(waiter);
                replayed_end(api, &mut asked, &caller, stored.origin.job).await
            }
        },
    };
    let answer = match ended {
        Some(job) => stored.result(api, &caller, job).await,
        None if let Some(hold) = hold => Err(late(api, &stored, hold)),
        None => {
            if asked.preferences.respond_async {
                asked.honour("respond-async");
            }
            Ok(stored.answer(api, &caller))
        }
    };
    asked.tell(answer)
}

fn no_room_to_wait() -> Problem {
    let detail = "So many requests wait for the outcomes of their jobs that there is no room for another one.";
    Problem::new(Kind::TemporaryReducedCapacity, detail).retry_after_s(1)
}

/// The answer to a caller that is owed the outcome of a job which has not ended in time.
fn late(api: &Api, stored: &Stored, hold: Duration) -> Problem {
    let (prefix, job) = (api.public_url.prefix(), stored.origin.job);
    let detail = match api.leaving.holds_end.is_cancelled() {
        true => "The service is shutting down; the job goes on.".to_owned(),
        false => format!("It has not ended within {} ms.", hold.as_millis()),
    };
    let problem = Problem::new(Kind::AnswerLate, detail).with_job(job).with("links", json!(answer::links(prefix, job)));
    problem.retry_after_s(1)
}

/// The end of a job that an earlier request has made.
async fn replayed_end(api: &Api, asked: &mut Asked, caller: &Caller, job: JobId) -> Option<JobState> {
    let is_final = |job: &JobState| job.view.status.is_final();
    let found = asked.until(api, caller, &job.to_string(), Until::End, is_final).await;
    found.ok().filter(is_final)
}

async fn store(api: &Api, job: JobId, submission: Submission) -> Result<Stored, Problem> {
    let Submission { definition, context, headers, body, start, form: _ } = submission;
    let idempotency_key = idempotency_key(&headers, api.config.idempotency_key_required)?;
    // Its type was looked at before it came.
    let (input, document) = match body {
        Arrived::Json(body) => (parse_json(&body)?, None),
        Arrived::Document(document) => (document.to_json(), Some(document)),
    };
    let now_ms = api.clock.now_ms();
    let webhook = of_job::asked(&headers, &context.caller.tenant, &api.guard)?;
    let request = JobRequest {
        job,
        tenant: context.caller.tenant.clone(),
        submitted_by: context.caller.subject.clone(),
        input,
        fallback_key: None,
        idempotency_key,
        correlation_id: context.correlation_id,
        trace: context.trace,
        now_ms,
        retry_of: None,
        start_after_ms: start.after_ms(now_ms)?,
        start: start.written(),
        webhook,
    };
    let outcome = store_job(api, &context.caller, &definition, request).await;
    // Where it is not certain that there is no such job, upkeep decides.
    let is_unused = match &outcome {
        Ok(stored) => stored.replayed,
        Err(problem) => problem.kind().entry().status < 500,
    };
    if let Some(document) = document.filter(|_| is_unused) {
        let owner = Owner { tenant: &context.caller.tenant, job };
        api.documents()?.remove(&document, owner).await;
    }
    outcome
}

/// Stores a job, or finds the one that its key stands for.
pub(crate) async fn store_job(
    api: &Api,
    caller: &Caller,
    definition: &Definition,
    request: JobRequest,
) -> Result<Stored, Problem> {
    caller.require(Scope::JobsSubmit)?;
    api.check_capacity(definition)?;
    let own = Origin::of(&request);
    let acceptance = api.planner()?.plan(definition, request).map_err(schema_violation)?;
    store_planned(api, caller, own, acceptance).await
}

/// The same for a job that is planned.
pub(crate) async fn store_planned(
    api: &Api,
    caller: &Caller,
    own: Origin,
    acceptance: NewAcceptance,
) -> Result<Stored, Problem> {
    let (job, flow) = (own.job, acceptance.acceptance.facts.flow.clone());
    let mut admission = api.admit((&caller.tenant, &flow), &[job])?;
    let outcome = api.acceptor.accept(acceptance).await;
    admission.learn(job, outcome.as_ref());
    match outcome.map_err(refused)? {
        Accepted::New => {
            accept::count(&flow);
            Ok(Stored { flow, origin: own, replayed: false })
        }
        Accepted::Replayed { job, same_fingerprint: true } => {
            let origin = Origin::of_first(api, caller, job).await;
            Ok(Stored { flow, origin, replayed: true })
        }
        Accepted::Replayed { job, same_fingerprint: false } => Err(key_reused(job)),
    }
}

pub(crate) fn key_reused(job: JobId) -> Problem {
    let detail = "This Idempotency-Key was used before, for a request with another body, begin or callback.";
    Problem::new(Kind::IdempotencyKeyReused, detail).with_job(job)
}

pub(crate) fn schema_violation(BadInput(errors): BadInput) -> Problem {
    violations("The input", errors)
}

pub(crate) fn refused(error: accept::Error) -> Problem {
    match error {
        accept::Error::KeyInUse => {
            Problem::new(Kind::IdempotencyKeyInUse, "The first request with this key has not been stored yet.")
                .retry_after_s(1)
        }
        accept::Error::Full => Problem::new(Kind::TemporaryReducedCapacity, format!("{error}.")).retry_after_s(1),
        accept::Error::Closed => Problem::new(Kind::NotReady, "The service is shutting down.").retry_after_s(1),
        accept::Error::Unavailable(_) | accept::Error::TooSlow => {
            let detail = "The database did not answer, so it is not certain that the job was stored. \
                          Sending it again with the same Idempotency-Key is safe.";
            Problem::new(Kind::NotReady, detail).retry_after_s(1).caused_by(error)
        }
        accept::Error::Refused(_) => Problem::internal(error),
    }
}
