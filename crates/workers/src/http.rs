//! Makes the call of an HTTP step and says what became of it, above all whether the other side may have seen it.

use std::time::Duration;

use anyhow::Context;
use events::header;
use events::trace::Trace;
use flow::decide::{HttpAnswer, HttpCall};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};

use crate::config::HttpConfig;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The client of all HTTP steps; connections are kept and used again.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    response_bytes_max: usize,
}

impl Http {
    pub(crate) fn new(config: &HttpConfig) -> anyhow::Result<Self> {
        service_kit::tls::install_ring();
        let client = Client::builder()
            // A redirect is an answer like any other: following it could repeat a POST at another place.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .pool_max_idle_per_host(config.idle_connections_max)
            .pool_idle_timeout(Duration::from_millis(config.idle_timeout_ms))
            .tcp_nodelay(true)
            .build()
            .context("the client of HTTP steps")?;
        Ok(Self { client, response_bytes_max: config.response_bytes_max })
    }

    /// Makes the call once. `trace` is the attempt's own span.
    pub(crate) async fn send(&self, call: &HttpCall, trace: &Trace, correlation_id: &str) -> HttpAnswer {
        let timeout = Duration::from_millis(call.timeout_ms);
        let attempt = self.attempt(call, trace, correlation_id);
        tokio::time::timeout(timeout, attempt).await.unwrap_or(HttpAnswer::TimedOut)
    }

    async fn attempt(&self, call: &HttpCall, trace: &Trace, correlation_id: &str) -> HttpAnswer {
        let method = match Method::from_bytes(call.method.as_bytes()) {
            Ok(method) => method,
            Err(error) => return HttpAnswer::Unsendable(error.to_string()),
        };
        let headers = match headers(call, trace, correlation_id) {
            Ok(headers) => headers,
            Err(reason) => return HttpAnswer::Unsendable(reason),
        };
        let mut request = self.client.request(method, &call.url).headers(headers);
        if let Some(body) = &call.body {
            request = request.body(body.to_string());
        }
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => what_became_of(error),
        }
    }

    /// Reads the answer as far as it may be long.
    async fn read(&self, mut response: Response) -> HttpAnswer {
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.response_bytes_max => {
                    body.extend_from_slice(&chunk);
                }
                // Of a success the whole body is the output; of anything else the beginning says enough.
                Ok(Some(_)) if status.is_success() => {
                    let limit_bytes = self.response_bytes_max as u64;
                    return HttpAnswer::TooLarge { status: status.as_u16(), limit_bytes };
                }
                Ok(Some(_) | None) => return HttpAnswer::Response { status: status.as_u16(), retry_after, body },
                Err(error) => return what_became_of(error),
            }
        }
    }
}

fn headers(call: &HttpCall, trace: &Trace, correlation_id: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(call.headers.len() + 5);
    if call.body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &call.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("`{name}` has a value that no header can have"))?;
        headers.insert(name, value);
    }
    // Ours come last: they win over the flow's own.
    let key = HeaderValue::from_str(&call.idempotency_key).map_err(|_| "the idempotency key is no header value")?;
    headers.insert(IDEMPOTENCY_KEY, key);
    for (name, value) in trace.headers() {
        let name = if name == header::TRACEPARENT { header::TRACEPARENT } else { header::TRACESTATE };
        if let Ok(value) = HeaderValue::from_bytes(&value.unwrap_or_default()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(correlation_id) {
        headers.insert(CORRELATION_ID, value);
    }
    Ok(headers)
}

/// Whether the other side may have seen the request. The URL stays out of the words: it may hold a secret.
fn what_became_of(error: reqwest::Error) -> HttpAnswer {
    let error = error.without_url();
    let words = words_of(&error);
    if error.is_builder() {
        HttpAnswer::Unsendable(words)
    } else if error.is_connect() {
        HttpAnswer::ConnectFailed(words)
    } else if error.is_timeout() {
        HttpAnswer::TimedOut
    } else {
        HttpAnswer::ConnectionLost(words)
    }
}

/// The innermost cause says it best.
fn words_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
