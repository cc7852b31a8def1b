//! The SDK for callers: submit jobs, list them, follow them, retry them; see dead letters and send them back.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # async fn order() -> Result<(), client::Error> {
//! let client = client::Client::new("http://127.0.0.1:8080")?;
//! let input = r#"{"customer_id": "ada", "sku": "tea"}"#;
//! // One key stands for one job, so this may be repeated after any failure.
//! let accepted = client.submit("order", input, Some("order-17")).await?;
//! let status = client.wait_for_end(&accepted.job, Duration::from_millis(200)).await?;
//! println!("{:?}: {:?}", status.status, status.result);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod access;
mod audit;
mod breakers;
mod bulk;
mod dead_letters;
mod error;
mod flags;
mod job;
mod jobs;
mod keys;
mod start;
mod stats;
mod webhooks;

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded::Serializer;

pub use access::Access;
pub use audit::{AuditChoice, AuditEntry};
pub use breakers::{Breaker, BreakerOrder};
pub use bulk::{BulkOrder, DoneInBulk};
pub use dead_letters::{Choice, DeadLetter, DeadLetters, FailedIn, Left, Redrive, RedriveMany, Redriven};
pub use error::{Error, InvalidInput, NotAUrl, Problem};
pub use flags::{EffectiveFlags, FlagsVersion, FlowFlags};
pub use job::{
    CancelWish, Event, Events, Failure, JobState, Progress, Status, Step, StepProgress, TaggedStatus, Verdict,
    WaitingFor,
};
pub use jobs::{JobChoice, Jobs, ListedJob};
pub use keys::{ApiKey, NewApiKey};
pub use start::{Callback, Secret, Start, Terms};
pub use stats::{Durations, FlowStats, JobCounts, StepCounts};
pub use webhooks::{DeliveryChoice, NewWebhookEndpoint, WebhookDelivery, WebhookEndpoint};

/// The time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for which the API is asked to wait for a change: less than the limit of a request.
const WAIT: Duration = Duration::from_secs(20);
/// The pause between two attempts of [`Client::submit_patiently`], unless the API asks for another one.
const RETRY: Duration = Duration::from_millis(100);

/// An API of Meanwhile. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// An accepted job: it is durable and will run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The job's id, a UUID.
    pub job: String,
    /// True when this key had been used before: the job is the one of the first request.
    pub replayed: bool,
}

impl Client {
    /// `url` is the API's root, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// [`Error::Unusable`]: the settings of this process allow no HTTP client (a malformed proxy, say).
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::with_access(url, &Access::default())
    }

    /// The same for an API that asks who its callers are. `key`: an API key, or a token.
    ///
    /// # Errors
    /// As [`Client::new`]; or no header can have this key.
    pub fn with_key(url: &str, key: &str) -> Result<Self, Error> {
        Self::with_access(url, &Access { key: Some(key.to_owned()), ..Access::default() })
    }

    /// The same with an authority of one's own, or a certificate of the caller.
    ///
    /// # Errors
    /// As [`Client::with_key`]; or a file cannot be used.
    pub fn with_access(url: &str, access: &Access) -> Result<Self, Error> {
        // A process has one provider; one that is installed already serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = access.files_for(proxies::client_builder().map_err(|error| Error::Unusable(error.into()))?)?;
        let http = builder
            .timeout(REQUEST_TIMEOUT)
            .default_headers(access.headers()?)
            .build()
            .map_err(|error| Error::Unusable(error.into()))?;
        Ok(Self { http, url: String::new() }.at(url))
    }

    /// The same client for another API's root; connections are shared.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { http: self.http.clone(), url: url.trim_end_matches('/').to_owned() }
    }

    /// The API's root, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Submits a job. `input` is JSON. With an idempotency key, a repeated request is the same job.
    ///
    /// # Errors
    /// [`Error::Problem`] when the API refuses; nothing was stored then. [`Error::Unreachable`] leaves open whether the
    /// job was accepted: repeat the request with the same key.
    pub async fn submit(&self, flow: &str, input: impl Into<String>, key: Option<&str>) -> Result<Accepted, Error> {
        self.submit_on(flow, input, &Terms { key, ..Terms::default() }).await
    }

    /// As [`Client::submit`], repeated through broken connections and passing refusals (409, 429, 5xx) for as long as
    /// `patience` says.
    ///
    /// # Errors
    /// A refusal that repeating does not change, or the last failure when the patience has ended.
    pub async fn submit_patiently(
        &self,
        flow: &str,
        input: impl Into<String>,
        key: &str,
        patience: Duration,
    ) -> Result<Accepted, Error> {
        let (input, deadline) = (input.into(), Instant::now() + patience);
        loop {
            match self.submit(flow, input.clone(), Some(key)).await {
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    tokio::time::sleep(error.retry_after().unwrap_or(RETRY)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends a parked or waiting job on from where it stopped, or starts a finished one anew as another job. Returns
    /// the job that runs now.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn retry(&self, job: &str, key: Option<&str>) -> Result<Accepted, Error> {
        self.accepted(self.http.post(format!("{}/v1/jobs/{job}/retry", self.url)), key).await
    }

    /// Says how the step has ended at which a job is parked because nobody knows: it was done, with this output (JSON),
    /// or it was not. The job goes on as if the service had said so.
    ///
    /// # Errors
    /// [`Error::Problem`] when the job is not parked at such a step. Otherwise as [`Client::submit`].
    pub async fn rule(&self, job: &str, verdict: &Verdict) -> Result<Accepted, Error> {
        let request = self.http.post(format!("{}/v1/jobs/{job}/retry", self.url));
        self.accepted(request.json(&verdict.body()), None).await
    }

    /// Sends a job a signal, for which one of its steps waits or will. `payload` is JSON. With an idempotency key, a
    /// repeated request is the same signal.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn signal(
        &self,
        job: &str,
        name: &str,
        payload: Option<String>,
        key: Option<&str>,
    ) -> Result<Accepted, Error> {
        let mut request = self.http.post(format!("{}/v1/jobs/{job}/signals/{name}", self.url));
        if let Some(payload) = payload {
            request = request.header(CONTENT_TYPE, "application/json").body(payload);
        }
        self.accepted(request, key).await
    }

    /// Asks for a job to be cancelled: what it has done is undone. Asking again changes nothing. A job that is
    /// cancelled already stays so.
    ///
    /// # Errors
    /// [`Error::Problem`] when there is no such job, or when it has ended otherwise. [`Error::Unreachable`] leaves open
    /// whether it is cancelled: ask again.
    pub async fn cancel(&self, job: &str, reason: Option<&str>) -> Result<(), Error> {
        let request = self.http.delete(format!("{}/v1/jobs/{job}", self.url));
        let request = match reason {
            Some(reason) => request.json(&serde_json::json!({ "reason": reason })),
            None => request,
        };
        self.answered(request).await.map(drop)
    }

    /// The job's status.
    ///
    /// # Errors
    /// [`Error::Problem`] when there is no such job.
    pub async fn status(&self, job: &str) -> Result<Status, Error> {
        self.get(&format!("/v1/jobs/{job}")).await
    }

    /// The job's status as the API sent it.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn status_document(&self, job: &str) -> Result<Value, Error> {
        self.get(&format!("/v1/jobs/{job}")).await
    }

    /// The job's events after a cursor ([`Events::next`]); all of them where it is none.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn events(&self, job: &str, after: Option<&str>) -> Result<Events, Error> {
        self.get(&format!("/v1/jobs/{job}/events?after={}", after.unwrap_or_default())).await
    }

    /// The same as the API sent them.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn events_document(&self, job: &str, after: Option<&str>) -> Result<Value, Error> {
        self.get(&format!("/v1/jobs/{job}/events?after={}", after.unwrap_or_default())).await
    }

    /// The job's status as soon as it is another one than `known` ([`TaggedStatus::tag`]); at once where that is none.
    /// None if nothing has happened for a while, or if the API cannot wait now: ask again a little later.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn next_status(&self, job: &str, known: Option<&str>) -> Result<Option<TaggedStatus>, Error> {
        let wait_s = if known.is_some() { WAIT.as_secs() } else { 0 };
        let mut request = self.http.get(format!("{}/v1/jobs/{job}?wait={wait_s}", self.url));
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(refusal(status, &headers, answer).await);
        }
        let tag = text(&headers, ETAG.as_str()).map(str::to_owned);
        Ok(Some(TaggedStatus { status: answer.json().await.map_err(Error::Unreadable)?, tag }))
    }

    /// Waits until the job has ended or is parked. The API tells of each change as it happens; where it cannot, it is
    /// asked every `interval`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn wait_for_end(&self, job: &str, interval: Duration) -> Result<Status, Error> {
        let mut known = None;
        loop {
            match self.next_status(job, known.as_deref()).await? {
                Some(TaggedStatus { status, .. }) if status.status.is_at_rest() => return Ok(status),
                Some(TaggedStatus { tag: Some(tag), .. }) => known = Some(tag),
                Some(TaggedStatus { tag: None, .. }) | None => tokio::time::sleep(interval).await,
            }
        }
    }

    /// The names of the flows that can be called now.
    ///
    /// # Errors
    /// The API is not ready.
    pub async fn flows(&self) -> Result<Vec<String>, Error> {
        let flows: job::FlowList = self.get("/v1/flows").await?;
        Ok(flows.flows.into_iter().map(|flow| flow.flow).collect())
    }

    /// The active flows as the API sent them.
    ///
    /// # Errors
    /// The API is not ready.
    pub async fn flows_document(&self) -> Result<Value, Error> {
        self.get("/v1/flows").await
    }

    /// True if the API and everything that it depends on is ready.
    pub async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn accepted(&self, mut request: RequestBuilder, key: Option<&str>) -> Result<Accepted, Error> {
        if let Some(key) = key {
            request = request.header("idempotency-key", quoted(key));
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status != StatusCode::ACCEPTED {
            return Err(refusal(status, &headers, answer).await);
        }
        let location = text(&headers, LOCATION.as_str()).ok_or(Error::NoLocation)?;
        let job = location.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Accepted { job, replayed: text(&headers, "idempotent-replayed") == Some("true") })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.answered(self.http.get(format!("{}{path}", self.url))).await?.json().await.map_err(Error::Unreadable)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        self.answered(request).await?.json().await.map_err(Error::Unreadable)
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.answered(self.http.delete(format!("{}{path}", self.url))).await.map(drop)
    }

    async fn answered(&self, request: RequestBuilder) -> Result<reqwest::Response, Error> {
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if !status.is_success() {
            return Err(refusal(status, &headers, answer).await);
        }
        Ok(answer)
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        // No request could be made of it.
        if source.is_builder()
            && let Err(error) = error::check_url(&self.url)
        {
            return error;
        }
        Error::Unreachable { url: self.url.clone(), source }
    }
}

async fn refusal(status: StatusCode, headers: &HeaderMap, answer: reqwest::Response) -> Error {
    let retry_after = text(headers, RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
    match answer.bytes().await {
        Ok(body) => {
            Error::Problem(Box::new(Problem::read(status.as_u16(), retry_after.map(Duration::from_secs), &body)))
        }
        Err(error) => Error::Unreadable(error),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The query of a page: its limit, and what is chosen by name.
fn page_query<'a>(limit: u32, named: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    query.extend_pairs(named.into_iter().filter_map(|(name, value)| Some((name, value?))));
    query.finish()
}

/// A structured header's string (RFC 9651).
fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_as_a_structured_string() {
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
