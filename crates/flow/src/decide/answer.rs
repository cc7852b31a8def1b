//! An HTTP answer, and its meaning.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::words::reason;
use super::{Effect, Outcome, StepError, code, completion, output, reply};
use crate::definition::{Call, Definition, Http};
use crate::document::StoredDocument;
use crate::slip::{Phase, Slip};

/// The answer to an HTTP request, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// An answer came.
    Response {
        /// Its status.
        status: u16,
        /// Its `Retry-After` header, as it stands.
        retry_after: Option<String>,
        /// Its `Content-Type` header, as it stands.
        content_type: Option<String>,
        /// All of its headers that are text, in lower case.
        headers: Vec<(String, String)>,
        /// Its body, without any content coding.
        body: Vec<u8>,
    },
    /// A 2xx came whose body has a content coding that cannot be undone: the step was done, its output is lost.
    Undecodable {
        status: u16,
        /// The reason.
        cause: String,
    },
    /// A 2xx came whose body is over the limit: the step was done, its output is lost.
    TooLarge {
        status: u16,
        /// The limit, in bytes.
        limit_bytes: u64,
        /// True if it is the limit of documents in the store; false: there is no store for larger ones.
        has_store: bool,
    },
    /// A 2xx came whose body lies in the store of documents.
    Kept {
        status: u16,
        /// Its `Retry-After` header, as it stands.
        retry_after: Option<String>,
        /// All of its headers that are text, in lower case.
        headers: Vec<(String, String)>,
        document: StoredDocument,
    },
    /// The store of documents did not give what was to be sent, or did not take what was answered.
    StoreFailed {
        /// The reason.
        cause: String,
        /// True if it may pass.
        passing: bool,
        /// True if the other side may have seen the request.
        sent: bool,
    },
    /// No access token was given for the call, which was not made: by this attempt the other side has done nothing.
    NoToken {
        /// The reason. No secrets.
        cause: String,
        /// True if it may pass.
        passing: bool,
        /// The `Retry-After` of the token endpoint, as it stands.
        retry_after: Option<String>,
    },
    /// No answer within the time.
    TimedOut,
    /// No connection was made: the other side has seen nothing.
    ConnectFailed(String),
    /// The connection broke after the request may have been sent.
    ConnectionLost(String),
    /// The request cannot be sent as it is (a URL or header that is not one).
    Unsendable(String),
    /// The worker broke the attempt off.
    Aborted,
}

/// The outcome that an answer to a call means, before the step's poll has its say.
pub(super) fn meaning(definition: &Definition, slip: &Slip, answer: HttpAnswer, now_ms: i64) -> Outcome {
    let http = http_of(definition, slip);
    match answer {
        HttpAnswer::Response { status, retry_after, content_type, headers, body } => {
            if slip.phase == Phase::Undo && matches!(status, 404 | 410) {
                return Outcome::NothingToUndo { status: Some(status) };
            }
            if !(200..300).contains(&status) {
                let asked = if completion::polls(definition, slip) { "its poll" } else { method(http) };
                return refusal((http, asked), status, &body, retry_after_ms(retry_after.as_deref(), now_ms));
            }
            match slip.phase {
                Phase::Forward => {
                    let output = output::decode(content_type.as_deref(), &body);
                    let after_ms = retry_after_ms(retry_after.as_deref(), now_ms);
                    let outcome = completion::answered(definition, slip, status, &headers, &output, after_ms)
                        .unwrap_or_else(|| output.map_or_else(|cause| unreadable(status, &cause), Outcome::done));
                    replied(definition, slip, outcome, (status, &headers, &body))
                }
                // Nobody asks what an undo returned.
                Phase::Undo => Outcome::done(Value::Null),
            }
        }
        HttpAnswer::Undecodable { status, cause } => {
            let body = Err(cause.clone());
            let accepted = completion::answered(definition, slip, status, &[], &body, None);
            accepted.unwrap_or_else(|| unreadable(status, &cause))
        }
        HttpAnswer::Kept { status, retry_after, headers, document } => {
            let (output, after_ms) = (Ok(document.to_json()), retry_after_ms(retry_after.as_deref(), now_ms));
            let outcome = completion::answered(definition, slip, status, &headers, &output, after_ms)
                .unwrap_or_else(|| output.map_or_else(|cause| unreadable(status, &cause), Outcome::done));
            with_reply(definition, slip, outcome, (status, &headers, None))
        }
        HttpAnswer::StoreFailed { cause, passing, sent } => {
            let effect = if sent { Effect::Unknown } else { Effect::Unsent };
            failed(code::DOCUMENT_STORE, cause, None, passing, effect)
        }
        HttpAnswer::TooLarge { status, limit_bytes, has_store } => {
            let remedy = match has_store {
                true => "which is the limit of documents (`documents.bytes_max`)",
                false => "and there is no store for larger ones: configure one (`documents.url`)",
            };
            let message = format!("the answer ({status}) is larger than {limit_bytes} bytes, {remedy}");
            let accepted = completion::answered(definition, slip, status, &[], &Err(message.clone()), None);
            accepted.unwrap_or_else(|| failed(code::TOO_LARGE, message, Some(status), false, Effect::Done))
        }
        HttpAnswer::NoToken { cause, passing, retry_after } => {
            let error = StepError { code: code::NO_TOKEN.to_owned(), message: cause, status: None };
            let retry_after_ms = retry_after_ms(retry_after.as_deref(), now_ms);
            Outcome::Failed { error, retryable: passing, effect: Effect::Unsent, retry_after_ms }
        }
        HttpAnswer::TimedOut => {
            failed(code::TIMED_OUT, "no answer within the step's time".to_owned(), None, true, Effect::Unknown)
        }
        HttpAnswer::ConnectFailed(cause) => {
            failed(code::CONNECTION_FAILED, format!("no connection: {cause}"), None, true, Effect::Unsent)
        }
        HttpAnswer::ConnectionLost(cause) => {
            failed(code::CONNECTION_FAILED, format!("the connection broke: {cause}"), None, true, Effect::Unknown)
        }
        HttpAnswer::Unsendable(cause) => {
            failed(code::STEP_FAILED, format!("the request cannot be sent: {cause}"), None, false, Effect::Unsent)
        }
        HttpAnswer::Aborted => {
            failed(code::ABORTED, "the attempt was broken off".to_owned(), None, true, Effect::Unknown)
        }
    }
}

/// The outcome with more of the answer than its body, where that is of use: status, headers in lower case, and body as
/// they came.
pub fn replied(
    definition: &Definition,
    slip: &Slip,
    outcome: Outcome,
    (status, headers, body): (u16, &[(String, String)], &[u8]),
) -> Outcome {
    with_reply(definition, slip, outcome, (status, headers, Some(body)))
}

/// [`replied`]; without a body where that lies in the store, and so is the output.
fn with_reply(definition: &Definition, slip: &Slip, outcome: Outcome, answer: reply::Heard<'_>) -> Outcome {
    match outcome {
        Outcome::Succeeded { output, reply: None } => {
            let reply = reply::of(definition, slip, answer, &output);
            Outcome::Succeeded { output, reply }
        }
        other => other,
    }
}

fn http_of<'d>(definition: &'d Definition, slip: &Slip) -> Option<&'d Http> {
    match &definition.step(&slip.step)?.action(slip.phase)?.call {
        Call::Http(http) => Some(http),
        Call::Native(_) => None,
    }
}

/// It was done, but its output cannot be had. Another attempt would be answered alike.
fn unreadable(status: u16, cause: &str) -> Outcome {
    let message = format!("the answer ({status}) cannot be read: {cause}");
    failed(code::UNREADABLE_ANSWER, message, Some(status), false, Effect::Done)
}

/// What its messages call a call.
fn method(http: Option<&Http>) -> &str {
    http.map_or("the step", |http| http.method.as_str())
}

/// The meaning of a status other than 2xx. `asked`: what was answered so, in the message.
pub(super) fn refusal(
    (http, asked): (Option<&Http>, &str),
    status: u16,
    body: &[u8],
    retry_after_ms: Option<u64>,
) -> Outcome {
    let listed = |list: fn(&Http) -> &[u16]| http.is_some_and(|http| list(http).contains(&status));
    let named = listed(|http| &http.fail_on);
    let later = matches!(status, 409 | 423) && retry_after_ms.is_some();
    let passing = later || matches!(status, 408 | 425 | 429 | 500..=599);
    let retryable = (passing || listed(|http| &http.retry_on)) && !named;
    let effect = match status {
        _ if named => Effect::RuledOut,
        300..=399 | 500..=599 => Effect::Unknown,
        // It says "not now", which tells nothing of an earlier attempt.
        _ if retryable => Effect::Unsent,
        _ => Effect::Refused,
    };
    let mut message = format!("{asked} was answered {status}");
    // The other side's words reach the job's caller, so they are taken over only where the step says so.
    if http.is_some_and(|http| http.expose)
        && let Ok(body) = serde_json::from_slice(body)
        && let Some(reason) = reason(&body)
    {
        message = format!("{message}: {reason}");
    }
    let error = StepError { code: code::STEP_FAILED.to_owned(), message, status: Some(status) };
    Outcome::Failed { error, retryable, effect, retry_after_ms }
}

fn failed(code: &str, message: String, status: Option<u16>, retryable: bool, effect: Effect) -> Outcome {
    let error = StepError { code: code.to_owned(), message, status };
    Outcome::Failed { error, retryable, effect, retry_after_ms: None }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date. A job waits for as long as it asks for, which only the
/// job's deadline ends.
pub fn retry_after_ms(header: Option<&str>, now_ms: i64) -> Option<u64> {
    let text = header?.trim();
    Some(match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or_default());
            u64::try_from(at.saturating_sub(now).as_millis()).unwrap_or(u64::MAX)
        }
    })
}
