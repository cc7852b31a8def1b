//! One attempt of a delivery: signed, sent, judged.

use std::time::{Duration, Instant};

use events::trace::TraceContext;
use flow::decide::HttpAnswer;
use outbound::signature::{NotASecret, Secret};
use outbound::{Allowed, Body, Call, Client, Guard, Limits};
use service_kit::Clock;
use service_kit::trace::{Kind as SpanKind, Span};
use store::webhooks::{Due, Kind, Signing, message_id};
use url::Url;

use crate::schedule::{Schedule, Verdict};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 16_384;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS_MAX: usize = 10;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes attempts.
#[derive(Debug)]
pub(crate) struct Sender {
    client: Client,
    schedule: Schedule,
    timeout: Duration,
    clock: Clock,
}

/// An attempt that has ended.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) due: Due,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

impl Sender {
    pub(crate) fn new(allowed: Allowed, schedule: Schedule, timeout: Duration, clock: Clock) -> anyhow::Result<Self> {
        let limits = Limits {
            response_bytes_max: ANSWER_BYTES_MAX,
            connect_timeout: CONNECT_TIMEOUT,
            idle_connections_max: IDLE_CONNECTIONS_MAX,
            idle_timeout: IDLE_TIMEOUT,
        };
        Ok(Self { client: Client::new(&limits, Guard::new(allowed))?, schedule, timeout, clock })
    }

    pub(crate) async fn send(&self, due: Due) -> Sent {
        let began = Instant::now();
        let id = message_id(due.id);
        let span = span(&due);
        let answer = self.call(&due, &id, &span).await;
        let mut verdict = self.schedule.judge(answer, (&id, due.failures), self.clock.now_ms());
        if due.of_job && verdict.is_gone {
            // An endpoint's wait until it is enabled; this one's webhook has ended.
            verdict.again_in_ms = None;
        }
        if let Some(status) = verdict.status {
            span.number("http.response.status_code", i64::from(status));
        }
        if let Some(error) = verdict.error {
            span.fail(error, verdict.detail.as_deref().unwrap_or_default());
        }
        Sent { due, verdict, took: began.elapsed() }
    }

    async fn call(&self, due: &Due, id: &str, span: &Span) -> HttpAnswer {
        let timestamp_s = self.clock.now_ms() / 1_000;
        let signatures = due.signing.as_ref().map(|signing| signatures(signing, id, timestamp_s, &due.body));
        let signatures = match signatures.transpose() {
            Ok(signatures) => signatures,
            Err(error) => return HttpAnswer::Unsendable(error.to_string()),
        };
        let mut headers = vec![
            ("content-type", b"application/json".to_vec()),
            ("webhook-id", id.as_bytes().to_vec()),
            ("webhook-timestamp", timestamp_s.to_string().into_bytes()),
        ];
        headers.extend(signatures.map(|signatures| ("webhook-signature", signatures.into_bytes())));
        let parent = due.traceparent.clone().into_iter();
        let below = span.point().map(|context| context.to_string());
        headers.extend(below.into_iter().chain(parent).take(1).map(|text| ("traceparent", text.into_bytes())));
        let body = Some(Body::Bytes(due.body.clone()));
        self.client.send(Call { method: "POST", url: &due.url, headers, body, timeout: self.timeout }).await
    }
}

/// All signatures: of the present secret, and of the one before while it is still known.
fn signatures(signing: &Signing, id: &str, timestamp_s: i64, body: &[u8]) -> Result<String, NotASecret> {
    let secrets = std::iter::once(&signing.secret).chain(&signing.old_secret);
    let sign = |bytes: &Vec<u8>| {
        let secret = match signing.kind {
            Kind::Hmac => Secret::Hmac(bytes),
            Kind::Ed25519 => Secret::Ed25519(bytes),
        };
        secret.sign(id, timestamp_s, body)
    };
    Ok(secrets.map(sign).collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// Begins the span of an attempt, in the job's trace: `POST {type}`. The URL may hold a secret: only its host is told.
fn span(due: &Due) -> Span {
    let cause: Option<TraceContext> = due.traceparent.as_deref().and_then(|text| text.parse().ok());
    let span = Span::begin(SpanKind::Client, cause, || format!("POST {}", due.kind));
    if span.is_recorded() {
        span.text("http.request.method", "POST").text("meanwhile.webhook.id", due.id);
        if let Some(job) = due.job {
            span.text("meanwhile.job.id", job);
        }
        if let Ok(url) = Url::parse(&due.url) {
            span.text("server.address", url.host_str().unwrap_or_default());
            span.number("server.port", i64::from(url.port_or_known_default().unwrap_or_default()));
        }
        if due.attempt > 1 {
            span.number("http.request.resend_count", i64::from(due.attempt - 1));
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_secrets_sign_while_one_replaces_the_other() {
        let signing = Signing { kind: Kind::Hmac, secret: vec![1; 32], old_secret: Some(vec![2; 32]) };
        let both = signatures(&signing, "msg_1", 1, b"{}").unwrap();
        let alone = |byte: u8| Secret::Hmac(&[byte; 32]).sign("msg_1", 1, b"{}").unwrap();
        assert_eq!(both, format!("{} {}", alone(1), alone(2)));
    }
}
