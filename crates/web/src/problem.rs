//! Errors over HTTP, for people and programs: problem details (RFC 9457), from one catalogue.
//!
//! A problem has two messages: the public text, and the cause, which is logged once, where the response is made.
//! `complete_problem` is the layer that completes each problem (absolute type, instance) and turns any other error
//! response into one.

mod catalogue;
mod complete;
mod page;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use service_kit::health::{Dependency, missing};

pub use catalogue::{CATALOGUE, Entry, Kind};
pub(crate) use complete::complete_problem;
pub use complete::{PublicUrl, Verbatim};
pub use page::{index, page, router};

/// The media type of problem details.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// In the extensions of an answer: another service gave it, and it is passed on as it is.
#[derive(Debug, Clone, Copy)]
pub struct Foreign;

/// One error of one request. [`IntoResponse`] makes the response.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    status: StatusCode,
    detail: String,
    remediation: Option<String>,
    instance: Option<String>,
    job: Option<String>,
    trace_id: Option<String>,
    members: Map<String, Value>,
    headers: HeaderMap,
    cause: Option<String>,
}

impl Problem {
    /// A problem of the catalogue; `detail` describes this occurrence for the caller (no secrets).
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            status: kind.entry().status_code(),
            detail: detail.into(),
            remediation: None,
            instance: None,
            job: None,
            trace_id: None,
            members: Map::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// A failure of our own: the caller is told that it was ours, and the log the cause.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Internal, "The request could not be served. Nothing of it was accepted.").caused_by(cause)
    }

    /// The answer of `/readyz` while dependencies are missing.
    pub fn unready(dependencies: &[Dependency]) -> Self {
        Self::new(Kind::NotReady, missing(dependencies)).with("dependencies", json!(dependencies))
    }

    /// The cause, for the log only: it is written once, where the response is made.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.0.cause = Some(format!("{:#}", cause.into()));
        self
    }

    /// Another status than the catalogue's (a step's own 4xx that is exposed).
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Advice on the next step, in place of the catalogue's.
    #[must_use]
    pub fn with_remediation(mut self, remediation: impl Into<String>) -> Self {
        self.0.remediation = Some(remediation.into());
        self
    }

    /// The URI reference of this occurrence; `complete_problem` fills in the request's path.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.0.instance = Some(instance.into());
        self
    }

    /// The job that it is about.
    #[must_use]
    pub fn with_job(mut self, job: impl ToString) -> Self {
        self.0.job = Some(job.to_string());
        self
    }

    /// The trace in which it happened, 32 hex digits.
    #[must_use]
    pub fn with_trace_id(mut self, trace_id: impl Into<String>) -> Self {
        self.0.trace_id = Some(trace_id.into());
        self
    }

    /// An extension member, such as `errors`.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(member.to_owned(), value.into());
        self
    }

    /// A header of the response, such as `Allow`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// `Retry-After` in whole seconds.
    #[must_use]
    pub fn retry_after_s(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The kind of the problem, which is its row in the catalogue.
    pub const fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The public text: the event, for this caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The document (RFC 9457 section 3.1). `public_url` makes `type` absolute: the address of this service, without a
    /// slash at its end.
    pub fn document(&self, public_url: &str) -> Value {
        let Parts { kind, status, detail, remediation, instance, job, trace_id, members, .. } = &*self.0;
        let entry = kind.entry();
        let mut document = Map::new();
        let mut set = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                document.insert(name.to_owned(), value.into());
            }
        };
        set("type", Some(&format!("{public_url}/problems/{}", entry.name)));
        set("title", Some(entry.title));
        set("detail", Some(detail));
        set("instance", instance.as_deref());
        set("remediation", Some(remediation.as_deref().unwrap_or(entry.remediation)));
        set("job", job.as_deref());
        set("trace_id", trace_id.as_deref());
        document.insert("status".to_owned(), status.as_u16().into());
        document.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
        Value::Object(document)
    }

    fn response(&self, public_url: &str) -> Response {
        let mut headers = self.0.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        (self.0.status, headers, self.document(public_url).to_string()).into_response()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.0.kind.entry().title, self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.0.cause {
            tracing::error!(
                problem = self.0.kind.entry().name,
                status = self.0.status.as_u16(),
                cause,
                "request failed"
            );
        }
        let mut response = self.response("");
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    #[tokio::test]
    async fn a_problem_becomes_a_response_with_its_type_status_and_members() {
        let problem = Problem::new(Kind::SchemaViolation, "The body has 1 error.")
            .with("errors", json!([{ "detail": "must be a number", "pointer": "/qty" }]))
            .with_job("0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d")
            .retry_after_s(3);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        assert_eq!(response.headers()["retry-after"], "3");
        let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 4_096).await.unwrap()).unwrap();
        assert_eq!(body["type"], "/problems/schema-violation");
        assert_eq!(body["status"], 422);
        assert_eq!(body["errors"][0]["pointer"], "/qty");
        assert_eq!(body["job"], "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d");
    }

    #[tokio::test]
    async fn the_cause_never_reaches_the_caller() {
        let response = Problem::internal(anyhow::anyhow!("password=hunter2")).into_response();
        let body = to_bytes(response.into_body(), 4_096).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
    }
}
