//! The answer of a simulated call: drawn from the flow and the attempt, in place of the other side's.
//!
//! The same attempt always gets the same answer. Failures are judged as those of real calls are, so retries, fallbacks
//! and the way back are those of the flow.

use serde_json::{Value, json};

use super::backoff::spread_ms;
use super::request::{refused, scope};
use super::time_left::time_left_ms;
use super::token::expression_error_of;
use super::{Env, HttpAnswer, Outcome, Prepared, Simulated, classify, replied};
use crate::definition::{Action, Definition, FailKind, Simulate, parse_latency};
use crate::expression::{Evaluation, ExpressionError};
use crate::slip::{Phase, Slip};

/// The answer that the flow itself has for the call of this slip, also where it is no sandbox; none without `simulate`.
pub fn simulated(definition: &Definition, slip: &Slip, now_ms: i64) -> Option<Simulated> {
    let action = definition.step(&slip.step)?.action(slip.phase)?;
    action.simulate.as_ref()?;
    match answer(definition, action, slip, now_ms) {
        Prepared::Simulated(simulated) => Some(simulated),
        Prepared::Outcome(outcome) => Some(Simulated { after_ms: 0, outcome }),
        Prepared::Http(_) | Prepared::Native(_) | Prepared::Missing(_) => None,
    }
}

/// The answer to a call of a sandbox. A compensation without `simulate` succeeds at once.
pub(super) fn answer(definition: &Definition, action: &Action, slip: &Slip, now_ms: i64) -> Prepared {
    let timeout_ms = time_left_ms(action.timeout_ms, slip, now_ms);
    let Some(simulate) = &action.simulate else {
        return Prepared::Simulated(Simulated { after_ms: 0, outcome: succeeded(slip, Value::Null) });
    };
    let key = Slip { phase: Phase::Forward, input: Value::Null, done: Vec::new(), ..slip.clone() }.idempotency_key();
    let env = Env::default();
    let evaluation = Evaluation::new(scope(slip, &key, &env, &[]));
    let drawn = latency_ms(simulate, slip, &evaluation).and_then(|after_ms| {
        let answer = failure(simulate, slip, &evaluation)?;
        let output = if answer.is_none() { simulate.output.render(&evaluation)? } else { Value::Null };
        Ok((after_ms, answer, output))
    });
    let (after_ms, answer, output) = match drawn {
        Ok(drawn) => drawn,
        Err(error) => return refused(expression_error_of("simulate", &error)),
    };
    let (after_ms, answer) = match answer {
        Some(HttpAnswer::TimedOut) => (timeout_ms, Some(HttpAnswer::TimedOut)),
        _ if after_ms > timeout_ms => (timeout_ms, Some(HttpAnswer::TimedOut)),
        answer => (after_ms, answer),
    };
    let outcome = match answer {
        Some(answer) => classify(definition, slip, answer, now_ms.saturating_add_unsigned(after_ms)),
        None => {
            let body = output.to_string();
            let headers = [("content-type".to_owned(), "application/json".to_owned())];
            replied(definition, slip, succeeded(slip, output), (200, &headers, body.as_bytes()))
        }
    };
    Prepared::Simulated(Simulated { after_ms, outcome })
}

fn succeeded(slip: &Slip, output: Value) -> Outcome {
    // Nobody asks what an undo returned.
    Outcome::done(if slip.phase == Phase::Forward { output } else { Value::Null })
}

fn latency_ms(simulate: &Simulate, slip: &Slip, evaluation: &Evaluation<'_>) -> Result<u64, ExpressionError> {
    let rendered = simulate.latency.render(evaluation)?;
    let (min_ms, max_ms) = rendered
        .as_str()
        .and_then(parse_latency)
        .ok_or_else(|| ExpressionError::new("`latency` gives no duration or range of at most 15m: 300ms, 200ms..2s"))?;
    Ok(min_ms + spread_ms(max_ms - min_ms, &name(slip, "latency")))
}

/// The first failure that applies to this attempt, as an answer.
fn failure(
    simulate: &Simulate,
    slip: &Slip,
    evaluation: &Evaluation<'_>,
) -> Result<Option<HttpAnswer>, ExpressionError> {
    for (number, fail) in simulate.fail.iter().enumerate() {
        let applies = match fail.when.as_ref().map(|when| when.render(evaluation)).transpose()? {
            None | Some(Value::Bool(true)) => true,
            Some(Value::Bool(false)) => false,
            Some(_) => return Err(ExpressionError::new("`when` gives neither true nor false")),
        };
        // One of a hundred equal chances.
        if !applies || spread_ms(99, &name(slip, &format!("fail:{number}"))) >= fail.percent {
            continue;
        }
        let detail = fail.detail.as_ref().map(|detail| detail.render_plain(evaluation)).transpose()?;
        return Ok(Some(answer_of(fail.kind, detail.as_deref())));
    }
    Ok(None)
}

fn answer_of(kind: FailKind, detail: Option<&str>) -> HttpAnswer {
    let cause = || detail.unwrap_or("simulated").to_owned();
    match kind {
        FailKind::Status(status) => {
            let body = detail.map(|detail| json!({ "detail": detail }).to_string().into_bytes()).unwrap_or_default();
            let content_type = Some("application/problem+json".to_owned());
            HttpAnswer::Response { status, retry_after: None, content_type, headers: Vec::new(), body }
        }
        FailKind::NoAnswer => HttpAnswer::TimedOut,
        FailKind::ConnectionLost => HttpAnswer::ConnectionLost(cause()),
        FailKind::NoConnection => HttpAnswer::ConnectFailed(cause()),
    }
}

/// The name of a draw: of one attempt, and for one purpose.
fn name(slip: &Slip, purpose: &str) -> String {
    format!("{}#{purpose}#{}", slip.idempotency_key(), slip.attempt.saturating_add(1))
}
