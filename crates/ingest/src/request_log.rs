//! One log line per request, where the answer leaves.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;

use crate::context::RequestContext;

/// What probes and scrapers ask: not worth a line each.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Where jobs are found.
const JOBS: &str = "/v1/jobs/";

/// Put into the extensions of a response that accepted a job (or found the one that its key stands for).
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub(crate) flow: String,
    pub(crate) tenant: String,
}

/// Whether a probe or a scraper asks for this.
pub(crate) fn is_quiet(path: &str) -> bool {
    QUIET.contains(&path)
}

/// Middleware: logs method, route, status, duration, trace and job of a request. No bodies, no queries, no secrets.
pub(crate) async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // A flow's own route is no route of the router.
    let path = request.uri().path().to_owned();
    let trace_id = request.extensions().get::<RequestContext>().map(RequestContext::trace_id);
    let response = next.run(request).await;
    let route = matched.as_deref().unwrap_or(&path);
    if !is_quiet(route) {
        let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let submitted = response.extensions().get::<Submitted>();
        tracing::info!(
            method = method.as_str(),
            route,
            status = response.status().as_u16(),
            duration_ms = started.elapsed().as_secs_f64() * 1_000.0,
            trace_id,
            job.id = location.and_then(job_of).or_else(|| job_of(&path)),
            flow = submitted.map(|submitted| submitted.flow.as_str()),
            tenant = submitted.map(|submitted| submitted.tenant.as_str()),
            "request"
        );
    }
    response
}

/// The job that an address under `/v1/jobs/` is about.
pub(crate) fn job_of(address: &str) -> Option<&str> {
    address.strip_prefix(JOBS)?.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_off_every_address_of_it() {
        assert_eq!(job_of("/v1/jobs/0190a6f2"), Some("0190a6f2"));
        assert_eq!(job_of("/v1/jobs/0190a6f2/events"), Some("0190a6f2"));
        assert_eq!(job_of("/orders"), None);
    }
}
