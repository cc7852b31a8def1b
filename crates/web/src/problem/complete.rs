//! The layer that makes every error response a complete problem.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use events::trace::TraceId;
use service_kit::health::Unready;

use super::{Foreign, Kind, MEDIA_TYPE, Problem};

/// The address at which callers reach this service, for absolute URIs: the configured one, else each request's `Host`.
#[derive(Debug, Clone, Default)]
pub struct PublicUrl {
    fixed: Option<Arc<str>>,
    /// Each request's `Host` is reached by `https`.
    has_tls: bool,
}

impl PublicUrl {
    /// A fixed address such as `https://api.example.com`; empty: each request's own.
    pub fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        Self { fixed: (!url.is_empty()).then(|| url.into()), has_tls: false }
    }

    /// The same at a port that speaks TLS.
    #[must_use]
    pub fn with_tls(self, has_tls: bool) -> Self {
        Self { has_tls, ..self }
    }

    /// The fixed address; empty where there is none.
    pub(crate) fn fixed(&self) -> &str {
        self.fixed.as_deref().unwrap_or_default()
    }

    /// The path below which callers reach this service, without a slash at its end: empty, or such as `/jobs-api`. A
    /// proxy takes it away from requests, so everything that an answer links to needs it.
    pub fn prefix(&self) -> &str {
        let url = self.fixed();
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        after_scheme.find('/').map_or("", |at| &after_scheme[at..])
    }

    /// The address for a request with these headers, without a slash at its end.
    pub fn for_request(&self, headers: &HeaderMap) -> String {
        self.for_host(headers.get(header::HOST))
    }

    fn for_host(&self, host: Option<&HeaderValue>) -> String {
        if let Some(url) = &self.fixed {
            return url.to_string();
        }
        let host = host.and_then(|host| host.to_str().ok()).filter(|host| is_host(host));
        let scheme = if self.has_tls { "https" } else { "http" };
        host.map(|host| format!("{scheme}://{host}")).unwrap_or_default()
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]_".contains(c))
}

/// In the extensions of a response: it is an answer that somebody else has formed, and stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct Verbatim;

/// Gives problems their absolute type and their instance, and turns error responses of any other kind (routing's 404
/// and 405, extractors' 413 and 415, panics) into problems. They name the request's [`TraceId`], where an outer layer
/// puts it into its extensions.
pub(crate) async fn complete_problem<F>(
    public_url: &PublicUrl,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    // Shared with the request: most answers are no errors, and need none of it.
    let host = request.headers().get(header::HOST).cloned();
    let uri = request.extensions().get::<OriginalUri>().map_or_else(|| request.uri().clone(), |uri| uri.0.clone());
    let method = request.method().clone();
    let trace_id = request.extensions().get::<TraceId>().copied();
    let mut response = next(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_verbatim = response.extensions_mut().remove::<Verbatim>().is_some();
    if !is_error || is_verbatim || response.extensions().get::<Foreign>().is_some() {
        return response;
    }
    let unready =
        response.extensions_mut().remove::<Unready>().map(|Unready(dependencies)| Problem::unready(&dependencies));
    let mut problem = match response.extensions_mut().remove::<Problem>().or(unready) {
        Some(problem) => problem,
        None if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE) => return response,
        None => Problem::new(Kind::of_status(status), format!("{method} {} was answered with {status}.", uri.path()))
            .with_status(status),
    };
    if problem.0.instance.is_none() {
        problem.0.instance = Some(format!("{}{}", public_url.prefix(), uri.path()));
    }
    if let (None, Some(trace_id)) = (&problem.0.trace_id, trace_id) {
        problem.0.trace_id = Some(trace_id.to_string());
    }
    let mut completed = problem.response(&public_url.for_host(host.as_ref()));
    // Headers of routing and inner layers stay (Allow, Vary, X-Correlation-ID); only those of the body change.
    for (name, value) in response.headers() {
        let about_the_body = [header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name);
        if !about_the_body && !completed.headers().contains_key(name) {
            completed.headers_mut().append(name, HeaderValue::clone(value));
        }
    }
    // Kept for outer layers: the request's span names it.
    completed.extensions_mut().insert(problem);
    completed
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::DefaultBodyLimit;
    use axum::http::StatusCode;
    use axum::middleware::{self, Next};
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn ask(
        public_url: &'static str,
        request: axum::http::request::Builder,
        body: &str,
    ) -> (StatusCode, HeaderMap, Value) {
        let app = Router::new()
            .route("/jobs", post(async |Json(body): Json<Value>| Json(body)))
            .route("/missing", get(async || Problem::new(Kind::UnknownJob, "No job 7.")))
            .layer(DefaultBodyLimit::max(20))
            .layer(middleware::from_fn(move |request: Request, next: Next| async move {
                complete_problem(&PublicUrl::new(public_url), request, |request| next.run(request)).await
            }));
        let response = app.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 4_096).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn errors_of_routing_and_extractors_are_problems_too() {
        let (status, headers, body) = ask("https://api.example.com/", Request::get("/nowhere"), "").await;
        assert_eq!((status.as_u16(), &headers["content-type"]), (404, &HeaderValue::from_static(MEDIA_TYPE)));
        assert_eq!(body["type"], "https://api.example.com/problems/not-found");
        assert_eq!(body["instance"], "/nowhere");
        let (status, headers, body) = ask("", Request::delete("/jobs").header("host", "localhost:8080"), "").await;
        assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "POST"));
        assert_eq!(body["type"], "http://localhost:8080/problems/method-not-allowed");
        let (status, _, body) = ask("", Request::post("/jobs"), "{}").await;
        assert_eq!((status.as_u16(), &body["type"]), (415, &"/problems/unsupported-media-type".into()));
        let json = || Request::post("/jobs").header("content-type", "application/json");
        let (status, _, body) = ask("", json(), r#"{"far": "too long for the limit"}"#).await;
        assert_eq!((status.as_u16(), &body["type"]), (413, &"/problems/payload-too-large".into()));
    }

    #[tokio::test]
    async fn below_a_path_of_a_proxy_the_instance_is_where_the_caller_sees_it() {
        let (_, _, body) = ask("https://api.example.com/jobs-api/", Request::get("/nowhere"), "").await;
        assert_eq!(body["type"], "https://api.example.com/jobs-api/problems/not-found");
        assert_eq!(body["instance"], "/jobs-api/nowhere");
        let prefix = |url: &str| PublicUrl::new(url).prefix().to_owned();
        assert_eq!(["", "http://a", "http://a:1/", "/b", "http://a/b/c/"].map(prefix), ["", "", "", "/b", "/b/c"]);
    }

    #[tokio::test]
    async fn a_problem_keeps_its_own_words_and_gains_type_and_instance() {
        let (status, _, body) = ask("https://api.example.com", Request::get("/missing"), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body["type"], "https://api.example.com/problems/unknown-job");
        assert_eq!((&body["detail"], &body["instance"]), (&"No job 7.".into(), &"/missing".into()));
    }

    #[tokio::test]
    async fn what_is_no_error_and_a_hostile_host_change_nothing() {
        let json = Request::post("/jobs").header("content-type", "application/json");
        let (status, _, body) = ask("", json, r#"{"a":1}"#).await;
        assert_eq!((status, &body["a"]), (StatusCode::OK, &1.into()));
        let (_, _, body) = ask("", Request::get("/nowhere").header("host", "a\"b/c"), "").await;
        assert_eq!(body["type"], "/problems/not-found");
    }
}
