//! Steps whose answer only accepts the work: what their slips ask for while they rest, and what they keep meanwhile.
//!
//! Once the work was accepted the step may have had its effect, until something says otherwise: a callback of success
//! or failure, or the end of a poll. So it is undone if its job goes back before.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::authorize::authorize;
use super::{Effect, Env, HttpCall, Missing, MissingKind, Outcome, Prepared, StepError, code, request, words};
use crate::callback::{self, Permit, Purpose};
use crate::definition::{Action, Call, Completion, Definition, HEADERS_READ, Poll, PollUrl, Step};
use crate::expression::{Evaluation, ExpressionError, LINK_BYTES_MAX, follow};
use crate::slip::{Phase, Released, ReleasedBy, Slip};

/// The member of [`Slip::step_state`] that is kept here.
const MEMBER: &str = "completion";
/// Permits last for as long as a job may, in steps of this length from its acceptance on: so all attempts of a round
/// get the same one, whenever they are made.
const LIFE_MS: i64 = 365 * 24 * 60 * 60 * 1000;

/// What a step keeps from one rest to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// The number of callbacks that have asked for another attempt.
    pub(super) round: u32,
    /// True if a callback that says "failed" tells all that was done: of no earlier attempt the outcome is unknown.
    pub(super) is_known: bool,
    /// Present while it polls.
    pub(super) poll: Option<Polling>,
}

/// A poll under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Polling {
    /// The answer that accepted the work: `{status, body, headers?}`.
    pub(super) response: Value,
    /// The time of the last look, in milliseconds since the Unix epoch.
    pub(super) end_ms: i64,
}

impl Kept {
    pub(super) fn of(slip: &Slip) -> Self {
        slip.kept(MEMBER).and_then(|kept| serde_json::from_value(kept.clone()).ok()).unwrap_or_default()
    }

    /// Keeps it, beside what others keep.
    pub(super) fn keep_in(&self, slip: &mut Slip) {
        slip.keep(MEMBER, serde_json::to_value(self).ok().filter(|_| *self != Self::default()));
    }
}

/// The name of the signal that ends the slip's step now.
pub(super) fn signal(slip: &Slip) -> String {
    callback::signal(&slip.step, slip.visit, Kept::of(slip).round)
}

/// True while the slip's call was accepted and its end is not known, or has just come: the call is not made again.
pub(super) fn is_under_way(step: &Step, slip: &Slip) -> bool {
    match step.completion() {
        Some(Completion::Callback(_)) => ended(slip).is_some(),
        Some(Completion::Poll(_)) => Kept::of(slip).poll.is_some(),
        None => false,
    }
}

/// The end of the slip's rest for what it waits for. What a breaker lets pass has not made its call yet.
fn ended(slip: &Slip) -> Option<&Released> {
    slip.released.as_ref().filter(|released| released.by != ReleasedBy::Breaker)
}

/// True if the slip has waited for a callback, whether that has come or not.
pub(super) fn awaits_callback(step: &Step, slip: &Slip) -> bool {
    step.callback().is_some() && ended(slip).is_some()
}

/// True if the slip brings the callback that ends its step, or its round.
pub(super) fn is_called_back(step: &Step, slip: &Slip) -> bool {
    step.callback().is_some() && ended(slip).is_some_and(|released| released.by == ReleasedBy::Signal)
}

/// The output that the slip's callback brings, if it is one of success.
pub(super) fn called_back_output(step: &Step, slip: &Slip) -> Option<Value> {
    let payload = ended(slip).filter(|_| is_called_back(step, slip))?.payload.as_ref();
    match called_back(step, payload) {
        Outcome::Succeeded { output, .. } => Some(output),
        _ => None,
    }
}

/// What the slip asks for in place of its call, once that was accepted.
pub(super) fn resumed(step: &Step, slip: &Slip, env: &Env, timeout_ms: u64) -> Option<Prepared> {
    if slip.phase != Phase::Forward {
        return None;
    }
    match step.completion()? {
        Completion::Callback(callback) => {
            let released = ended(slip)?;
            Some(Prepared::Outcome(match released.by {
                ReleasedBy::Signal => called_back(step, released.payload.as_ref()),
                ReleasedBy::Time => in_vain(format!("no callback came within {} ms", callback.timeout_ms)),
                // An operator cannot answer in the service's place; what a later version meant is not known.
                ReleasedBy::Deadline
                | ReleasedBy::Operator
                | ReleasedBy::Cancel
                | ReleasedBy::Breaker
                | ReleasedBy::Other(_) => accepted(Value::Null, None),
            }))
        }
        Completion::Poll(poll) => {
            let polling = Kept::of(slip).poll?;
            let call = look(step, poll, &polling.response, slip, env, timeout_ms);
            Some(call.map(Prepared::Http).unwrap_or_else(|error| request::unevaluable(&error)))
        }
    }
}

/// The request of a poll. It carries no idempotency key: under one, a service might repeat its first answer for ever.
fn look(
    step: &Step,
    poll: &Poll,
    response: &Value,
    slip: &Slip,
    env: &Env,
    timeout_ms: u64,
) -> Result<HttpCall, ExpressionError> {
    let key = slip.idempotency_key();
    let more = [("response", response)];
    let evaluation = Evaluation::new(request::scope(slip, &key, env, &more));
    let url = match (&poll.url, step.action(Phase::Forward).map(|action| &action.call)) {
        (PollUrl::Formed(url), _) => url.render(&evaluation)?,
        (PollUrl::Link(link), Some(Call::Http(http))) => follow(link, &http.url.render(&evaluation)?, &evaluation)?,
        (PollUrl::Link(_), Some(Call::Native(_)) | None) => {
            return Err(ExpressionError::new("a native step has no poll"));
        }
    };
    let mut headers = request::headers(&poll.headers, &evaluation)?;
    let token_client = authorize(poll.auth.as_deref(), &mut headers, &evaluation)?;
    let (method, body, idempotency_key) = ("GET".to_owned(), None, None);
    Ok(HttpCall { method, url, headers, token_client, body, timeout_ms, idempotency_key })
}

/// Adds to the acceptance of a step that polls the host that it is going to ask. One whose request cannot be formed
/// from the answer fails at once. To be called with what [`classify`](super::classify) gives, where the surroundings
/// are known.
pub fn poll_host(definition: &Definition, slip: &Slip, mut outcome: Outcome, env: &Env) -> Outcome {
    let Outcome::Accepted { response, host, .. } = &mut outcome else { return outcome };
    let Some(step) = definition.step(&slip.step) else { return outcome };
    let Some(poll) = step.poll() else { return outcome };
    match look(step, poll, response, slip, env, 0) {
        Ok(call) => {
            *host = super::host_of(&call.url);
            outcome
        }
        // Another worker has it.
        Err(error) if error.not_configured().is_some() => outcome,
        Err(error) => {
            let message = format!("`poll`: {error}");
            let error = StepError { code: code::EXPRESSION_FAILED.to_owned(), message, status: None };
            Outcome::Failed { error, retryable: false, effect: Effect::Unknown, retry_after_ms: None }
        }
    }
}

/// True while the slip's step asks whether the work that was accepted is done.
pub fn is_polling(definition: &Definition, slip: &Slip) -> bool {
    let step = definition.step(&slip.step).filter(|_| slip.phase == Phase::Forward);
    step.is_some_and(|step| step.poll().is_some() && is_under_way(step, slip))
}

const fn accepted(response: Value, retry_after_ms: Option<u64>) -> Outcome {
    Outcome::Accepted { response, retry_after_ms, host: None }
}

/// The callback's URL for a request that has one, as `callback` sees it. It is missing where this worker cannot make
/// one.
pub(super) fn callback(step: &Step, action: &Action, slip: &Slip, env: &Env, now_ms: i64) -> Result<Value, Missing> {
    let Some(callback) = step.callback().filter(|_| slip.phase == Phase::Forward) else { return Ok(Value::Null) };
    url(Purpose::Callback, slip, action.timeout_ms.saturating_add(callback.timeout_ms), env, now_ms)
}

/// The URL for reports of progress, for a request that uses it, as `progress` sees it. It is missing where this worker
/// cannot make one.
pub(super) fn progress(step: &Step, action: &Action, slip: &Slip, env: &Env, now_ms: i64) -> Result<Value, Missing> {
    let is_told = matches!(&action.call, Call::Http(http) if http.tells_progress);
    if !is_told || slip.phase != Phase::Forward {
        return Ok(Value::Null);
    }
    let later_ms = match step.completion() {
        Some(Completion::Callback(callback)) => callback.timeout_ms,
        Some(Completion::Poll(poll)) => poll.timeout_ms,
        None => 0,
    };
    url(Purpose::Progress, slip, action.timeout_ms.saturating_add(later_ms), env, now_ms)
}

/// The same URL for all attempts of a round.
fn url(purpose: Purpose, slip: &Slip, longest_ms: u64, env: &Env, now_ms: i64) -> Result<Value, Missing> {
    let longest_ms = i64::try_from(longest_ms).unwrap_or(i64::MAX);
    let lives = now_ms.saturating_sub(slip.accepted_at_ms).max(0) / LIFE_MS + 1;
    let permit = Permit {
        job: slip.job,
        tenant: slip.tenant.clone(),
        step: slip.step.clone(),
        visit: slip.visit,
        round: Kept::of(slip).round,
        end_ms: slip.accepted_at_ms.saturating_add(lives * LIFE_MS).saturating_add(longest_ms),
    };
    match env.callbacks.url(purpose, &permit) {
        Some(url) => Ok(json!({ "url": url })),
        None => {
            let what =
                "`callbacks.secrets`, and `callbacks.url` or `api.public_url`, are not configured at this worker";
            Err(Missing { kind: MissingKind::Setting, what: what.to_owned() })
        }
    }
}

/// The outcome that a callback tells: `{outcome: done|failed|retry, body?, problem?}`.
fn called_back(step: &Step, payload: Option<&Value>) -> Outcome {
    let payload = payload.unwrap_or(&Value::Null);
    let (retryable, effect) = match payload["outcome"].as_str() {
        Some("failed") => (false, Effect::Refused),
        Some("retry") => (true, Effect::Unsent),
        _ => return Outcome::done(payload.get("body").cloned().unwrap_or(Value::Null)),
    };
    let problem = &payload["problem"];
    let mut message = "the callback says that it failed".to_owned();
    // The other side's words reach the job's caller, so they are taken over only where the step says so.
    if let Some(reason) = words::reason(problem).filter(|_| step.exposes_failures()) {
        message = format!("{message}: {reason}");
    }
    let status = problem["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let error = StepError { code: code::STEP_FAILED.to_owned(), message, status };
    Outcome::Failed { error, retryable, effect, retry_after_ms: None }
}

/// The work was accepted, and its end has not come in time.
pub(super) fn in_vain(message: String) -> Outcome {
    let error = StepError { code: code::TIMED_OUT.to_owned(), message, status: None };
    Outcome::Failed { error, retryable: false, effect: Effect::Unknown, retry_after_ms: None }
}

/// The meaning of a 2xx for a step whose answer only accepts the work, if it is one. `body`: of the answer, read as it
/// says of itself.
pub(super) fn answered(
    definition: &Definition,
    slip: &Slip,
    status: u16,
    headers: &[(String, String)],
    body: &Result<Value, String>,
    retry_after_ms: Option<u64>,
) -> Option<Outcome> {
    let step = definition.step(&slip.step).filter(|_| slip.phase == Phase::Forward)?;
    match (step.completion()?, body) {
        // Nobody reads it.
        (Completion::Callback(_), _) => Some(accepted(Value::Null, retry_after_ms)),
        (Completion::Poll(_), Err(_)) => None,
        (Completion::Poll(poll), Ok(body)) => {
            let mut response = json!({ "status": status, "body": body });
            if Kept::of(slip).poll.is_none() {
                if poll.reads_headers() {
                    response["headers"] = readable(headers);
                }
                return Some(accepted(response, retry_after_ms));
            }
            Some(match is_over(poll, slip, &response) {
                Ok(true) => Outcome::done(body.clone()),
                Ok(false) => Outcome::NotYet { retry_after_ms },
                Err(error) => {
                    let message = format!("`until`: {error}");
                    let error = StepError { code: code::EXPRESSION_FAILED.to_owned(), message, status: None };
                    Outcome::Failed { error, retryable: false, effect: Effect::Unknown, retry_after_ms: None }
                }
            })
        }
    }
}

/// The headers as a flow sees them. Of one that is too long to be a link so much is kept that it still is.
fn readable(headers: &[(String, String)]) -> Value {
    let value = |wire: &str| headers.iter().find(|(name, _)| name == wire).map(|(_, value)| value);
    let kept = |value: &String| Value::String(value.chars().take(LINK_BYTES_MAX + 1).collect());
    let known = HEADERS_READ.iter().filter_map(|(name, wire)| Some(((*name).to_owned(), kept(value(wire)?))));
    Value::Object(known.collect())
}

fn is_over(poll: &Poll, slip: &Slip, response: &Value) -> Result<bool, ExpressionError> {
    let scope = crate::expression::Scope {
        input: &slip.input,
        slip: Some(slip),
        step: None,
        env: None,
        more: &[("response", response)],
    };
    match poll.until.render(&Evaluation::new(scope))? {
        Value::Bool(is_over) => Ok(is_over),
        _ => Err(ExpressionError::new("it gives neither true nor false")),
    }
}

/// True while the slip's call was accepted and its poll is what is called.
pub(super) fn polls(definition: &Definition, slip: &Slip) -> bool {
    slip.phase == Phase::Forward
        && definition.step(&slip.step).is_some_and(|step| step.poll().is_some())
        && Kept::of(slip).poll.is_some()
}

/// The meaning of anything else that a poll was answered: what may pass says "not yet", and what will not is a failure
/// that tells nothing of the work.
pub(super) fn judged(definition: &Definition, slip: &Slip, outcome: Outcome) -> Outcome {
    let polls = polls(definition, slip);
    match outcome {
        Outcome::Failed { retryable: true, retry_after_ms, ref error, .. } if polls && error.code != code::ABORTED => {
            Outcome::NotYet { retry_after_ms }
        }
        Outcome::Failed { error, retryable, retry_after_ms, .. } if polls => {
            Outcome::Failed { error, retryable, effect: Effect::Unknown, retry_after_ms }
        }
        other => other,
    }
}
