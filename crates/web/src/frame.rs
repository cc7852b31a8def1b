//! The layers around the routes of a door.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Router, middleware};
use service_kit::identity::Ids;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::browsers::{Origins, answer_options};
use crate::caller::Caller;
use crate::client_address::Proxies;
use crate::problem::{Foreign, PublicUrl, complete_problem};
use crate::{arrival, context, panic};

/// Keeps caches from answering, since answers change with the state of jobs.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The settings of a frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The address at which callers reach the door; it makes URIs in answers absolute.
    pub public_url: PublicUrl,
    /// Larger bodies are answered with 413.
    pub body_bytes_max: usize,
    /// Routes that take larger bodies, each with its limit. Their handlers read no more than they have room for.
    pub larger_bodies: Vec<(&'static str, usize)>,
    /// The origins whose pages may ask and read answers.
    pub origins: Origins,
    /// The proxies that tell who their clients are.
    pub proxies: Proxies,
    /// The caller of a request that nobody asks who it is.
    pub anonymous: Caller,
    /// Draws trace ids and correlation ids.
    pub ids: Ids,
}

impl Frame {
    /// Puts the layers around the routes. From the inside out: panics become answers, bodies are limited, errors become
    /// problems, nothing is cached that does not say so, pages of other origins are answered as configured; the request
    /// has its context, and is logged.
    pub fn around(self, routes: Router) -> Router {
        let bounds = arrival::Bounds { bytes_max: self.body_bytes_max, larger: self.larger_bodies.into() };
        let context = context::Carried { ids: self.ids, anonymous: self.anonymous, proxies: self.proxies };
        let answers = Arc::new(Answers { bounds, public_url: self.public_url });
        // One layer for the router, which boxes each of its own for every request, and copies all that lies within it.
        let layers = ServiceBuilder::new()
            .layer(middleware::from_fn_with_state(context, context::carry))
            .option_layer(self.origins.layer())
            .layer(middleware::from_fn_with_state(answers, answer))
            .layer(DefaultBodyLimit::max(self.body_bytes_max))
            .layer(CatchPanicLayer::custom(panic::answer));
        routes.layer(layers)
    }

    /// A frame with nothing configured.
    #[cfg(test)]
    pub(crate) fn of_tests(anonymous: Caller) -> Self {
        Self {
            public_url: PublicUrl::new("https://api.example.com"),
            body_bytes_max: 1_000,
            larger_bodies: Vec::new(),
            origins: Origins::default(),
            proxies: Proxies::default(),
            anonymous,
            ids: Ids::seeded(1),
        }
    }
}

/// What answers are made complete with.
struct Answers {
    bounds: arrival::Bounds,
    public_url: PublicUrl,
}

/// Middleware: bodies are limited, errors become problems, nothing is cached that does not say so. One for all of them,
/// since each middleware costs a request several allocations.
async fn answer(State(answers): State<Arc<Answers>>, request: Request, next: Next) -> Response {
    let bounded = |request| arrival::bounded(&answers.bounds, request, |request| next.run(request));
    let with_options = |request| answer_options(request, bounded);
    keep_out_of_caches(complete_problem(&answers.public_url, request, with_options).await)
}

/// An answer of ours is cached only where it says so itself.
fn keep_out_of_caches(mut response: Response) -> Response {
    if response.extensions().get::<Foreign>().is_none() {
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(NO_STORE);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::body::{Body, to_bytes};
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::Value;
    use service_kit::health::{self, Readiness};
    use service_kit::identity::Clock;
    use service_kit::telemetry::Metrics;
    use tower::ServiceExt;

    use super::*;
    use crate::context::RequestContext;
    use crate::problem::{MEDIA_TYPE, Problem};

    async fn ask(routes: Router, path: &str) -> (Response<()>, String) {
        let frame = Frame::of_tests(Caller::unrestricted("acme"));
        let request = Request::get(path)
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .header("x-correlation-id", "order-17");
        let response = frame.around(routes).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 4_096).await.unwrap().to_vec();
        (Response::from_parts(parts, ()), String::from_utf8(body).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_a_problem_that_tells_nothing_but_the_trace() {
        let panics = async || -> &'static str { panic!("the password is hunter2") };
        let (response, body) = ask(Router::new().route("/panics", get(panics)), "/panics").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        assert_eq!(response.headers()["x-correlation-id"], "order-17");
        assert!(!body.contains("hunter2"), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["type"], "https://api.example.com/problems/internal");
        assert_eq!(body["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(body["instance"], "/panics");
    }

    #[tokio::test]
    async fn answers_and_problems_are_not_cached_unless_they_say_so() {
        let checked = async || ([(header::CACHE_CONTROL, "no-cache")], "");
        let routes = || Router::new().route("/plain", get("")).route("/checked", get(checked));
        for (path, expected) in [("/plain", "no-store"), ("/checked", "no-cache"), ("/nowhere", "no-store")] {
            let (response, _) = ask(routes(), path).await;
            assert_eq!(response.headers()["cache-control"], expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_handler_finds_the_caller_of_a_request_without_credentials() {
        let whoami = async |Extension(context): Extension<RequestContext>| context.caller.tenant;
        let (_, body) = ask(Router::new().route("/whoami", get(whoami)), "/whoami").await;
        assert_eq!(body, "acme");
    }

    #[tokio::test]
    async fn missing_dependencies_are_answered_as_a_problem_like_any_other() {
        let readiness = Readiness::new(Clock::manual(0), "ingest");
        readiness.missing("kafka", "refused");
        let (response, body) = ask(health::router(readiness, Metrics::install().unwrap()), "/readyz").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["type"], "https://api.example.com/problems/not-ready");
        assert_eq!((&body["instance"], &body["detail"]), (&"/readyz".into(), &"kafka (ingest): refused".into()));
        assert_eq!(body["dependencies"][0]["name"], "kafka");
    }

    #[tokio::test]
    async fn a_process_without_a_door_answers_readyz_in_the_words_of_the_catalogue() {
        let readiness = Readiness::new(Clock::manual(0), "relay");
        readiness.missing("kafka", "refused");
        let dependencies = readiness.dependencies();
        let request = Request::get("/readyz").body(Body::empty()).unwrap();
        let answer = health::router(readiness, Metrics::install().unwrap()).oneshot(request).await.unwrap();
        let body = to_bytes(answer.into_body(), 4_096).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, Problem::unready(&dependencies).document(""));
    }
}
