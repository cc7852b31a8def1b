//! One log line per request, written with the answer, and the metrics of requests.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use axum::response::Response;
use events::trace::TraceId;
use parking_lot::Mutex;

pub use crate::request_info::JobInfo;
use crate::request_info::{RequestInfo, registered};

/// The route of a request that matched none.
const NO_ROUTE: &str = "(none)";

/// The route that a fallback found outside of the router, in the request's extensions. Paths cannot be labels, since
/// callers can send any path.
#[derive(Debug, Clone, Default)]
pub struct NotedRoute(Arc<OnceLock<String>>);

impl NotedRoute {
    pub fn note(&self, route: &str) {
        self.0.get_or_init(|| route.to_owned());
    }
}

/// In the extensions of an answer: the way in which a flow's own address was served.
#[derive(Debug, Clone, Copy)]
pub struct Mode(pub &'static str);

/// Counts a request, and logs its method, route, status, duration, trace and job. No bodies, no queries, no secrets.
pub(crate) fn write(
    info: &RequestInfo,
    noted: &NotedRoute,
    client: Option<IpAddr>,
    trace_id: TraceId,
    response: &Response,
    took: Duration,
) {
    let known = info.route.as_deref().or_else(|| noted.0.get().map(String::as_str));
    count(known.unwrap_or(NO_ROUTE), &info.method, response.status(), took);
    let always = response.status().is_server_error() || tracing::enabled!(tracing::Level::DEBUG);
    let Some(left_out) = LINES.lock().admit(Instant::now(), always) else { return };
    let job = response.extensions().get::<JobInfo>();
    tracing::info!(
        method = info.method.as_str(),
        route = info.route.as_deref().unwrap_or(&info.path),
        status = response.status().as_u16(),
        duration_ms = took.as_secs_f64() * 1_000.0,
        client = client.map(tracing::field::display),
        %trace_id,
        job.id = info.job_of(job),
        flow = job.map(|job| job.flow.as_str()),
        tenant = job.map(|job| job.tenant.as_str()),
        mode = response.extensions().get::<Mode>().map(|Mode(mode)| *mode),
        left_out = (left_out > 0).then_some(left_out),
        "request"
    );
}

/// So many lines are written in a second; one costs some 3 us. Beyond it only failures of ours are told one by one.
const LINES_PER_S: u32 = 100;

static LINES: Mutex<Lines> = Mutex::new(Lines { second: None, written: 0, left_out: 0 });

/// The lines of the present second.
struct Lines {
    second: Option<Instant>,
    written: u32,
    /// Requests since the last line that were not told.
    left_out: u64,
}

impl Lines {
    /// The number of requests that were left out before this one; none if this one is left out too.
    fn admit(&mut self, now: Instant, always: bool) -> Option<u64> {
        if self.second.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.written = 0;
        }
        if !always && self.written >= LINES_PER_S {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
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
    fn under_load_lines_are_left_out_and_counted_and_failures_are_told() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut lines = Lines { second: None, written: 0, left_out: 0 };
        let told = (0..LINES_PER_S + 7).filter_map(|_| lines.admit(start, false)).collect::<Vec<_>>();
        assert_eq!(told, vec![0; LINES_PER_S as usize]);
        assert_eq!(lines.admit(start, true), Some(7), "a failure is told, and what was left out before it");
        assert_eq!(lines.admit(start + second / 2, false), None);
        assert_eq!(lines.admit(start + second, false), Some(1), "another second");
    }

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
