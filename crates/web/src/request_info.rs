//! The parts of a request that its log line, its span and its metrics name.

use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::http::Method;

use axum::RequestExt;

/// Paths of probes and scrapers, which ask every few seconds: they get no log line and no span.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Below these, an address is a permit by itself: logs and traces do not tell it.
const PERMITS: [&str; 2] = ["/v1/callbacks/", "/v1/progress/"];
/// The parameter of a route that names a job.
const JOB: &str = "job";
const JOB_IN_ROUTE: &str = "{job}";

/// The parts of a request, in its extensions. Requests of probes and scrapers have none.
#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    pub(crate) method: Method,
    /// The route as the router knows it.
    pub(crate) route: Option<String>,
    pub(crate) path: String,
    /// The job in the path; see [`RequestInfo::job_of`] for the job that the request is about.
    pub(crate) job: Option<String>,
}

impl RequestInfo {
    pub(crate) async fn of(request: &mut Request) -> Option<Self> {
        if QUIET.contains(&request.uri().path()) {
            return None;
        }
        let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let job = match &route {
            Some(route) if route.contains(JOB_IN_ROUTE) => job_in_path(request).await,
            _ => None,
        };
        let path = request.uri().path();
        let permits = PERMITS.iter().find(|permits| path.starts_with(**permits));
        let path = permits.map_or_else(|| path.to_owned(), |permits| format!("{permits}..."));
        Some(Self { method: request.method().clone(), route, path, job })
    }

    /// The job that the answer is about: the one it names itself, else the one that the path names.
    pub(crate) fn job_of<'a>(&'a self, answered: Option<&'a JobInfo>) -> Option<&'a str> {
        answered.map(|job| job.id.as_str()).or(self.job.as_deref())
    }
}

async fn job_in_path(request: &mut Request) -> Option<String> {
    let parameters = request.extract_parts::<RawPathParams>().await.ok()?;
    parameters.iter().find(|(name, _)| *name == JOB).map(|(_, job)| job.to_owned())
}

/// The job that an answer is about. A handler puts it into the response's extensions; log and span name it.
#[derive(Debug, Clone)]
pub struct JobInfo {
    pub id: String,
    pub flow: String,
    pub tenant: String,
}

/// The method's name, if it is one that a label or an attribute may have: callers can send any word as a method.
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
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::{self, Next};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn job_of(path: &str) -> Option<String> {
        let tell = async |mut request: Request, _: Next| {
            let info = RequestInfo::of(&mut request).await;
            info.as_ref().and_then(|info| info.job_of(None)).unwrap_or_default().to_owned()
        };
        let app = Router::new()
            .route("/v1/jobs/{job}/events", get(""))
            .route("/v1/flows/{flow}", get(""))
            .fallback(get(""))
            .layer(middleware::from_fn(tell));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let body = app.oneshot(request).await.unwrap().into_body();
        let job = axum::body::to_bytes(body, 100).await.unwrap();
        Some(String::from_utf8(job.to_vec()).unwrap()).filter(|job| !job.is_empty())
    }

    #[tokio::test]
    async fn a_job_is_named_by_the_path_or_by_the_answer() {
        assert_eq!(job_of("/v1/jobs/0190a6f2/events").await.unwrap(), "0190a6f2");
        assert_eq!(job_of("/v1/flows/order").await, None);
        assert_eq!(job_of("/orders").await, None);
        let info = RequestInfo {
            method: Method::POST,
            route: None,
            path: "/v1/jobs/1/retry".to_owned(),
            job: Some("1".to_owned()),
        };
        let answered = JobInfo { id: "2".to_owned(), flow: "order".to_owned(), tenant: "acme".to_owned() };
        assert_eq!((info.job_of(None), info.job_of(Some(&answered))), (Some("1"), Some("2")));
    }
}
