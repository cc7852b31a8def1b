//! The routes of the HTTP door.

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post, put};
use service_kit::config::ConfigError;
use web::caller::Caller;
use web::compress;
use web::frame::Frame;
use web::problem;

use crate::state::Api;
use crate::{
    admit, asyncapi, audit, auth, batch, breakers, callback, cancel, dead_letters, docs, flags, flows, jobs_in_bulk,
    keys, list_callers, list_jobs, openapi, report, result, retry, routed, signal, stats, status, streams, submit,
    triggers, webhooks,
};

/// The routes under `/v1`, which ask for credentials unless they say otherwise; those of `health`; flows' own routes
/// for everything else.
///
/// # Errors
/// Origins or proxies in the configuration that are none.
pub(crate) fn router(api: Arc<Api>, health: Router) -> Result<Router, ConfigError> {
    let frame = Frame {
        public_url: api.public_url.clone(),
        body_bytes_max: api.config.body_bytes_max,
        // A flow that takes documents has limits of its own for them.
        larger_bodies: vec![(batch::PATH, batch::BODY_BYTES_MAX), (submit::PATH, usize::MAX)],
        origins: api.config.origins()?,
        proxies: api.config.proxies()?,
        anonymous: match api.auth.is_required {
            true => auth::nobody(),
            false => Caller::unrestricted(&api.config.default_tenant),
        },
        ids: api.ids.clone(),
    };
    let documents = Router::new()
        .route("/openapi.json", get(openapi::show))
        .with_state(Arc::clone(&api))
        .merge(problem::router())
        .merge(asyncapi::router())
        .merge(docs::router());
    let routes = webhooks()
        .route("/v1/flows", get(flows::list))
        .route("/v1/flows/{flow}", get(flows::show))
        .route("/v1/flows/{flow}/stats", get(stats::show))
        .route("/v1/flows/{flow}/callers", get(list_callers::list))
        .route(submit::PATH, post(submit::submit_to))
        .route(batch::PATH, post(batch::submit))
        .route("/v1/jobs", get(list_jobs::list))
        .route("/v1/jobs:cancel", post(jobs_in_bulk::cancel))
        .route("/v1/jobs:retry", post(jobs_in_bulk::retry))
        .route("/v1/jobs/{job}", get(status::show).delete(cancel::cancel))
        .route("/v1/jobs/{job}/result", get(result::show))
        .route("/v1/jobs/{job}/events", get(streams::of_job))
        .route("/v1/events", get(streams::of_all))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters:redrive", post(dead_letters::redrive_many))
        .route("/v1/dead-letters/{id}", get(dead_letters::show).delete(dead_letters::drop))
        .route("/v1/dead-letters/{id}/redrive", post(dead_letters::redrive))
        .route("/v1/breakers", get(breakers::list))
        .route("/v1/breakers/{downstream}", put(breakers::put))
        .route("/v1/flags", get(flags::list))
        .route("/v1/flags/{flow}", get(flags::show).put(flags::put))
        .route("/v1/flags/{flow}/history", get(flags::history))
        .route("/v1/flags/{flow}/rollback", post(flags::roll_back))
        .route("/v1/jobs/{job}/retry", post(retry::retry))
        .route("/v1/jobs/{job}/signals/{name}", post(signal::send))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{id}", delete(keys::revoke))
        .route("/v1/audit", get(audit::list))
        .fallback(routed::serve)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), admit::admit))
        // These addresses certify themselves.
        .route(triggers::webhook::PATH, post(triggers::webhook::receive))
        .route("/v1/callbacks/{permit}", post(callback::call_back).put(callback::call_back))
        .route("/v1/progress/{permit}", put(report::report))
        .with_state(api)
        .merge(compress::documents(documents))
        .merge(health);
    Ok(frame.around(routes))
}

/// The routes of webhooks.
fn webhooks() -> Router<Arc<Api>> {
    use webhooks::{DELIVERIES, ENDPOINTS, deliveries, endpoints};
    let of_endpoint = |rest: &str| format!("{ENDPOINTS}/{{id}}{rest}");
    Router::new()
        .route(ENDPOINTS, get(endpoints::list).post(endpoints::create))
        .route(&of_endpoint(""), get(endpoints::show).put(endpoints::put).delete(endpoints::delete))
        .route(&of_endpoint("/rotate"), post(endpoints::rotate))
        .route(&of_endpoint("/enable"), post(endpoints::enable))
        .route(&of_endpoint("/public-key"), get(endpoints::public_key))
        .route(&of_endpoint("/ping"), post(endpoints::ping))
        .route(&of_endpoint("/recover"), post(endpoints::recover))
        .route(DELIVERIES, get(deliveries::list))
        .route(&format!("{DELIVERIES}/{{id}}"), get(deliveries::show))
        .route(&format!("{DELIVERIES}/{{id}}/resend"), post(deliveries::resend))
}
