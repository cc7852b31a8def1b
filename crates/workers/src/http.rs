//! The call of an HTTP step: the flow's own headers, and those that every step gets.

use std::time::Duration;

use documents::Documents;
use events::header;
use events::trace::Trace;
use flow::decide::{HttpAnswer, HttpCall};
use flow::slip::Slip;
use outbound::{Begun, Call, Client, Guard, Limits};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::HttpConfig;
use crate::payloads::{Keeping, Sending, body};

const CONTENT_TYPE: &str = "content-type";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const CORRELATION_ID: &str = "x-correlation-id";
/// W3C Baggage: what tracing libraries hand on by themselves.
const BAGGAGE: &str = "baggage";
/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The client of all HTTP steps.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    response_bytes_max: usize,
    documents: Option<Documents>,
}

impl Http {
    pub(crate) fn new(config: &HttpConfig, documents: Option<Documents>) -> anyhow::Result<Self> {
        let limits = Limits {
            response_bytes_max: config.response_bytes_max,
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            idle_connections_max: config.idle_connections_max,
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
        };
        // Operators apply flows, and their services are inside: no address is refused.
        let (client, response_bytes_max) = (Client::new(&limits, Guard::none())?, config.response_bytes_max);
        Ok(Self { client, response_bytes_max, documents })
    }

    /// Makes the call once. `trace` is the attempt's own span. `keep_as`: the name of the document that the answer
    /// becomes where it is to lie in the store; none where the answer is no output.
    pub(crate) async fn send(
        &self,
        call: &HttpCall,
        slip: &Slip,
        trace: &Trace,
        keep_as: Option<String>,
    ) -> HttpAnswer {
        let timeout = Duration::from_millis(call.timeout_ms);
        let attempt = self.attempt(call, slip, trace, keep_as);
        tokio::time::timeout(timeout, attempt).await.unwrap_or(HttpAnswer::TimedOut)
    }

    async fn attempt(&self, call: &HttpCall, slip: &Slip, trace: &Trace, keep_as: Option<String>) -> HttpAnswer {
        let Sending { body, failure } = match body(self.documents.as_ref(), slip, call.body.as_ref()).await {
            Ok(sending) => sending,
            Err(answer) => return answer,
        };
        let begun = self.client.begin(Call {
            method: &call.method,
            url: &call.url,
            headers: headers(call, trace, &slip.correlation_id),
            body,
            timeout: Duration::from_millis(call.timeout_ms),
        });
        let begun = begun.await;
        if let Some(answer) = failure.answer() {
            return answer;
        }
        let keeping = self.documents.as_ref().zip(keep_as).map(|(store, name)| Keeping { store, slip, name });
        match (begun, keeping) {
            (Begun::Whole(answer), None) => answer,
            (Begun::Whole(answer), Some(keeping)) => keeping.whole(answer).await,
            (Begun::Large(large), Some(keeping)) => keeping.large(*large).await,
            (Begun::Large(large), None) => large.refused(self.response_bytes_max),
        }
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
