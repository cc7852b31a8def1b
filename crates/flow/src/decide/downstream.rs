//! The downstream that a step calls, what an outcome tells of it, and the rest of a slip that must not call it now.

use serde_json::Value;

use super::rest::{at_rest, steps_total};
use super::time_left::{rested, stop_time, time_left_ms};
use super::token::Token;
use super::{Decision, Env, HttpAnswer, Next, Outcome, Prepared, code};
use crate::definition::{Call, Definition, Limits, Step};
use crate::event::{EventKind, JobEvent, JobStatus};
use crate::expression::{Evaluation, Scope};
use crate::slip::{HoldReason, Phase, Slip};

/// Characters of the name of a downstream: it is a label and a key.
const NAME_CHARS_MAX: usize = 200;

/// The name of the downstream that a prepared call goes to: what the step says, else the host of its URL, with the port
/// where it is not the scheme's own. A native step without a name has none.
pub fn downstream(definition: &Definition, slip: &Slip, prepared: &Prepared) -> Option<String> {
    let named = definition.step(&slip.step).and_then(|step| step.downstream.clone());
    match prepared {
        Prepared::Http(call) => named.or_else(|| host_of(&call.url)),
        Prepared::Native(_) => named,
        Prepared::Simulated(_) | Prepared::Outcome(_) | Prepared::Missing(_) => None,
    }
}

/// The limits that a flow gives to downstreams. `env`: that of the worker, which says where the calls go; a downstream
/// whose host this worker does not know is left out, and a sandbox calls none.
pub fn limits(definition: &Definition, env: &Env) -> Vec<(String, Limits)> {
    let scope = Scope { input: &Value::Null, slip: None, step: None, env: Some(env), more: &[] };
    let evaluation = Evaluation::new(scope);
    let calls = |step: &&Step| !definition.is_sandbox() && step.limits != Limits::default();
    let limited = definition.steps().iter().filter(calls);
    let each = limited.flat_map(|step| {
        let called = [Phase::Forward, Phase::Undo].into_iter().filter_map(|phase| step.action(phase));
        let hosts = called.filter_map(|action| match &action.call {
            Call::Http(http) => host_of(&http.url.base(&evaluation).ok()?),
            Call::Native(_) => None,
        });
        let names = step.downstream.clone().map_or_else(|| hosts.collect(), |name| vec![name]);
        names.into_iter().map(|name| (name, step.limits))
    });
    each.collect()
}

/// The host of an absolute URL in lower case, with the port where it is not the scheme's own.
pub fn host_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let usual = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    (!host.is_empty()).then(|| host.chars().take(NAME_CHARS_MAX).collect())
}

/// What the outcome of a call tells of the downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It answered, even if with a no: it lives.
    Answered,
    /// No connection, no answer in time, or a 5xx.
    Failed,
    /// Nothing: the call was not made, or was broken off.
    Nothing,
}

/// What an answer tells of the downstream. A 429 is one: it says itself when to come again, and may be meant for one
/// customer.
pub fn told_by(answer: &HttpAnswer) -> Told {
    match answer {
        HttpAnswer::Response { status, .. } if (500..600).contains(status) => Told::Failed,
        HttpAnswer::Response { .. }
        | HttpAnswer::Undecodable { .. }
        | HttpAnswer::TooLarge { .. }
        | HttpAnswer::Kept { .. } => Told::Answered,
        // Without a token it cannot be used: while the token endpoint is down, its jobs wait as if it were down itself.
        HttpAnswer::NoToken { passing: true, .. }
        | HttpAnswer::TimedOut
        | HttpAnswer::ConnectFailed(_)
        | HttpAnswer::ConnectionLost(_) => Told::Failed,
        HttpAnswer::NoToken { passing: false, .. }
        | HttpAnswer::Unsendable(_)
        | HttpAnswer::Aborted
        | HttpAnswer::StoreFailed { .. } => Told::Nothing,
    }
}

/// What the outcome of a native step tells of its downstream: a failure that may pass counts against it.
pub fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Succeeded { .. } | Outcome::Accepted { .. } | Outcome::NothingToUndo { .. } | Outcome::NotDone => {
            Told::Answered
        }
        Outcome::Failed { retryable: true, .. } => Told::Failed,
        Outcome::Failed { error, .. } if error.code == code::STEP_FAILED => Told::Answered,
        Outcome::Failed { .. }
        | Outcome::NotYet { .. }
        | Outcome::Skipped
        | Outcome::Rests(_)
        | Outcome::NotSignalled
        | Outcome::Cancelled => Told::Nothing,
    }
}

/// A downstream that is not to be called now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Its name.
    pub downstream: String,
    /// [`HoldReason::Breaker`] or [`HoldReason::Limit`].
    pub reason: HoldReason,
    /// The rest in milliseconds; none: until the breaker lets it pass.
    pub after_ms: Option<u64>,
}

/// The rest of a slip whose downstream is not to be called now. No attempt is made, and none is counted. The job's
/// deadline ends it at the latest. A step with a fallback does not wait for a breaker: its job goes on by that.
pub fn wait_for_downstream(definition: &Definition, slip: &Slip, queue: &str, busy: &Busy, now_ms: i64) -> Decision {
    if busy.reason == HoldReason::Breaker
        && let Some(fallen_back) = Token::arrived(definition, slip, now_ms).held_back(&busy.downstream)
    {
        return fallen_back;
    }
    let after_ms = Some(time_left_ms(busy.after_ms.unwrap_or(u64::MAX), slip, now_ms)).filter(|ms| *ms < u64::MAX);
    let status = match slip.phase {
        Phase::Forward => JobStatus::Waiting,
        Phase::Undo => JobStatus::Compensating,
    };
    let event = JobEvent {
        step: Some(slip.step.clone()),
        attempts: slip.attempt,
        reason: Some(busy.reason),
        next_attempt_after_ms: after_ms,
        data: Some(serde_json::json!({ "downstream": busy.downstream })),
        ..JobEvent::about(slip, steps_total(definition), EventKind::StepWaiting, status, now_ms)
    };
    let slip = Slip { search: None, ..slip.clone() };
    let slip = match busy.after_ms {
        Some(_) => rested(slip, after_ms.unwrap_or_default()),
        None => stop_time(slip),
    };
    let mut hold = at_rest(slip, queue, busy.reason);
    hold.release_after_ms = after_ms;
    hold.limit = Some(busy.downstream.clone());
    Decision { next: Next::Hold(hold), events: vec![event] }
}
