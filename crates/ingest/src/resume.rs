//! Sending a job at rest on.
//!
//! The orchestrator owns the token of a job at rest. This file only puts a `resume` signal into the outbox. The signal
//! names the token by its hop, so a repeated or late one has no effect on another rest. The caller's key, and which
//! parked tokens were sent on without a verdict, are kept in the same transaction.

use axum::http::HeaderValue;
use axum::response::Response;
use bus::Unreadable;
use events::wait::{Resume, Wait};
use events::{EncodeError, Record, decode_slip};
use flow::decide::Verdict;
use flow::id::TokenId;
use flow::slip::Slip;
use flow::view::JobView;
use serde_json::Value;
use store::acceptances::Idempotency;
use store::{holds, idempotency, outbox};
use web::caller::Scope;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::idempotency::fingerprint;
use crate::in_time::{STORE_TIMEOUT, in_time};
use crate::job_lookup::JobState;
use crate::state::Api;
use crate::stored::{IDEMPOTENT_REPLAYED, as_it_was};
use crate::submit::key_reused;

/// A caller's wish that a job goes on.
#[derive(Default)]
pub(crate) struct Order {
    /// The caller's idempotency key.
    pub(crate) key: Option<String>,
    /// The caller's word on how the step of unknown outcome has ended.
    pub(crate) verdict: Option<Verdict>,
}

impl Order {
    /// The key, in the scope that it shares with those for starting the job anew.
    fn idempotency(&self, api: &Api, view: &JobView) -> Result<Option<Idempotency>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        let word = self.verdict.as_ref().map_or(Value::Null, Verdict::to_json);
        Ok(Some(Idempotency {
            scope: format!("jobs/{}/retry", view.job),
            key: key.clone(),
            fingerprint: fingerprint("resume", &word, None),
            retention_ms: api.planner()?.idempotency_retention_ms,
        }))
    }

    /// True if an earlier request with this key has sent this job on, the problem 422 if that was another one.
    pub(crate) async fn is_repeated(
        &self,
        api: &Api,
        context: &RequestContext,
        view: &JobView,
    ) -> Result<bool, Problem> {
        let Some(own) = self.idempotency(api, view)? else { return Ok(false) };
        let looking = idempotency::find(&api.pool, &context.caller.tenant, &own.scope, &own.key);
        match in_time(STORE_TIMEOUT, looking, || unavailable(view)).await? {
            // That of another job is for this one started anew.
            Some(first) if first.job == view.job && first.fingerprint == own.fingerprint => Ok(true),
            Some(first) if first.job == view.job => Err(key_reused(view.job)),
            _ => Ok(false),
        }
    }
}

/// Signals the orchestrator to resume every token of the job that rests.
pub(crate) async fn all(
    api: &Api,
    job: JobState,
    context: &RequestContext,
    order: &Order,
) -> Result<Response, Problem> {
    context.caller.require(Scope::Operate)?;
    let tokens: Vec<TokenId> = job.view.parked.iter().chain(&job.view.waiting).cloned().collect();
    send(api, job, context, &tokens, order).await
}

/// Signals the orchestrator to resume these tokens.
pub(crate) async fn send(
    api: &Api,
    job: JobState,
    context: &RequestContext,
    tokens: &[TokenId],
    order: &Order,
) -> Result<Response, Problem> {
    let (view, tenant) = (&job.view, &context.caller.tenant);
    let records = signals(api, view, context, (tokens, order.verdict.as_ref()))?;
    let own = order.idempotency(api, view)?;
    let retention_ms = api.planner()?.idempotency_retention_ms;
    // A verdict that comes after it would be about another call.
    let plain = view.parked.iter().filter(|_| order.verdict.is_none());
    let marks: Vec<Idempotency> = plain.map(|token| mark(token, retention_ms)).collect();
    let storing = async {
        let mut tx = api.pool.begin().await?;
        if let Some(own) = &own
            && !idempotency::keep(&mut tx, tenant, own, view.job).await?
        {
            tx.rollback().await?;
            return Ok(false);
        }
        for mark in &marks {
            // It may be there already: a retry may be repeated.
            let _ = idempotency::keep(&mut tx, tenant, mark, view.job).await?;
        }
        outbox::append(&mut tx, &records).await?;
        tx.commit().await?;
        Ok::<_, store::Error>(true)
    };
    if in_time(STORE_TIMEOUT, storing, || unavailable(view)).await? {
        return Ok(as_it_was(api, job));
    }
    // Another request with the key was faster.
    match order.is_repeated(api, context, view).await? {
        true => Ok(replayed(api, job)),
        false => Err(key_reused(view.job)),
    }
}

/// The answer to a repetition.
pub(crate) fn replayed(api: &Api, job: JobState) -> Response {
    let mut response = as_it_was(api, job);
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The note that a parked token was sent on without a verdict. Two requests that do that are one.
fn mark(token: &TokenId, retention_ms: i64) -> Idempotency {
    let (scope, key) = mark_name(token);
    Idempotency { scope, key, fingerprint: Vec::new(), retention_ms }
}

fn mark_name(token: &TokenId) -> (String, String) {
    (format!("jobs/{}/sent-on", token.job), format!("{}/{}", token.branch, token.hop))
}

/// True if a parked token was sent on without a verdict.
pub(crate) async fn is_sent_on(api: &Api, view: &JobView, token: &TokenId) -> Result<bool, Problem> {
    let (scope, key) = mark_name(token);
    let looking = idempotency::find(&api.pool, &view.tenant, &scope, &key);
    Ok(in_time(STORE_TIMEOUT, looking, || unavailable(view)).await?.is_some())
}

/// A parked token, and its slip or why that can never be read here.
type ParkedSlip = (TokenId, Result<Slip, String>);

/// The slips of the job's parked tokens, or why they can never be read here; none where one of them does not rest yet,
/// or does not any more.
pub(crate) async fn parked_slips(api: &Api, view: &JobView) -> Result<Option<Vec<ParkedSlip>>, Problem> {
    let mut slips = Vec::with_capacity(view.parked.len());
    for token in &view.parked {
        let value = in_time(STORE_TIMEOUT, holds::parked_slip(&api.pool, token), || not_at_rest(view)).await?;
        let Some(value) = value else { return Ok(None) };
        let slip = match api.reader.read(Some(&value), decode_slip).await {
            Ok(slip) => Ok(slip),
            Err(Unreadable::Never(why) | Unreadable::Newer(why)) => Err(why),
            Err(Unreadable::NotNow(error)) => return Err(not_at_rest(view).caused_by(error)),
        };
        slips.push((token.clone(), slip));
    }
    Ok(Some(slips))
}

/// The event has come before its hold, or the job goes on already.
pub(crate) fn not_at_rest(view: &JobView) -> Problem {
    let detail = "The job's token has not come to rest yet, or goes on already.";
    Problem::new(Kind::NotReady, detail).with_job(view.job).retry_after_s(1)
}

fn unavailable(view: &JobView) -> Problem {
    let detail = "The database did not answer, so it is not certain that the job goes on. Asking again is safe.";
    Problem::new(Kind::NotReady, detail).with_job(view.job).retry_after_s(1)
}

fn signals(
    api: &Api,
    view: &JobView,
    context: &RequestContext,
    (tokens, verdict): (&[TokenId], Option<&Verdict>),
) -> Result<Vec<Record>, Problem> {
    let (planner, at_ms) = (api.planner()?, api.clock.now_ms());
    let signals: Result<Vec<Record>, EncodeError> = tokens
        .iter()
        .map(|token| {
            let verdict = verdict.cloned();
            let resume = Resume { token: token.clone(), tenant: view.tenant.clone(), verdict, at_ms };
            planner.writer.wait(&Wait::Signal(resume.into()), &context.trace)
        })
        .collect();
    signals.map_err(Problem::internal)
}
