//! The call of an HTTP step: the flow's own headers, and those that every step gets.

use std::time::Duration;

use events::header;
use events::trace::Trace;
use flow::decide::{HttpAnswer, HttpCall};
use outbound::{Call, Client, Guard, Limits};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::HttpConfig;

const CONTENT_TYPE: &str = "content-type";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const CORRELATION_ID: &str = "x-correlation-id";
/// W3C Baggage: what tracing libraries hand on by themselves.
const BAGGAGE: &str = "baggage";
/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The client of all HTTP steps.
#[derive(Debug)]
pub(crate) struct Http(Client);

impl Http {
    pub(crate) fn new(config: &HttpConfig) -> anyhow::Result<Self> {
        let limits = Limits {
            response_bytes_max: config.response_bytes_max,
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            idle_connections_max: config.idle_connections_max,
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
        };
        // Operators apply flows, and their services are inside: no address is refused.
        Ok(Self(Client::new(&limits, Guard::none())?))
    }

    /// Makes the call once. `trace` is the attempt's own span.
    pub(crate) async fn send(&self, call: &HttpCall, trace: &Trace, correlation_id: &str) -> HttpAnswer {
        let call = Call {
            method: &call.method,
            url: &call.url,
            headers: headers(call, trace, correlation_id),
            body: call.body.clone(),
            timeout: Duration::from_millis(call.timeout_ms),
        };
        self.0.send(call).await
    }
}

fn headers<'a>(call: &'a HttpCall, trace: &Trace, correlation_id: &str) -> Vec<(&'a str, Vec<u8>)> {
    let mut headers = Vec::with_capacity(call.headers.len() + 6);
    if call.body.is_some() {
        headers.push((CONTENT_TYPE, b"application/json".to_vec()));
    }
    for (name, value) in &call.headers {
        headers.push((name.as_str(), value.clone().into_bytes()));
    }
    // Ours come last: they win over the flow's own.
    headers.extend(call.idempotency_key.clone().map(|key| (IDEMPOTENCY_KEY, key.into_bytes())));
    for (name, value) in trace.headers() {
        let name = if name == header::TRACEPARENT { header::TRACEPARENT } else { header::TRACESTATE };
        headers.push((name, value.unwrap_or_default()));
    }
    // Slips come from Kafka, where anything may be written. A step does not fail for the sake of a correlation id.
    if !correlation_id.contains(char::is_control) {
        headers.push((CORRELATION_ID, correlation_id.as_bytes().to_vec()));
        if !call.headers.iter().any(|(name, _)| name == BAGGAGE) {
            let value = utf8_percent_encode(correlation_id, RESERVED);
            headers.push((BAGGAGE, format!("correlation_id={value}").into_bytes()));
        }
    }
    headers
}
