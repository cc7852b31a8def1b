//! The call of an HTTP step: the flow's own headers, and those that every step gets.

use std::sync::Arc;
use std::time::Duration;

use documents::Documents;
use events::trace::Trace;
use flow::decide::{HttpAnswer, HttpCall, TokenClient, TokenRefused};
use flow::slip::Slip;
use outbound::{Begun, Call, Client, Guard, Limits};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use crate::attempt_log::REDACTED;
use crate::config::HttpConfig;
use crate::payloads::{Keeping, Sending, body};
use crate::tokens::Tokens;

const AUTHORIZATION: &str = "authorization";
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
    client: Arc<Client>,
    tokens: Tokens,
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
        let (client, response_bytes_max) = (Arc::new(Client::new(&limits, Guard::none())?), config.response_bytes_max);
        let tokens = Tokens::new(Arc::clone(&client));
        Ok(Self { client, tokens, response_bytes_max, documents })
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
        let end = Instant::now() + Duration::from_millis(call.timeout_ms);
        let authorization =
            call.headers.iter().find(|(name, _)| name == AUTHORIZATION).map(|(_, value)| value.as_str());
        let Some(client) = &call.token_client else {
            let answer = self.until(end, call, None, slip, trace, keep_as).await;
            return without(answer, authorization.unwrap_or_default());
        };
        let token = match self.token(client, None, end).await {
            Ok(token) => token,
            Err(answer) => return answer,
        };
        let answer = self.until(end, call, Some(&token), slip, trace, keep_as.clone()).await;
        if !matches!(answer, HttpAnswer::Response { status: 401, .. }) {
            return without(answer, &token);
        }
        // It may have ended before its time. The service did nothing, so the call may be made once more.
        let renewed = match self.token(client, Some(&token), end).await {
            Ok(renewed) => renewed,
            Err(answer) => return answer,
        };
        let answer = self.until(end, call, Some(&renewed), slip, trace, keep_as).await;
        without(without(answer, &renewed), &token)
    }

    /// The token for a call that is to end until then. As long as there is none, nothing is sent.
    async fn token(&self, client: &TokenClient, rejected: Option<&str>, end: Instant) -> Result<Arc<str>, HttpAnswer> {
        let token = tokio::time::timeout_at(end, self.tokens.of(client, rejected)).await;
        token.unwrap_or_else(|_| Err(client.out_of_time())).map_err(|refused| {
            let TokenRefused { cause, passing, retry_after } = refused;
            HttpAnswer::NoToken { cause, passing, retry_after }
        })
    }

    async fn until(
        &self,
        end: Instant,
        call: &HttpCall,
        token: Option<&str>,
        slip: &Slip,
        trace: &Trace,
        keep_as: Option<String>,
    ) -> HttpAnswer {
        let attempt = self.attempt(call, token, slip, trace, keep_as);
        tokio::time::timeout_at(end, attempt).await.unwrap_or(HttpAnswer::TimedOut)
    }

    async fn attempt(
        &self,
        call: &HttpCall,
        token: Option<&str>,
        slip: &Slip,
        trace: &Trace,
        keep_as: Option<String>,
    ) -> HttpAnswer {
        let Sending { body, failure } = match body(self.documents.as_ref(), slip, call.body.as_ref()).await {
            Ok(sending) => sending,
            Err(answer) => return answer,
        };
        let begun = self.client.begin(Call {
            method: &call.method,
            url: &call.url,
            headers: headers(call, token, trace, &slip.correlation_id),
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

/// The answer without a credential that the service repeats: of a refusal, words may reach the job's caller.
fn without(answer: HttpAnswer, credential: &str) -> HttpAnswer {
    let credential = credential.split_once(' ').map_or(credential, |(_, credential)| credential);
    match answer {
        HttpAnswer::Response { status, retry_after, content_type, headers, body }
            if !credential.is_empty() && !(200..300).contains(&status) =>
        {
            let body = match std::str::from_utf8(&body) {
                Ok(text) if text.contains(credential) => text.replace(credential, REDACTED).into_bytes(),
                _ => body,
            };
            HttpAnswer::Response { status, retry_after, content_type, headers, body }
        }
        other => other,
    }
}

fn headers<'a>(
    call: &'a HttpCall,
    token: Option<&str>,
    trace: &Trace,
    correlation_id: &str,
) -> Vec<(&'a str, Vec<u8>)> {
    let mut headers = Vec::with_capacity(call.headers.len() + 6);
    if call.body.is_some() {
        headers.push((CONTENT_TYPE, b"application/json".to_vec()));
    }
    for (name, value) in &call.headers {
        headers.push((name.as_str(), value.clone().into_bytes()));
    }
    headers.extend(token.map(|token| (AUTHORIZATION, format!("Bearer {token}").into_bytes())));
    // Ours come last: they win over the flow's own.
    headers.extend(call.idempotency_key.clone().map(|key| (IDEMPOTENCY_KEY, key.into_bytes())));
    headers.extend(trace.texts().map(|(name, value)| (name, value.into_bytes())));
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
