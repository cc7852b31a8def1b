//! `GET /asyncapi.yaml`: what there is on Kafka, and beside it the schemas that it refers to, so that tools can follow.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use events::RecordKind;
use events::asyncapi::{DOCUMENT, MEDIA_TYPE};

const SCHEMA_MEDIA_TYPE: &str = "application/json";

/// The document and the schemas, as they were compiled in.
pub(crate) fn router() -> Router {
    let router = Router::new().route("/asyncapi.yaml", get(async || ([(CONTENT_TYPE, MEDIA_TYPE)], DOCUMENT)));
    RecordKind::ALL.into_iter().fold(router, |router, kind| {
        let schema = async move || ([(CONTENT_TYPE, SCHEMA_MEDIA_TYPE)], kind.latest());
        router.route(&format!("/{}", kind.latest_path()), get(schema))
    })
}
