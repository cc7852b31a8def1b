//! From a slip to the call that it asks for.

use serde_json::Value;

use super::token::{Token, deadline_error, expression_error, is_past};
use super::{
    Effect, Env, HttpCall, Missing, MissingKind, NativeCall, Outcome, Prepared, StepError, body, code, completion,
    pause,
};
use crate::definition::{Action, Call, Definition, StepKind};
use crate::expression::{Evaluation, ExpressionError, Scope, StepScope, Template};
use crate::slip::{Phase, ReleasedBy, Slip};

/// The call that a slip asks its worker to make.
///
/// In a compensation, `step.idempotency_key` is the key under which the step was done, so that it can be undone by it;
/// the call itself is sent under a key of its own.
///
/// A job can be parked at a step whose `when` could not be evaluated. Sent on by an operator, in a visit of its own, it
/// is looked at again.
pub fn prepare(definition: &Definition, slip: &Slip, env: &Env, now_ms: i64) -> Prepared {
    if slip.phase == Phase::Forward
        && slip.visit > 1
        && let Some(step) = definition.step(&slip.step)
        && !completion::is_under_way(step, slip)
    {
        match Token::arrived(definition, slip, now_ms).applies(step) {
            Ok(true) => {}
            Ok(false) => return Prepared::Outcome(Outcome::Skipped),
            Err(error) => return refused(expression_error(&error)),
        }
    }
    let is_released_by_deadline = slip.released.as_ref().is_some_and(|released| released.by == ReleasedBy::Deadline);
    if slip.phase == Phase::Forward && (is_past(slip.deadline_ms, now_ms) || is_released_by_deadline) {
        return refused(deadline_error());
    }
    let step = definition.step(&slip.step);
    match step.map(|step| &step.kind) {
        Some(StepKind::Sleep(sleep)) if slip.phase == Phase::Forward => {
            let scope = Scope { input: &slip.input, slip: Some(slip), step: None, env: None, more: None };
            return pause::sleep(sleep, slip, &Evaluation::new(scope), now_ms);
        }
        Some(StepKind::Wait(wait)) if slip.phase == Phase::Forward => return pause::wait(wait, slip),
        _ => {}
    }
    let Some((step, action)) = step.and_then(|step| Some((step, step.action(slip.phase)?))) else {
        let message = format!("{definition:?} has no such step or compensation: `{}`", slip.step);
        return Prepared::Missing(Missing { kind: MissingKind::Step, what: message });
    };
    let timeout_ms = timeout_ms(action, slip, now_ms);
    if let Some(prepared) = completion::resumed(step, slip, env, timeout_ms) {
        return prepared;
    }
    let callback = match completion::callback(step, action, slip, env, now_ms) {
        Ok(callback) => callback,
        Err(missing) => return Prepared::Missing(missing),
    };
    let forward_key =
        Slip { phase: Phase::Forward, input: Value::Null, done: Vec::new(), ..slip.clone() }.idempotency_key();
    let scope = scope(slip, &forward_key, env, Some(("callback", &callback)));
    call(action, slip, timeout_ms, &Evaluation::new(scope)).unwrap_or_else(|error| unevaluable(&error))
}

/// All that a request may use. `key`: the idempotency key under which the step is done.
pub(super) fn scope<'a>(slip: &'a Slip, key: &'a str, env: &'a Env, more: Option<(&'a str, &'a Value)>) -> Scope<'a> {
    let step = Some(StepScope { idempotency_key: key, attempt: slip.attempt + 1 });
    Scope { input: &slip.input, slip: Some(slip), step, env: Some(env), more }
}

/// A request that cannot be made: something is missing at this worker, or the job's own values do not fit.
pub(super) fn unevaluable(error: &ExpressionError) -> Prepared {
    if let Some(name) = error.not_configured() {
        let what = format!("`{name}` is not configured at this worker");
        return Prepared::Missing(Missing { kind: MissingKind::Setting, what });
    }
    refused(StepError { code: code::EXPRESSION_FAILED.to_owned(), message: error.to_string(), status: None })
}

fn refused(error: StepError) -> Prepared {
    Prepared::Outcome(Outcome::Failed { error, retryable: false, effect: Effect::Unsent, retry_after_ms: None })
}

/// The time limit of an attempt; on the way forward, it ends with the job's deadline at the latest.
fn timeout_ms(action: &Action, slip: &Slip, now_ms: i64) -> u64 {
    let left_ms = match (slip.phase, slip.deadline_ms) {
        (Phase::Forward, Some(deadline_ms)) => u64::try_from(deadline_ms.saturating_sub(now_ms)).unwrap_or_default(),
        (Phase::Undo, _) | (Phase::Forward, None) => u64::MAX,
    };
    action.timeout_ms.min(left_ms)
}

fn call(
    action: &Action,
    slip: &Slip,
    timeout_ms: u64,
    evaluation: &Evaluation<'_>,
) -> Result<Prepared, ExpressionError> {
    let idempotency_key = slip.idempotency_key();
    match &action.call {
        Call::Http(http) => {
            let (url, headers) = (http.url.render(evaluation)?, headers(&http.headers, evaluation)?);
            let content_type = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
            let body = match &http.body {
                Some(body) => Some(body::encode(content_type, &body.render(evaluation)?)?),
                None => None,
            };
            let method = http.method.clone();
            let idempotency_key = Some(idempotency_key);
            Ok(Prepared::Http(HttpCall { method, url, headers, body, timeout_ms, idempotency_key }))
        }
        Call::Native(native) => {
            let input = match &native.with {
                Some(with) => with.render(evaluation)?,
                None => slip.input.clone(),
            };
            let (name, undo) = (native.name.clone(), slip.phase == Phase::Undo);
            Ok(Prepared::Native(NativeCall { name, input, timeout_ms, idempotency_key, undo }))
        }
    }
}

pub(super) fn headers(
    templates: &[(String, Template)],
    evaluation: &Evaluation<'_>,
) -> Result<Vec<(String, String)>, ExpressionError> {
    let header = |(name, template): &(String, Template)| {
        // White space at the ends is no part of a value (RFC 9110 section 5.5); a secret's file ends with a newline.
        let value = template.render_plain(evaluation)?.trim().to_owned();
        if value.chars().any(char::is_control) {
            return Err(ExpressionError::new(format!("the header `{name}` would hold a control character")));
        }
        Ok((name.clone(), value))
    };
    templates.iter().map(header).collect()
}
