//! The parts that all requests of steps have in common: the values that they see, their headers, and their failure.

use super::{Effect, Env, Missing, MissingKind, Outcome, Prepared, StepError, code};
use crate::expression::{Evaluation, ExpressionError, Scope, StepScope, Template};
use crate::slip::Slip;
use serde_json::Value;

/// All that a request may use. `key`: the idempotency key under which the step is done.
pub(super) fn scope<'a>(slip: &'a Slip, key: &'a str, env: &'a Env, more: &'a [(&'a str, &'a Value)]) -> Scope<'a> {
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

/// Nothing was sent, for good.
pub(super) fn refused(error: StepError) -> Prepared {
    Prepared::Outcome(Outcome::Failed { error, retryable: false, effect: Effect::Unsent, retry_after_ms: None })
}

/// The headers as they are sent.
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
