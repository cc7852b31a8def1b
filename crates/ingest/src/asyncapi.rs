//! `GET /asyncapi.yaml`: the description of the Kafka topics; its schemas are served below the same address.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use events::RecordKind;
use events::asyncapi::{DOCUMENT, MEDIA_TYPE};

const SCHEMA_MEDIA_TYPE: &str = "application/json";

/// The document and the schemas, as they were compiled in.
pub(crate) fn router() -> Router {
    let router = Router::new().route("/asyncapi.yaml", get(async || ([(CONTENT_TYPE, MEDIA_TYPE)], DOCUMENT)));
    let published = RecordKind::ALL.into_iter().flat_map(|kind| (1..).zip(kind.published()).map(move |of| (kind, of)));
    published.fold(router, |router, (kind, (version, schema))| {
        let schema = async move || ([(CONTENT_TYPE, SCHEMA_MEDIA_TYPE)], *schema);
        router.route(&format!("/{}", kind.path(version)), get(schema))
    })
}
