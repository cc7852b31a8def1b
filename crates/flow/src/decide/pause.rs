//! What a slip at a step that rests asks for: its rest, or the outcome of it.

use serde_json::Value;

use super::token::expression_error_of;
use super::{Effect, Outcome, Prepared, Rest, StepError, code};
use crate::definition::limit::DEADLINE_MS_MAX;
use crate::definition::{Sleep, Until, Wait, parse_duration_ms};
use crate::expression::{Evaluation, ExpressionError};
use crate::slip::{ReleasedBy, Slip};
use crate::time::read_rfc3339;

/// A sleep: it begins, or is over.
pub(super) fn sleep(sleep: &Sleep, slip: &Slip, evaluation: &Evaluation<'_>, now_ms: i64) -> Prepared {
    if slip.released.is_some() {
        return Prepared::Outcome(Outcome::done(Value::Null));
    }
    match length_ms(sleep, evaluation, now_ms) {
        Ok(0) => Prepared::Outcome(Outcome::done(Value::Null)),
        Ok(ms) => rests(Some(ms.min(DEADLINE_MS_MAX)), None),
        Err(error) => failed(expression_error_of("sleep", &error)),
    }
}

/// A wait: it begins, or its signal has come, or its time is over.
pub(super) fn wait(wait: &Wait, slip: &Slip) -> Prepared {
    let Some(released) = &slip.released else { return rests(wait.timeout_ms, Some(wait.signal.clone())) };
    match released.by {
        ReleasedBy::Signal => signalled(wait, released.payload.clone().unwrap_or(Value::Null)),
        ReleasedBy::Time => Prepared::Outcome(Outcome::NotSignalled),
        // An operator cannot answer in somebody's place; what a later version meant is not known.
        ReleasedBy::Deadline
        | ReleasedBy::Operator
        | ReleasedBy::Cancel
        | ReleasedBy::Breaker
        | ReleasedBy::Other(_) => rests(wait.timeout_ms, Some(wait.signal.clone())),
    }
}

fn signalled(wait: &Wait, payload: Value) -> Prepared {
    if wait.approve.is_some() && payload["decision"] != "approved" {
        let by = payload["by"].as_str().unwrap_or("somebody");
        let mut message = format!("rejected by {by}");
        if let Some(comment) = payload["comment"].as_str() {
            message = format!("{message}: {comment}");
        }
        return failed(StepError { code: code::REJECTED.to_owned(), message, status: None });
    }
    Prepared::Outcome(Outcome::done(payload))
}

fn rests(release_after_ms: Option<u64>, signal: Option<String>) -> Prepared {
    Prepared::Outcome(Outcome::Rests(Rest { release_after_ms, signal }))
}

fn failed(error: StepError) -> Prepared {
    let effect = Effect::RuledOut;
    Prepared::Outcome(Outcome::Failed { error, retryable: false, effect, retry_after_ms: None })
}

fn length_ms(sleep: &Sleep, evaluation: &Evaluation<'_>, now_ms: i64) -> Result<u64, ExpressionError> {
    match &sleep.0 {
        Until::For(length) => match length.render(evaluation)? {
            Value::String(text) => parse_duration_ms(&text).ok_or_else(|| {
                ExpressionError::new("it gives no duration (a whole number and a unit: 200ms, 2s, 15m, 2h or 2d)")
            }),
            _ => Err(ExpressionError::new("it gives no text, but a duration is one: 200ms, 2s, 15m, 2h or 2d")),
        },
        Until::At(until) => match until.render(evaluation)? {
            Value::String(text) => {
                let at_ms = read_rfc3339(&text)
                    .ok_or_else(|| ExpressionError::new("`until` gives no instant (RFC 3339: 2026-12-24T18:00:00Z)"))?;
                Ok(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or_default())
            }
            _ => Err(ExpressionError::new("`until` gives no text, but an instant is one (RFC 3339)")),
        },
    }
}
