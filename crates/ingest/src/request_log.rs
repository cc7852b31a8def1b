//! One log line per request, where the answer leaves, and what is counted of it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::address::{is_quiet, job_of, registered};
use crate::context::RequestContext;

/// The route of what matched none.
const NO_ROUTE: &str = "(none)";

/// In the extensions of every request: the fallback notes in it the flow's own route that it found, which is no route
/// of the router. Paths themselves are anybody's to choose, and so no labels.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlowRoute(Arc<OnceLock<String>>);

impl FlowRoute {
    pub(crate) fn note(&self, route: &str) {
        self.0.get_or_init(|| route.to_owned());
    }
}

/// Put into the extensions of a response that accepted a job (or found the one that its key stands for).
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub(crate) flow: String,
    pub(crate) tenant: String,
}

/// Middleware: counts a request, and logs its method, route, status, duration, trace and job. No bodies, no queries, no
/// secrets.
pub(crate) async fn log(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // A flow's own route is no route of the router.
    let path = request.uri().path().to_owned();
    let trace_id = request.extensions().get::<RequestContext>().map(RequestContext::trace_id);
    let flow_route = FlowRoute::default();
    request.extensions_mut().insert(flow_route.clone());
    let response = next.run(request).await;
    let took = started.elapsed();
    let route = matched.as_deref().unwrap_or(&path);
    if !is_quiet(route) {
        let known = matched.as_deref().or_else(|| flow_route.0.get().map(String::as_str));
        count(known.unwrap_or(NO_ROUTE), &method, response.status(), took);
        let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let submitted = response.extensions().get::<Submitted>();
        tracing::info!(
            method = method.as_str(),
            route,
            status = response.status().as_u16(),
            duration_ms = took.as_secs_f64() * 1_000.0,
            trace_id,
            job.id = location.and_then(job_of).or_else(|| job_of(&path)),
            flow = submitted.map(|submitted| submitted.flow.as_str()),
            tenant = submitted.map(|submitted| submitted.tenant.as_str()),
            "request"
        );
    }
    response
}

fn count(route: &str, method: &Method, status: StatusCode, took: Duration) {
    let (route, method) = (route.to_owned(), known_method(method));
    metrics::histogram!("meanwhile_http_request_seconds", "route" => route.clone(), "method" => method).record(took);
    let status = class(status);
    metrics::counter!("meanwhile_http_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
}

fn known_method(method: &Method) -> &'static str {
    registered(method).unwrap_or("other")
}

const fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_few_values_whatever_is_asked() {
        assert_eq!(known_method(&Method::DELETE), "DELETE");
        assert_eq!(known_method(&Method::from_bytes(b"BREW").unwrap()), "other");
        assert_eq!(
            [202, 303, 404, 503].map(|code| class(StatusCode::from_u16(code).unwrap())),
            ["2xx", "3xx", "4xx", "5xx"]
        );
    }
}
