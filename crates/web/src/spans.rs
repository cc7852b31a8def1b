//! The span of a request, `{method} {route}`: the cause that the first records of a job name.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use events::trace::Trace;
use service_kit::trace::{Kind, Span, is_on};

use crate::problem::Problem;
use crate::request_info::{JobInfo, RequestInfo, registered};

/// The name for any method that is not registered (OpenTelemetry's conventions for HTTP).
const OTHER_METHOD: &str = "_OTHER";

/// Begins the span of a request.
pub(crate) fn begin(info: Option<&RequestInfo>, incoming: Option<&Trace>) -> Span {
    let Some(info) = info.filter(|_| is_on()) else { return Span::none() };
    let method = known(&info.method);
    let span = Span::begin(Kind::Server, incoming.map(|trace| trace.context), || span_name(method, None));
    span.text("http.request.method", method).text("url.path", &info.path).text("url.scheme", "http");
    span
}

/// The route of a request, of which there are few, whatever callers ask for. Routes of a fallback are not the router's.
fn route(info: &RequestInfo, status: StatusCode) -> Option<&str> {
    let nothing_there = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status);
    info.route.as_deref().or_else(|| (!nothing_there).then_some(info.path.as_str()))
}

/// Records the answer on the span of its request. A 4xx is the caller's error, not ours.
pub(crate) fn answered(span: &Span, info: &RequestInfo, response: &Response) {
    if !span.is_recorded() {
        return;
    }
    let status = response.status();
    let route = route(info, status);
    span.rename(|| span_name(known(&info.method), route));
    span.number("http.response.status_code", i64::from(status.as_u16()));
    if let Some(route) = route {
        span.text("http.route", route);
    }
    if let Some(job) = info.job_of(response.extensions().get::<JobInfo>()) {
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

/// The method as a span names it. Any other word is the caller's choice, and would make too many names.
fn known(method: &Method) -> &'static str {
    registered(method).unwrap_or(OTHER_METHOD)
}

fn span_name(method: &str, route: Option<&str>) -> String {
    let method = if method == OTHER_METHOD { "HTTP" } else { method };
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_by_method_and_route_and_never_by_what_a_caller_makes_up() {
        let info = |route: Option<&str>| RequestInfo {
            method: Method::GET,
            route: route.map(str::to_owned),
            path: "/orders".to_owned(),
            job: None,
        };
        let routed = info(Some("/v1/jobs/{job}"));
        assert_eq!(route(&routed, StatusCode::NOT_FOUND), Some("/v1/jobs/{job}"));
        assert_eq!(route(&info(None), StatusCode::ACCEPTED), Some("/orders"), "a flow's own route");
        assert_eq!(route(&info(None), StatusCode::NOT_FOUND), None);
        assert_eq!(span_name("POST", Some("/orders")), "POST /orders");
        let invented = Method::from_bytes(b"BREW").unwrap();
        assert_eq!((known(&Method::DELETE), known(&invented)), ("DELETE", "_OTHER"));
        assert_eq!(span_name(known(&invented), None), "HTTP");
    }
}
