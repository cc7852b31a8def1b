//! The spans of this service: `{method} {route}` per request, `process <topic>` per command. Both are what the job's
//! first records name as their cause.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use bus::Inbound;
use events::trace::Trace;
use service_kit::problem::Problem;
use service_kit::trace::{Kind, Message, Span, is_on};

use crate::address::{is_quiet, job_of, registered};

/// What stands for any other method (OpenTelemetry's conventions for HTTP).
const OTHER_METHOD: &str = "_OTHER";

/// Begins the span of a request. Probes and scrapers get none.
pub(crate) fn request(request: &Request, incoming: Option<&Trace>) -> Span {
    if !is_on() || is_quiet(request.uri().path()) {
        return Span::none();
    }
    let method = known(request.method());
    let span = Span::begin(Kind::Server, incoming.map(|trace| trace.context), || span_name(method, None));
    span.text("http.request.method", method).text("url.path", request.uri().path()).text("url.scheme", "http");
    span
}

/// What has to be remembered of a request for its span.
pub(crate) struct Asked {
    method: &'static str,
    /// As the router knows it; a flow's own route is none of the router's.
    route: Option<String>,
    path: String,
}

impl Asked {
    /// None where nothing is kept of the span.
    pub(crate) fn of(request: &Request, span: &Span) -> Option<Self> {
        let route = || request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        span.is_recorded().then(|| Self {
            method: known(request.method()),
            route: route(),
            path: request.uri().path().to_owned(),
        })
    }

    /// The route: few different ones, whatever callers ask for.
    fn route(&self, status: StatusCode) -> Option<&str> {
        let nothing_there = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status);
        self.route.as_deref().or_else(|| (!nothing_there).then_some(self.path.as_str()))
    }
}

/// Tells the span of a request what was answered. A 4xx is the caller's error, not ours.
pub(crate) fn answered(span: &Span, asked: &Asked, response: &Response) {
    let status = response.status();
    let route = asked.route(status);
    span.rename(|| span_name(asked.method, route));
    span.number("http.response.status_code", i64::from(status.as_u16()));
    if let Some(route) = route {
        span.text("http.route", route);
    }
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    if let Some(job) = location.and_then(job_of).or_else(|| job_of(&asked.path)) {
        span.text("meanwhile.job.id", job);
    }
    match response.extensions().get::<Problem>() {
        Some(problem) if status.is_server_error() => span.fail(problem.kind().entry().name, problem.detail()),
        Some(problem) => {
            span.text("meanwhile.problem", problem.kind().entry().name);
        }
        None if status.is_server_error() => span.fail(status.as_u16(), status),
        None => {}
    }
}

/// The methods that a span names; any other word is the caller's, and would make a name of its own.
fn known(method: &Method) -> &'static str {
    registered(method).unwrap_or(OTHER_METHOD)
}

fn span_name(method: &str, route: Option<&str>) -> String {
    let method = if method == OTHER_METHOD { "HTTP" } else { method };
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// Begins the span of a command.
pub(crate) fn command(record: &Inbound, prefix: &str) -> Span {
    if !is_on() {
        return Span::none();
    }
    let cause = Trace::from_headers(&record.headers).map(|trace| trace.context);
    let message = Message { topic: &record.topic, key: record.key.as_deref(), job: None, cause };
    Span::process(&message, format_args!("{prefix}-ingest"), record.partition, record.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_by_method_and_route_and_never_by_what_a_caller_makes_up() {
        let asked =
            |route: Option<&str>| Asked { method: "GET", route: route.map(str::to_owned), path: "/orders".to_owned() };
        assert_eq!(asked(Some("/v1/jobs/{job}")).route(StatusCode::NOT_FOUND), Some("/v1/jobs/{job}"));
        assert_eq!(asked(None).route(StatusCode::ACCEPTED), Some("/orders"), "a flow's own route");
        assert_eq!(asked(None).route(StatusCode::NOT_FOUND), None);
        assert_eq!(span_name("POST", Some("/orders")), "POST /orders");
        let invented = Method::from_bytes(b"BREW").unwrap();
        assert_eq!((known(&Method::DELETE), known(&invented)), ("DELETE", "_OTHER"));
        assert_eq!(span_name(known(&invented), None), "HTTP");
    }
}
