//! Slips and events with what later versions have added.

use flow::answer::{Answer, Body, StepAnswer};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::slip::Slip;
use serde_json::json;

use crate::sample::{event, slip};

/// A slip whose flow reads more of its steps' answers than their outputs.
pub(crate) fn answered() -> Slip {
    let headers = vec![("etag".into(), "\"7\"".into()), ("x_trace".into(), "é".into())];
    let answer = |step: &str, status, headers| StepAnswer { step: step.into(), visit: 1, status, headers };
    Slip { answers: vec![answer("reserve", 201, headers), answer("note", 204, Vec::new())], ..slip() }
}

/// The end of a job, with the answer to its caller.
pub(crate) fn succeeded(body: Body) -> JobEvent {
    let headers = vec![("content-type".into(), "text/csv; charset=utf-8".into()), ("location".into(), "/r/77".into())];
    let answer = Some(Answer { status: 201, headers, body });
    let (kind, status) = (EventKind::JobSucceeded, JobStatus::Succeeded);
    JobEvent { kind, status, hop: 4, data: Some(json!("a,b\n")), answer, ..event() }
}

/// A slip whose step rests time and again.
pub(crate) fn resting() -> Slip {
    Slip { step_state: Some(json!({"polls": 3})), step_left_ms: Some(90_000), ..slip() }
}
