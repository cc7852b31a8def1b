//! `PUT /v1/progress/{permit}`: a service tells how far the work of a step is.
//!
//! The permit certifies itself, as that of a callback does. A report goes to `meanwhile.progress`, and may be lost: 204
//! says only that it was understood. Of the reports of one step within a fifth of a second the last one is sent.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use events::progress::{PERCENT, Progress, short_message};
use events::trace::Trace;
use flow::callback::{Permit, Purpose};
use flow::definition::InputError;
use flow::slip::Phase;
use serde_json::Value;
use service_kit::error_chain;
use service_kit::tasks::spawn_detached;
use web::context::RequestContext;
use web::problem::{Kind, Problem};

use crate::callback::{open_flow, permit};
use crate::reports_out::{ReportsOut, Told};
use crate::request_parts::{parse_body, unreadable};
use crate::state::Api;
use crate::violations::violations;

/// The longest body that is read.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Of the reports of one step within this time, the last one is sent.
const INTERVAL: Duration = Duration::from_millis(200);

/// `PUT /v1/progress/{permit}`
pub(crate) async fn report(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let permit = permit(&api, Purpose::Progress, &text)?;
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let told = told(&headers, &body).map_err(|problem| problem.with_job(permit.job))?;
    let Some(told) = api.reports_out.add(&permit, told) else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let flow = open_flow(&api, &permit, Purpose::Progress).await?;
    begin(&api, permit, flow.unwrap_or_default(), told, context.trace);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `{percent?, message?}`; other members are left for later versions.
fn told(headers: &HeaderMap, body: &Bytes) -> Result<Told, Problem> {
    if body.len() > BODY_BYTES_MAX {
        let detail = format!("A report of progress has {} bytes of at most {BODY_BYTES_MAX}.", body.len());
        return Err(Problem::new(Kind::PayloadTooLarge, detail));
    }
    let body = parse_body(headers, body)?;
    let error = |pointer: &str, detail: &str| InputError { pointer: pointer.to_owned(), detail: detail.to_owned() };
    let mut errors = Vec::new();
    let percent = match &body["percent"] {
        Value::Null => None,
        percent => {
            let percent = percent.as_f64().filter(|percent| (0.0..=100.0).contains(percent));
            if percent.is_none() {
                errors.push(error("/percent", "is not a number from 0 to 100"));
            }
            // Within a byte; the part behind the point is cut off.
            percent.map(|percent| percent as u8)
        }
    };
    let message = match &body["message"] {
        Value::Null => None,
        Value::String(message) => short_message(message),
        _ => {
            errors.push(error("/message", "is not a text"));
            None
        }
    };
    if errors.is_empty() && body["percent"].is_null() && body["message"].is_null() {
        errors.push(error("", "has neither a `percent` nor a `message`"));
    }
    if errors.is_empty() { Ok(Told { percent, message }) } else { Err(violations("The report", errors)) }
}

/// Sends a report, and then, one in each interval, those that come meanwhile.
fn begin(api: &Arc<Api>, permit: Permit, flow: String, told: Told, trace: Trace) {
    if !api.reports_out.opens(&permit) {
        // Another request was faster, or too many steps report.
        if api.reports_out.add(&permit, told).is_some() {
            ReportsOut::dropped();
        }
        return;
    }
    send(api, &permit, &flow, told, &trace);
    let api = Arc::clone(api);
    spawn_detached(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(told) = api.reports_out.take_or_close(&permit) else { return };
            send(&api, &permit, &flow, told, &trace);
        }
    });
}

fn send(api: &Api, permit: &Permit, flow: &str, told: Told, trace: &Trace) {
    let progress = Progress {
        job: permit.job,
        tenant: permit.tenant.clone(),
        flow: flow.to_owned(),
        kind: PERCENT.to_owned(),
        step: Some(permit.step.clone()),
        phase: Phase::Forward,
        branch: String::new(),
        // The service does not know them.
        hop: 0,
        visit: permit.visit,
        attempt: 0,
        percent: told.percent,
        message: told.message,
        data: None,
        at_ms: api.clock.now_ms(),
    };
    let Ok(planner) = api.planner() else { return ReportsOut::dropped() };
    match planner.writer.progress(&progress, trace) {
        Ok(record) => api.reports_out.send(&record),
        Err(error) => tracing::debug!(error = error_chain(&error), "a report of progress cannot be written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(Option<u8>, Option<String>), (Kind, Value)> {
        let headers = HeaderMap::from_iter([(
            axum::http::header::CONTENT_TYPE,
            axum::http::HeaderValue::from_static("application/json"),
        )]);
        match told(&headers, &Bytes::copy_from_slice(body.as_bytes())) {
            Ok(Told { percent, message }) => Ok((percent, message)),
            Err(problem) => Err((problem.kind(), problem.document("")["errors"][0]["pointer"].clone())),
        }
    }

    #[test]
    fn a_report_has_a_percent_or_a_message_or_both() {
        assert_eq!(read(r#"{"percent":33.9}"#), Ok((Some(33), None)));
        assert_eq!(read(r#"{"percent":100,"message":" a\nb ","more":1}"#), Ok((Some(100), Some("a b".to_owned()))));
        assert_eq!(read(r#"{"percent":null,"message":"m"}"#), Ok((None, Some("m".to_owned()))));
        for (body, pointer) in [
            (r#"{"percent":101}"#, "#/percent"),
            (r#"{"percent":-1}"#, "#/percent"),
            (r#"{"percent":"30"}"#, "#/percent"),
            (r#"{"message":1,"percent":1}"#, "#/message"),
            ("{}", "#"),
            ("[1]", "#"),
            ("7", "#"),
        ] {
            assert_eq!(read(body), Err((Kind::SchemaViolation, pointer.into())), "{body}");
        }
        assert_eq!(read("{").unwrap_err().0, Kind::InvalidJson);
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
        assert_eq!(read(&long).unwrap_err().0, Kind::PayloadTooLarge);
    }
}
