//! From a slip to the call that it asks for.

use serde_json::Value;

use super::authorize::authorize;
use super::request::{headers, refused, scope, unevaluable};
use super::time_left::{deadline_error, is_past, step_deadline_error, time_left_ms};
use super::token::{Token, expression_error};
use super::{
    Env, HttpCall, Missing, MissingKind, NativeCall, Outcome, Prepared, Verdict, completion, doubt, pause, simulated,
};
use crate::body::payload;
use crate::definition::{Action, Call, Definition, StepKind};
use crate::document::{Document, StoredDocument};
use crate::expression::{Evaluation, ExpressionError, Scope};
use crate::slip::{Phase, ReleasedBy, Slip};

const CONTENT_TYPE: &str = "content-type";

/// The call that a slip asks its worker to make.
///
/// In a compensation, `step.idempotency_key` is the key under which the step was done, so that it can be undone by it;
/// the call itself is sent under a key of its own.
///
/// A job can be parked at a step whose `when` could not be evaluated. Sent on by an operator, in a visit of its own, it
/// is looked at again.
pub fn prepare(definition: &Definition, slip: &Slip, env: &Env, now_ms: i64) -> Prepared {
    if let Some(verdict) = Verdict::of(slip) {
        return Prepared::Outcome(verdict.outcome());
    }
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
    if slip.phase == Phase::Forward && slip.is_step_over() {
        return refused(step_deadline_error());
    }
    if let Some(prepared) = doubt::prepare(definition, slip, env, now_ms) {
        return prepared;
    }
    let step = definition.step(&slip.step);
    match step.map(|step| &step.kind) {
        Some(StepKind::Sleep(sleep)) if slip.phase == Phase::Forward => {
            let scope = Scope { input: &slip.input, slip: Some(slip), step: None, env: None, more: &[] };
            return pause::sleep(sleep, slip, &Evaluation::new(scope), now_ms);
        }
        Some(StepKind::Wait(wait)) if slip.phase == Phase::Forward => return pause::wait(wait, slip),
        _ => {}
    }
    let Some((step, action)) = step.and_then(|step| Some((step, step.action(slip.phase)?))) else {
        let message = format!("{definition:?} has no such step or compensation: `{}`", slip.step);
        return Prepared::Missing(Missing { kind: MissingKind::Step, what: message });
    };
    if definition.is_sandbox() {
        return simulated::answer(definition, action, slip, now_ms);
    }
    let timeout_ms = time_left_ms(action.timeout_ms, slip, now_ms);
    if let Some(prepared) = completion::resumed(step, slip, env, timeout_ms) {
        return prepared;
    }
    let callback = completion::callback(step, action, slip, env, now_ms);
    let (callback, progress) = match (callback, completion::progress(step, action, slip, env, now_ms)) {
        (Ok(callback), Ok(progress)) => (callback, progress),
        (Err(missing), _) | (_, Err(missing)) => return Prepared::Missing(missing),
    };
    let forward_key =
        Slip { phase: Phase::Forward, input: Value::Null, done: Vec::new(), ..slip.clone() }.idempotency_key();
    let more = [("callback", &callback), ("progress", &progress)];
    let scope = scope(slip, &forward_key, env, &more);
    call(action, slip, timeout_ms, &Evaluation::new(scope)).unwrap_or_else(|error| unevaluable(&error))
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
            let (url, mut headers) = (http.url.render(evaluation)?, headers(&http.headers, evaluation)?);
            let body = http.body.as_ref().map(|body| body.render(evaluation)).transpose()?;
            let is_typed = headers.iter().any(|(name, _)| name == CONTENT_TYPE);
            if let Some(media_type) = body.as_ref().filter(|_| !is_typed).and_then(media_type) {
                headers.push((CONTENT_TYPE.to_owned(), media_type));
            }
            let token_client = authorize(http.auth.as_deref(), &mut headers, evaluation)?;
            let content_type = headers.iter().find(|(name, _)| name == CONTENT_TYPE).map(|(_, value)| value.as_str());
            let body = body.map(|body| payload(content_type, &body)).transpose().map_err(ExpressionError::new)?;
            let method = http.method.clone();
            let idempotency_key = Some(idempotency_key);
            Ok(Prepared::Http(HttpCall { method, url, headers, token_client, body, timeout_ms, idempotency_key }))
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

/// That of a document.
fn media_type(body: &Value) -> Option<String> {
    let stored = StoredDocument::of(body).map(|document| document.media_type);
    stored.or_else(|| Document::of(body).map(|document| document.media_type().to_owned()))
}
