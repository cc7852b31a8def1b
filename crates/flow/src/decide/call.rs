//! From a slip to the call that it asks for.

use serde_json::Value;

use super::token::{deadline_error, is_past};
use super::{Effect, Env, HttpCall, NativeCall, Outcome, Prepared, StepError, code};
use crate::definition::{Action, Call, Definition, Http};
use crate::expression::{Evaluation, ExpressionError, Scope, StepScope};
use crate::slip::{Phase, Slip};

/// The call that a slip asks its worker to make.
///
/// In a compensation, `step.idempotency_key` is the key under which the step was done, so that it can be undone by it;
/// the call itself is sent under a key of its own.
pub fn prepare(definition: &Definition, slip: &Slip, env: &Env, now_ms: i64) -> Prepared {
    if slip.phase == Phase::Forward && is_past(slip.deadline_ms, now_ms) {
        return refused(deadline_error());
    }
    let Some(action) = definition.step(&slip.step).and_then(|step| step.action(slip.phase)) else {
        let message = format!("{definition:?} has no such step or compensation: `{}`", slip.step);
        return refused(StepError { code: code::STEP_FAILED.to_owned(), message, status: None });
    };
    let forward_key =
        Slip { phase: Phase::Forward, input: Value::Null, done: Vec::new(), ..slip.clone() }.idempotency_key();
    let scope = Scope {
        input: &slip.input,
        slip: Some(slip),
        step: Some(StepScope { idempotency_key: &forward_key, attempt: slip.attempt + 1 }),
        env: Some(env),
    };
    call(action, slip, timeout_ms(action, slip, now_ms), &Evaluation::new(scope)).unwrap_or_else(|error| {
        refused(StepError { code: code::EXPRESSION_FAILED.to_owned(), message: error.to_string(), status: None })
    })
}

fn refused(error: StepError) -> Prepared {
    Prepared::Outcome(Outcome::Failed { error, retryable: false, effect: Effect::Unsent, retry_after_ms: None })
}

/// How long an attempt may take: no longer than its job, on the way forward.
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
            let (url, headers) = (http.url.render(evaluation)?, headers(http, evaluation)?);
            let body = http.body.as_ref().map(|body| body.render(evaluation)).transpose()?;
            let method = http.method.clone();
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

fn headers(http: &Http, evaluation: &Evaluation<'_>) -> Result<Vec<(String, String)>, ExpressionError> {
    let header = |(name, template): &(String, crate::expression::Template)| {
        let value = template.render_plain(evaluation)?;
        if value.chars().any(char::is_control) {
            return Err(ExpressionError::new(format!("the header `{name}` would hold a control character")));
        }
        Ok((name.clone(), value))
    };
    http.headers.iter().map(header).collect()
}
