//! The end of a job that has done its steps: its result, and the answer to its caller.

use serde_json::Value;

use super::reply::Reply;
use super::request;
use crate::answer::{Answer, Body};
use crate::body::payload;
use crate::definition::limit::HEADER_BYTES_MAX;
use crate::definition::{BODILESS, Definition, Respond, status_of};
use crate::expression::{Evaluation, ExpressionError, Scope};
use crate::slip::Slip;

/// The result and the answer of a job, or the text of the failure that names the key at fault.
///
/// Without `result` the result is the body of `respond`, or the output of the step of a flow that answers as its step
/// does. `reply`: the answer of the last step, as far as it just came.
pub(super) fn end_of(
    definition: &Definition,
    slip: &Slip,
    reply: Option<Box<Reply>>,
) -> Result<(Value, Option<Answer>), String> {
    let scope = Scope { input: &slip.input, slip: Some(slip), step: None, env: None, more: &[] };
    let evaluation = Evaluation::new(scope);
    let result = definition.result().map(|result| result.render(&evaluation)).transpose();
    let result = result.map_err(|error| format!("`result`: {error}"))?;
    if let Some(respond) = definition.respond() {
        let of = |key: &'static str| move |error: ExpressionError| format!("`respond`: `{key}`: {error}");
        let status = status(respond, &evaluation).map_err(of("status"))?;
        let headers = headers(respond, &evaluation).map_err(of("headers"))?;
        let body = respond.body.as_ref().map(|body| body.render(&evaluation)).transpose().map_err(of("body"))?;
        let (result, body) = match (result, body) {
            (Some(result), Some(body)) if result == body => (result, Body::OfResult),
            (Some(result), Some(body)) => (result, Body::Value(body)),
            (None, Some(body)) => (body, Body::OfResult),
            (result, None) => (result.unwrap_or_default(), Body::OfResult),
        };
        let answer = Answer { status, headers, body };
        check_body(&answer, &result).map_err(of("body"))?;
        return Ok((result, Some(answer)));
    }
    if !definition.answers_as_its_step() {
        return Ok((result.unwrap_or_default(), None));
    }
    let output = slip.done.last().and_then(|done| done.output.clone());
    Ok((output.unwrap_or_default(), reply.map(|reply| reply.into_answer())))
}

fn status(respond: &Respond, evaluation: &Evaluation<'_>) -> Result<u16, ExpressionError> {
    let Some(status) = &respond.status else { return Ok(200) };
    status_of(&status.render(evaluation)?).map_err(ExpressionError::new)
}

fn headers(respond: &Respond, evaluation: &Evaluation<'_>) -> Result<Vec<(String, String)>, ExpressionError> {
    let headers = request::headers(&respond.headers, evaluation)?;
    match headers.iter().find(|(_, value)| value.len() > HEADER_BYTES_MAX) {
        Some((name, value)) => Err(ExpressionError::new(format!(
            "`{name}` has {} bytes, and may have {HEADER_BYTES_MAX} at most",
            value.len()
        ))),
        None => Ok(headers),
    }
}

/// The body has to be one that the answer's status and content type can have. It is written by whoever serves it.
fn check_body(answer: &Answer, result: &Value) -> Result<(), ExpressionError> {
    if BODILESS.contains(&answer.status) {
        return match answer.body {
            Body::Value(_) => {
                Err(ExpressionError::new(format!("an answer with the status {} has none", answer.status)))
            }
            Body::OfResult | Body::Bytes(_) => Ok(()),
        };
    }
    let body = match &answer.body {
        Body::Value(value) => value,
        Body::OfResult | Body::Bytes(_) => result,
    };
    payload(answer.header("content-type"), body).map(drop).map_err(ExpressionError::new)
}
