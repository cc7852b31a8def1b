//! The body of a webhook: `{type, timestamp, data}`, thin. Whoever wants more follows its links.

use events::time::rfc3339;
use flow::document::described;
use flow::event::{EventKind, JobEvent};
use flow::facts::JobFacts;
use serde_json::{Map, Value, json};
use store::webhooks::Disabled;

/// A result or a failure with more bytes is told by its link only.
const DATA_BYTES_MAX: usize = 16_000;
/// The type of a delivery that tells of nothing.
pub(crate) const PING: &str = "webhook.ping";
/// The type of a delivery that tells of an endpoint that gets none any more.
pub(crate) const DISABLED: &str = "webhook.endpoint.disabled";

/// The body that tells of an event. `api_url`: where callers reach the API; empty where it is not known, and links are
/// relative then.
pub(crate) fn of_event(event: &JobEvent, api_url: &str) -> Vec<u8> {
    let JobFacts { job, flow, version, key, correlation_id, accepted_at_ms, retry_of, .. } = &event.facts;
    let link = |rest: &str| format!("{api_url}/v1/jobs/{job}{rest}");
    let mut links = json!({ "self": link(""), "events": link("/events") });
    if event.status.is_final() {
        links["result"] = link("/result").into();
    }
    let mut data = json!({
        "id": event.message_id(),
        "job": job.to_string(),
        "flow": flow,
        "version": version,
        "status": event.status.as_str(),
        "key": key,
        "correlation_id": correlation_id,
        "created_at": rfc3339(*accepted_at_ms),
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let (Some(value), Some(data)) = (value, data.as_object_mut()) {
            data.insert(name.to_owned(), value);
        }
    };
    put("retry_of", retry_of.map(|job| job.to_string().into()));
    put("step", event.step.as_deref().map(Value::from));
    put("signal", event.signal.as_deref().map(Value::from));
    put("reason", event.reason.as_ref().map(|reason| reason.as_str().into()));
    put("actor", event.actor.as_deref().map(Value::from));
    let name = if event.kind == EventKind::JobSucceeded { "result" } else { "detail" };
    put(name, event.data.as_ref().and_then(small));
    put("links", Some(links));
    body(event.kind.as_str(), event.at_ms, &data)
}

/// The body of a ping.
pub(crate) fn of_ping(endpoint: &str, now_ms: i64) -> Vec<u8> {
    body(PING, now_ms, &json!({ "endpoint": endpoint }))
}

/// The body that tells of a disabled endpoint.
pub(crate) fn of_disabled(disabled: &Disabled, now_ms: i64) -> Vec<u8> {
    let Disabled { endpoint, url, reason, .. } = disabled;
    body(DISABLED, now_ms, &json!({ "endpoint": endpoint.to_string(), "url": url, "reason": reason }))
}

fn body(kind: &str, at_ms: i64, data: &Value) -> Vec<u8> {
    json!({ "type": kind, "timestamp": rfc3339(at_ms), "data": data }).to_string().into_bytes()
}

/// The value without the bytes of documents, if it is small. Of a failure, its log of attempts is left out first.
fn small(value: &Value) -> Option<Value> {
    let mut told = described(value).into_owned();
    told.as_object_mut().and_then(|members: &mut Map<_, _>| members.shift_remove("attempt_log"));
    (told.to_string().len() <= DATA_BYTES_MAX).then_some(told)
}

/// True if a filter names this type: by itself, as one of a group (`job.*`), or as one of all (`*`).
pub(crate) fn is_wanted(filter: &[String], kind: &str) -> bool {
    filter.iter().any(|entry| match entry.strip_suffix('*') {
        Some("") => true,
        Some(group) => group.ends_with('.') && kind.starts_with(group),
        None => entry == kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_types_groups_or_all() {
        let wanted = |filter: &[&str], kind| {
            let filter: Vec<String> = filter.iter().map(|entry| (*entry).to_owned()).collect();
            is_wanted(&filter, kind)
        };
        assert!(wanted(&["job.failed", "step.*"], "step.waiting") && wanted(&["*"], "job.parked"));
        assert!(wanted(&["job.failed"], "job.failed") && !wanted(&["job.failed"], "job.failed.x"));
        assert!(!wanted(&["job.*"], "jobs.x") && !wanted(&[], "job.failed") && !wanted(&["job*"], "job.failed"));
    }

    #[test]
    fn large_values_and_the_bytes_of_documents_are_left_to_the_link() {
        let small_one = json!({ "tracking": "42", "amount": 1.10 });
        assert_eq!(small(&small_one), Some(small_one));
        assert_eq!(small(&json!("x".repeat(16_000))), None);
        let failure = json!({ "code": "timed-out", "attempt_log": ["x".repeat(20_000)] });
        assert_eq!(small(&failure), Some(json!({ "code": "timed-out" })));
    }
}
