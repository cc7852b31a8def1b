//! From an HTTP answer to the outcome of a step: the answer of its call, of its poll, or of its `verify`.

use serde_json::{Value, json};

use super::doubt::asks;
use super::{Effect, HttpAnswer, Outcome, StepError, answer, code, completion, output};
use crate::definition::Definition;
use crate::expression::{Evaluation, Scope, StepScope};
use crate::slip::Slip;

/// The outcome that an answer means for its step.
///
/// 2xx is success; 408, 425, 429, 5xx, 409 and 423 with `Retry-After`, and everything that went wrong on the way is
/// worth another attempt; all else is not. `fail_on` and `retry_on` overrule that. A redirect is no answer to whether
/// the step was done: after a POST it mostly was. On the way back, 404 and 410 say that there is nothing to undo.
///
/// Where the answer only accepts the work, a 2xx is [`Outcome::Accepted`]; that of a poll is success once its `until`
/// holds, and everything else that may pass is [`Outcome::NotYet`].
pub fn classify(definition: &Definition, slip: &Slip, answer: HttpAnswer, now_ms: i64) -> Outcome {
    if let Some(verdict) = verdict(definition, slip, &answer, now_ms) {
        return verdict;
    }
    completion::judged(definition, slip, answer::meaning(definition, slip, answer, now_ms))
}

/// The meaning of an answer to the question; none: nothing was asked.
///
/// A 2xx, a 404 and a 410 are answers, about which `done_when` decides. Anything else answers nothing: what may pass is
/// asked again, all else is for an operator. A 401 must not be taken for "not done".
fn verdict(definition: &Definition, slip: &Slip, answer: &HttpAnswer, now_ms: i64) -> Option<Outcome> {
    let (verify, doubt) = asks(definition, slip)?;
    let HttpAnswer::Response { status, retry_after, content_type, body, .. } = answer else {
        return Some(open(answer::meaning(definition, slip, answer.clone(), now_ms)));
    };
    let answers = (200..300).contains(status) || matches!(status, 404 | 410);
    if !answers || verify.http.retry_on.contains(status) {
        let retry_after_ms = answer::retry_after_ms(retry_after.as_deref(), now_ms);
        return Some(open(answer::refusal(
            (Some(&verify.http), verify.http.method.as_str()),
            *status,
            body,
            retry_after_ms,
        )));
    }
    let body = match output::decode(content_type.as_deref(), body) {
        Ok(body) => body,
        Err(cause) => {
            let message = format!("the answer to `verify` ({status}) cannot be read: {cause}");
            return Some(unanswered(code::UNREADABLE_ANSWER, message, Some(*status), false));
        }
    };
    let response = json!({ "status": status, "body": body });
    let key = slip.idempotency_key();
    let step = StepScope { idempotency_key: &key, attempt: slip.attempt };
    let scope =
        Scope { input: &slip.input, slip: Some(slip), step: Some(step), env: None, more: &[("response", &response)] };
    Some(match verify.done_when.render(&Evaluation::new(scope)) {
        Ok(Value::Bool(true)) => Outcome::done(body),
        Ok(Value::Bool(false)) if doubt.settled => Outcome::NotDone,
        Ok(Value::Bool(false)) => {
            let message = "`verify`: it was not done, and may still be: its call may be under way".to_owned();
            unanswered(code::OUTCOME_UNKNOWN, message, Some(*status), true)
        }
        Ok(Value::Null) => {
            unanswered(code::OUTCOME_UNKNOWN, "`verify`: it is not known yet".to_owned(), Some(*status), true)
        }
        Ok(_) => {
            let message = "`done_when` gives neither true nor false nor none".to_owned();
            unanswered(code::EXPRESSION_FAILED, message, Some(*status), false)
        }
        Err(error) => unanswered(code::EXPRESSION_FAILED, format!("`done_when`: {error}"), Some(*status), false),
    })
}

fn unanswered(code: &str, message: String, status: Option<u16>, retryable: bool) -> Outcome {
    let error = StepError { code: code.to_owned(), message, status };
    Outcome::Failed { error, retryable, effect: Effect::Unknown, retry_after_ms: None }
}

/// Whatever it says of itself, it says nothing of the step.
fn open(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed { error, retryable, retry_after_ms, .. } => {
            let error = StepError { message: format!("`verify`: {}", error.message), ..error };
            Outcome::Failed { error, retryable, effect: Effect::Unknown, retry_after_ms }
        }
        other => other,
    }
}
