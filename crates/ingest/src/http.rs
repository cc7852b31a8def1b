//! The HTTP surface: routes, limits, and the layers around them.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use bus::{Full, Reader, Room, Work};
use serde_json::{Value, json};
use service_kit::health::Readiness;
use service_kit::identity::{Clock, Ids};
use service_kit::problem::{self, Kind, Problem, PublicUrl, dress};
use store::Pool;
use tower_http::catch_panic::CatchPanicLayer;

use crate::accept::Acceptor;
use crate::catalog::{Catalog, Routed};
use crate::config::Config;
use crate::context::{self, RequestContext};
use crate::plan::Planner;
use crate::recent::Recent;
use crate::request_log::FlowRoute;
use crate::{asyncapi, openapi, request_log, retry, status, submit};

/// What handlers reach.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) acceptor: Acceptor,
    pub(crate) reader: Reader,
    pub(crate) catalog: Catalog,
    pub(crate) recent: Recent,
    pub(crate) pool: Pool,
    pub(crate) readiness: Readiness,
    /// Of the broker in this process (`meanwhile dev`); a real Kafka keeps what is not read.
    pub(crate) room: Option<Room>,
    /// Set once the flows are loaded and the schema ids are known.
    pub(crate) planner: OnceLock<Planner>,
}

impl Api {
    /// What turns requests into acceptances; 503 until flows and schemas were read for the first time.
    pub(crate) fn planner(&self) -> Result<&Planner, Problem> {
        self.planner.get().ok_or_else(|| {
            let missing: Vec<String> = self
                .readiness
                .dependencies()
                .into_iter()
                .filter(|dependency| !dependency.ok)
                .map(|dependency| format!("{}: {}", dependency.name, dependency.message))
                .collect();
            let detail = format!("Flows and schemas have not been read yet ({}).", missing.join("; "));
            Problem::new(Kind::NotReady, detail).retry_after_s(1)
        })
    }
}

impl Api {
    /// Refuses a new job while too much of the earlier ones is unread.
    pub(crate) fn check_room(&self) -> Result<(), Full> {
        self.room.as_ref().map_or(Ok(()), |room| room.check(Work::New))
    }
}

/// The routes under `/v1`, those of `health`, and flows' own routes for everything else.
pub(crate) fn router(api: Arc<Api>, public_url: PublicUrl, health: Router) -> Router {
    let ids = api.ids.clone();
    let body_bytes_max = api.config.body_bytes_max;
    let routes = Router::new()
        .route("/v1/flows", get(list_flows))
        .route("/v1/flows/{flow}", get(show_flow))
        .route("/v1/flows/{flow}/jobs", post(submit_to))
        .route("/v1/jobs/{job}", get(status::show))
        .route("/v1/jobs/{job}/result", get(status::result))
        .route("/v1/jobs/{job}/events", get(status::events))
        .route("/openapi.json", get(openapi::show))
        .route("/v1/jobs/{job}/retry", post(retry::retry))
        .fallback(submit_by_route)
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

/// `POST /v1/flows/{flow}/jobs`
async fn submit_to(
    State(api): State<Arc<Api>>,
    Path(flow): Path<String>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    api.planner()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    Ok(submit::submit(&api, &definition, context, &headers, &body).await)
}

/// A flow's own route, which is not known before the flow is.
async fn submit_by_route(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: Uri,
    Extension(context): Extension<RequestContext>,
    Extension(flow_route): Extension<FlowRoute>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    api.planner()?;
    match api.catalog.routed(method.as_str(), uri.path()) {
        Routed::Flow(definition) => {
            flow_route.note(uri.path());
            let body = axum::RequestExt::extract::<Bytes, _>(request).await;
            let body = body.map_err(|rejection| unreadable(&rejection))?;
            Ok(submit::submit(&api, &definition, context, &headers, &body).await)
        }
        Routed::OtherMethod(allowed) => {
            let detail = format!("{method} is not taken at {}; {allowed} is.", uri.path());
            let problem = Problem::new(Kind::MethodNotAllowed, detail);
            Err(match HeaderValue::from_str(&allowed) {
                Ok(allowed) => problem.with_header(header::ALLOW, allowed),
                Err(_) => problem,
            })
        }
        Routed::Nothing => Err(Problem::new(Kind::NotFound, format!("There is nothing at {method} {}.", uri.path()))),
    }
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Kind::PayloadTooLarge, "The body is over the limit of this service.")
    } else {
        Problem::new(Kind::BadRequest, rejection.body_text())
    }
}

/// `GET /v1/flows`
async fn list_flows(State(api): State<Arc<Api>>) -> Result<Json<Value>, Problem> {
    api.planner()?;
    let flows: Vec<Value> = api.catalog.list().iter().map(describe).collect();
    Ok(Json(json!({ "flows": flows })))
}

/// `GET /v1/flows/{flow}`
async fn show_flow(State(api): State<Arc<Api>>, Path(flow): Path<String>) -> Result<Json<Value>, Problem> {
    api.planner()?;
    let Some(definition) = api.catalog.active(&flow) else {
        return Err(Problem::new(Kind::UnknownFlow, api.catalog.no_such_flow(&flow)));
    };
    let mut body = describe(&definition);
    body["document"] = definition.document().clone();
    Ok(Json(body))
}

fn describe(definition: &flow::definition::Definition) -> Value {
    json!({
        "flow": definition.name(),
        "version": definition.version(),
        "summary": definition.summary(),
        "route": definition.route().map(|route| format!("{} {}", route.method, route.path)),
        "steps": definition.steps().iter().map(|step| step.id.as_str()).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
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
