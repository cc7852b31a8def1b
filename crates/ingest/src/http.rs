//! The HTTP surface: routes, limits, and the layers around them.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use service_kit::identity::Ids;
use service_kit::problem::{self, Problem, PublicUrl, dress};
use tower_http::catch_panic::CatchPanicLayer;

use crate::state::Api;
use crate::{asyncapi, context, flows, openapi, request_log, retry, status, submit};

/// The routes under `/v1`, those of `health`, and flows' own routes for everything else.
pub(crate) fn router(api: Arc<Api>, public_url: PublicUrl, health: Router) -> Router {
    let ids = api.ids.clone();
    let body_bytes_max = api.config.body_bytes_max;
    let routes = Router::new()
        .route("/v1/flows", get(flows::list))
        .route("/v1/flows/{flow}", get(flows::show))
        .route("/v1/flows/{flow}/jobs", post(submit::submit_to))
        .route("/v1/jobs/{job}", get(status::show))
        .route("/v1/jobs/{job}/result", get(status::result))
        .route("/v1/jobs/{job}/events", get(status::events))
        .route("/openapi.json", get(openapi::show))
        .route("/v1/jobs/{job}/retry", post(retry::retry))
        .fallback(submit::submit_by_route)
        .with_state(api)
        .merge(problem::router())
        .merge(asyncapi::router())
        .merge(health);
    layered(routes, body_bytes_max, public_url, ids)
}

/// From the inside out: panics and all other errors become problems, then the request is logged, within its context.
fn layered(routes: Router, body_bytes_max: usize, public_url: PublicUrl, ids: Ids) -> Router {
    routes
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(middleware::from_fn_with_state(public_url, dress))
        .layer(middleware::from_fn(request_log::log))
        .layer(middleware::from_fn_with_state(ids, context::carry))
}

fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    Problem::internal(anyhow::anyhow!("a handler panicked: {}", text.unwrap_or("?"))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use axum::http::StatusCode;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_with_a_problem_that_tells_nothing_but_the_trace() {
        let panics = async || -> &'static str { panic!("the password is hunter2") };
        let routes = Router::new().route("/panics", get(panics));
        let app = layered(routes, 1_000, PublicUrl::new("https://api.example.com"), Ids::seeded(1));
        let request = Request::get("/panics")
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .header("x-correlation-id", "order-17");
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], problem::MEDIA_TYPE);
        assert_eq!(response.headers()["x-correlation-id"], "order-17");
        let body = String::from_utf8(to_bytes(response.into_body(), 4_096).await.unwrap().to_vec()).unwrap();
        assert!(!body.contains("hunter2"), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["type"], "https://api.example.com/problems/internal");
        assert_eq!(body["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(body["instance"], "/panics");
    }
}
