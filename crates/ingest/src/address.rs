//! The parts of a request line that logs, spans and metrics name.

use axum::http::Method;

/// What probes and scrapers ask: not worth a line each.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Where jobs are found.
const JOBS: &str = "/v1/jobs/";

/// Whether a probe or a scraper asks for this.
pub(crate) fn is_quiet(path: &str) -> bool {
    QUIET.contains(&path)
}

/// The job that an address under `/v1/jobs/` is about.
pub(crate) fn job_of(address: &str) -> Option<&str> {
    address.strip_prefix(JOBS)?.split('/').next()
}

/// The method's name, if it is one that a label or an attribute takes: any word may be a method.
pub(crate) fn registered(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => return None,
    })
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
